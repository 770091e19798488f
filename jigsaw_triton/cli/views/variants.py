"""Variants that were made of a model, as a table and as a document."""

from collections.abc import Iterator
from typing import Any

from jigsaw_triton.api.files import shown_path
from jigsaw_triton.api.variants import Variants
from jigsaw_triton.cli.io.output import View
from jigsaw_triton.cli.io.table import Table

_MIB = 2**20


def variants_document(found: Variants) -> dict[str, Any]:
    """Returns the variants that were made, and those that were not, as JSON."""
    return {
        "file": str(found.file),
        "task": found.task,
        "original": found.original,
        "items": found.items,
        "variants": [
            {
                "name": variant.name,
                "kind": variant.kind,
                "file": str(variant.file),
                "size_bytes": variant.size_bytes,
                "accuracy": variant.accuracy,
                "metric": variant.agreement.metric,
                "agreement": variant.agreement.value,
                "mean_error": variant.agreement.mean_error,
                "max_error": variant.agreement.max_error,
                "items": variant.agreement.items,
            }
            for variant in found.made
        ],
        "not_made": [{"kind": v.kind, "reason": v.reason, "present": v.present} for v in found.not_made],
        "next": _next(found),
    }


def variants_view(found: Variants) -> Iterator[View]:
    """Yields the parts of the view, to be printed one below the other."""
    if not found.made:
        yield "no variant was made"
        return
    rows = (
        (v.name, v.accuracy, f"{v.agreement} ({found.items})", f"{v.size_bytes / _MIB:.3g} MiB", shown_path(v.file))
        for v in found.made
    )
    yield Table.of(("variant", "accuracy", "agreement", "size", "file"), rows)
    yield f"{found.file} is changed. Next:"
    yield from (f"  {line}" for line in _next(found))


def _next(found: Variants) -> list[str]:
    """Returns the commands to run next."""
    folder = shown_path(found.file.resolve().parent)
    return [f"jigsaw-triton profile {folder} --gpus 1xcpu"] if found.made else []
