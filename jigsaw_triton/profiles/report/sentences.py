"""Says in words what a report shows."""

from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import median

from jigsaw_triton.profiles.fit import INTERVAL, LEAST_ROWS
from jigsaw_triton.profiles.report.figures import ReportFigures, TaskFigures, Validation, VariantFigures, per_slice
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from jigsaw_triton.report.numbers import number, percent


def kind(row: ProfileRow) -> str:
    """Returns the source of a row, or `imported` if another tool measured it."""
    return "imported" if row.source == "measured" and row.origin else row.source


def counts(rows: Iterable[ProfileRow]) -> str:
    """Counts rows by their source: `12 measured, 148 fitted`."""
    return ", ".join(f"{count} {name}" for name, count in Counter(map(kind, rows)).most_common())


def place(key: ProfileKey) -> str:
    """Names a configuration of a variant: `2g, 3 x batch 8`."""
    return f"{key.slice}, {key.instances} \u00d7 batch {key.batch}"


def stated(row: ProfileRow) -> str:
    """Names the source of a row and the error that it states: `fitted ±3.4%`."""
    return f"{kind(row)} \u00b1{percent(row.error)}" if row.error is not None else kind(row)


def row_words(row: ProfileRow) -> str:
    """Describes a row in one line."""
    return (
        f"{place(row.key)}: p50 {number(row.latency_p50_ms)} ms, p95 {number(row.latency_p95_ms)} ms, "
        f"{number(row.throughput_rps)} items/s, {stated(row)}"
    )


def trust_words(report: ReportFigures) -> Iterator[str]:
    """Yields sentences on the sources of the rows, the fit and the check."""
    by_source = Counter(row.source for row in report.rows)
    if by_source["measured"]:
        imported = sum(kind(row) == "imported" for row in report.rows)
        others = f", {imported} of them by another tool" if imported else ""
        yield f"Rows that were measured: {by_source['measured']} of {len(report.rows)}{others}."
    else:
        yield "No row was measured. What follows is no better than the assumptions and fits that it was made from."
    if by_source["fitted"]:
        errors = [row.error for row in report.rows if row.source == "fitted" and row.error is not None]
        known = f"median {percent(median(errors))}, largest {percent(max(errors))}" if errors else "none"
        yield f"Rows that a latency model predicts: {by_source['fitted']}. Errors that they state: {known}."
    if by_source["assumed"]:
        yield f"Rows that are assumed: {by_source['assumed']}. Nobody measured them, and their error is not known."
    yield _fit_words(report)
    errors_found = sum(finding.severity == "error" for finding in report.findings)
    if report.findings:
        warnings = len(report.findings) - errors_found
        yield f"The check found {_counted(errors_found, 'error')} and {_counted(warnings, 'warning')}:"
    else:
        yield "The check found no mistakes."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _fit_words(report: ReportFigures) -> str:
    if report.unfitted:
        return report.unfitted
    checks = [one.validation for task in report.tasks for one in task.variants if one.validation is not None]
    if not checks:
        return f"The latency model could not be fitted: no variant has {LEAST_ROWS} rows on a GPU model."
    predictions = [one for check in checks for one in check.predictions]
    inside = sum(one.inside for one in predictions)
    return (
        f"In cross-validation the latency model predicted {len(predictions)} rows from others: {inside} of them "
        f"({inside / len(predictions):.0%}) are in their {INTERVAL:.0%} interval, whose width is calibrated on all of "
        "them. Rows outside of it are worth measuring again."
    )


def choice_words(task: TaskFigures, report: ReportFigures) -> Iterator[str]:
    """Yields sentences on which variants of a task are worth a choice."""
    limit = f" within {number(report.slo.latency_ms)} ms" if report.slo is not None else ""
    offers = [(one.name, per_slice(one.best)) for one in task.variants if one.on_front and one.accurate and one.best]
    if len(offers) > 1:
        steps = ", ".join(f"{name} ({number(rps)} items/s)" for name, rps in offers)
        yield f"Worth a choice, from accurate to fast, with items per second and compute slice{limit}: {steps}."
    elif offers and len(task.variants) > 1:
        yield f"{offers[0][0]} is the only variant worth a choice."
    guessed = [one.name for one in task.variants if one.best is not None and one.best.source != "measured"]
    if guessed and any(row.source == "measured" for one in task.variants for row in one.rows):
        yield f"Not measured: the best configuration of {', '.join(guessed)}. Measure it before you rely on it."
    if report.graph is None:
        yield "Accuracies are in the graph: give the graph instead of the file to compare the variants by accuracy."
    elif all(one.accuracy is None for one in task.variants):
        yield "The graph has no such task or variants, so plans ignore these rows."
    elif all(one.best is None for one in task.variants):
        yield f"No configuration has a p95{limit}, so no plan can meet the SLO with these rows."


def legend_words(task: TaskFigures) -> str:
    """Explains the charts of a task's variants."""
    parts = ["Colours and \u00d7n are the number of instances."]
    if any(row.source != "measured" for one in task.variants for row in one.rows):
        parts.append("Filled points and bars were measured, hollow ones were not.")
    parts.append("A point of latency is the median of a batch, and the bar above it reaches to the 95th percentile.")
    parts.append("Throughput is the largest of all batch sizes; dashes are that of the smallest slice times the size.")
    if any(one.validation is not None for one in task.variants):
        parts.append(
            f"The fit predicts each row without it: hollow orange points are out of their {INTERVAL:.0%} interval."
        )
    return " ".join(parts)


def variant_words(variant: VariantFigures, report: ReportFigures) -> str:
    """Summarises a variant."""
    parts = [f"Rows: {counts(variant.rows)}."]
    if variant.accuracy is not None:
        parts.insert(0, f"Accuracy {variant.accuracy:g}.")
    if not variant.within and report.slo is not None:
        parts.append(f"None has a p95 within {number(report.slo.latency_ms)} ms; the throughput ignores the SLO.")
    if not any(row.memory_mib for row in variant.rows):
        parts.append("The memory is not known.")
    if variant.validation is not None:
        parts.append(_validation_words(variant.validation))
    elif not report.unfitted:
        parts.append(f"Too few rows for a fit, which needs {LEAST_ROWS}.")
    return " ".join(parts)


def _validation_words(validation: Validation) -> str:
    errors = f"median error {percent(validation.median_error)}, 95th percentile {percent(validation.p95_error)}"
    covered = f"{validation.coverage:.0%} are in their {INTERVAL:.0%} interval"
    return f"Fit of the {' and '.join(validation.sources)} rows: {errors}; {covered}."
