"""Service times of a deployment beside those of its profiles, as a table and as a document."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from jigsaw_triton.cli.io.output import figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.profiles.drift import Drift

_HEADER = (
    *("task", "variant", "slice", "inst", "batch", "workers", "batches"),
    *("measured ms", "profiled ms", "ratio", "verdict"),
)


def drift_view(found: Iterable[Drift]) -> Table:
    """Returns a table with a row for each configuration."""
    rows = [
        (
            *(one.key.task, one.key.variant, one.key.slice, one.key.instances, one.key.batch, one.workers),
            *(f"{one.batches:.0f}", figures(one.measured_ms), figures(one.profiled_ms), f"{one.ratio:.2f}"),
            one.verdict,
        )
        for one in found
    ]
    return Table.of(_HEADER, rows)


def drift_document(one: Drift) -> dict[str, Any]:
    """Returns the drift of a configuration as JSON."""
    times = {"measured_ms": one.measured_ms, "profiled_ms": one.profiled_ms, "ratio": one.ratio}
    return {
        **asdict(one.key),
        "workers": one.workers,
        "batches": int(one.batches),
        **times,
        "verdict": one.verdict,
    }
