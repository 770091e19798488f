"""Results of `profiles`: what a check finds, how well a model fits, and what an import changes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jigsaw_triton.api.files import shown_path
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.errors import Diagnostic
from jigsaw_triton.profiles.check import Finding
from jigsaw_triton.profiles.fit import LatencyFit
from jigsaw_triton.profiles.merging import Merged
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable


def finding_document(finding: Finding, lines: Mapping[ProfileKey, int]) -> dict[str, Any]:
    """Returns a finding of a check as JSON, with the line of the file."""
    key = asdict(finding.key) if finding.key is not None else None
    line = lines[finding.key] if finding.key is not None else None
    return {
        "severity": finding.severity,
        "line": line,
        "configuration": key,
        "message": finding.message,
        "hint": finding.hint,
    }


def finding_line(finding: Finding, file: str, lines: Mapping[ProfileKey, int]) -> str:
    """Returns a finding of a check in words, with the line of the file."""
    line = lines[finding.key] if finding.key is not None else 0
    return str(Diagnostic(file, line, f"{finding.severity}: {finding.message}", finding.hint))


def errors_document(fits: Mapping[str, LatencyFit], filled: ProfileTable) -> list[dict[str, Any]]:
    """Returns the rows and the errors of each fitted variant as JSON."""
    return [
        {
            "gpu": gpu,
            "task": task,
            "variant": variant,
            "rows": one.rows,
            "fitted": sum(r.source == "fitted" for r in filled.rows(task=task, variant=variant, gpu=gpu)),
            "median_error": one.median_error,
            "p95_error": one.p95_error,
        }
        for gpu, fit in fits.items()
        for (task, variant), one in fit.variants.items()
    ]


def errors_view(variants: Sequence[Mapping[str, Any]]) -> Table:
    """Returns a table of the errors of each fitted variant, given the document of them."""
    header = ("gpu", "task", "variant", "rows", "fitted", "median error", "p95 error")
    return Table.of(
        header,
        [
            (*(one[name] for name in header[:5]), f"{one['median_error']:.1%}", f"{one['p95_error']:.1%}")
            for one in variants
        ],
    )


def unfitted_variants(table: ProfileTable, fits: Mapping[str, LatencyFit]) -> list[str]:
    """Returns the variants of a table that have too few rows for a fit."""
    names = {(row.key.gpu, row.key.task, row.key.variant) for row in table.rows()}
    fitted = {(gpu, *name) for gpu, fit in fits.items() for name in fit.variants}
    return [f"{task}.{variant} on {gpu}" for gpu, task, variant in sorted(names - fitted)]


def merge_document(file: Path, result: Merged) -> dict[str, Any]:
    """Returns the rows that an import added, replaced and kept as JSON."""
    parts = {"added": result.added, "replaced": result.replaced, "kept": result.kept}
    return {"file": str(file), "rows": len(result.table)} | {
        name: [asdict(key) for key in keys] for name, keys in parts.items()
    }


def merge_line(file: Path, result: Merged) -> str:
    """Returns the numbers of rows that an import added, replaced and kept."""
    return (
        f"{len(result.added)} rows added, {len(result.replaced)} replaced, {len(result.kept)} kept; {shown_path(file)} "
        f"has {len(result.table)} rows"
    )
