"""Measured accuracies as tables."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jigsaw_triton.api.accuracies import Work
from jigsaw_triton.api.files import shown_path
from jigsaw_triton.cli.io.output import View
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.evaluation.accuracy.results import Result, Unmeasured
from jigsaw_triton.graph.model import TaskGraph


def accuracies_document(
    file: Path, work: Work, results: Sequence[Result], failed: Sequence[Unmeasured]
) -> dict[str, Any]:
    """Returns the result for `-o json`."""
    return {
        "file": str(file),
        "data": work.data.name,
        "requests": len(work.data.requests),
        "results": [
            {
                "variants": dict(result.variants),
                "measure": "agreement" if result.best else "accuracy",
                **({"with": result.best} if result.best else {}),
                "value": result.value,
                **asdict(result.measured),
            }
            for result in results
        ],
        "failed": [{"variants": dict(one.variants), "reason": one.failure.reason} for one in failed],
    }


def accuracies_view(
    file: Path, graph: TaskGraph, work: Work, results: Sequence[Result], failed: Sequence[Unmeasured]
) -> Iterator[View]:
    """Yields the parts of the view, to be printed one below the other."""
    accuracies = [result for result in results if not result.best]
    agreements = [result for result in results if result.best]
    if accuracies:
        rows = [(r.name, f"{r.value:.4f}", _interval(r), r.metric, r.measured.n, _before(r, graph)) for r in accuracies]
        yield Table.of(("variant", "accuracy", "95% interval", "metric", "n", "before"), rows)
    if agreements:
        alike = [(r.name, f"{r.value:.4f}", _interval(r), r.measured.n, r.best) for r in agreements]
        yield Table.of(("variant", "agreement", "95% interval", "n", "with"), alike)
        yield "an agreement is no accuracy: it is the share of calls that both variants answer alike; it is not written"
    where = f"{work.data.name}, {len(work.data.requests)} requests"
    if accuracies:
        yield f"{len(accuracies)} accuracies measured on {where}, and written to {shown_path(file)}"
    elif not results and not failed:
        yield f"nothing to measure: {shown_path(file)} has all accuracies on {where} (--again measures them again)"
    if failed:
        yield f"{len(failed)} failed and were not measured: {'; '.join(one.name for one in failed)}"


def _interval(result: Result) -> str:
    return f"{result.measured.low:.4f} to {result.measured.high:.4f}"


def _before(result: Result, graph: TaskGraph) -> float | None:
    """Returns the accuracy that the graph had; None if it had none."""
    if len(result.variants) == 1:
        ((task, variant),) = result.variants.items()
        return graph.tasks[task].variant(variant).accuracy
    return next((c.accuracy for c in graph.combinations if c.variants == result.variants), None)
