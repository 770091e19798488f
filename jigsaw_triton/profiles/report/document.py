"""Makes JSON of the figures of a report."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from jigsaw_triton.profiles.report.figures import ReportFigures, TaskFigures, Validation, VariantFigures, per_slice
from jigsaw_triton.profiles.table import ProfileRow


def report_document(report: ReportFigures) -> dict[str, Any]:
    """Returns the figures of a report as data."""
    return {
        "file": report.file,
        "modified": report.modified.isoformat(timespec="seconds") if report.modified is not None else None,
        "graph": report.graph.name if report.graph is not None else None,
        "slo": asdict(report.slo) if report.slo is not None else None,
        "gpus": list(report.gpus),
        "rows": len(report.rows),
        "sources": dict(Counter(row.source for row in report.rows)),
        "unfitted": report.unfitted or None,
        "findings": [asdict(finding) for finding in report.findings],
        "tasks": [_task(task) for task in report.tasks],
    }


def _task(task: TaskFigures) -> dict[str, Any]:
    return {
        "task": task.task,
        "gpu": task.gpu,
        "slice_memory_mib": dict(task.rooms),
        "variants": [_variant(variant) for variant in task.variants],
    }


def _variant(variant: VariantFigures) -> dict[str, Any]:
    return {
        "variant": variant.name,
        "accuracy": variant.accuracy,
        "relative_accuracy": variant.relative_accuracy,
        "accurate_enough": variant.accurate,
        "on_pareto_front": variant.on_front,
        "dominated_by": variant.dominated_by or None,
        "best": _row(variant.best) if variant.best is not None else None,
        "fastest": _row(variant.fastest),
        "latency_throughput_front": [_row(row) for row in variant.front],
        "fit": _validation(variant.validation) if variant.validation is not None else None,
        "rows": [_row(row) for row in variant.rows],
    }


def _validation(validation: Validation) -> dict[str, Any]:
    return {
        "sources": list(validation.sources),
        "median_error": validation.median_error,
        "p95_error": validation.p95_error,
        "coverage": validation.coverage,
        "predictions": [
            {
                "slice": one.row.key.slice,
                "instances": one.row.key.instances,
                "batch": one.row.key.batch,
                "measured_ms": one.row.latency_p50_ms,
                "predicted_ms": one.predicted_ms,
                "interval_ms": list(one.interval_ms),
            }
            for one in validation.predictions
        ],
    }


def _row(row: ProfileRow) -> dict[str, Any]:
    figures = {name: value for name, value in asdict(row).items() if name != "key"}
    return {**asdict(row.key), **figures, "throughput_per_slice_rps": per_slice(row)}
