"""Makes the tables of a report."""

from collections.abc import Iterable
from statistics import median
from xml.etree.ElementTree import Element

from jigsaw_triton.lists import limited
from jigsaw_triton.profiles.check import Finding
from jigsaw_triton.profiles.report.figures import TaskFigures, VariantFigures, per_slice
from jigsaw_triton.profiles.report.sentences import kind, place, stated
from jigsaw_triton.report.frame import table
from jigsaw_triton.report.markup import Content, tag
from jigsaw_triton.report.numbers import number, percent

_MOST_FINDINGS = 50
_MOST_ORIGINS = 3
_FIGURES = ("instances", "batch", "p50 ms", "p95 ms", "p99 ms", "items/s", "items/s per slice", "MiB")
_ROW_HEADER = ("slice", *(f"#{name}" for name in _FIGURES), "source", "error", "origin", "processes", "model")


def anchor(task: TaskFigures, variant: VariantFigures | None = None) -> str:
    """Returns the id of a section."""
    return ".".join((task.gpu, task.task, *((variant.name,) if variant is not None else ())))


def choice_table(task: TaskFigures, *, slo: bool, linked: bool = True) -> Element:
    """Returns the table from which a variant is chosen.

    Args:
        task: Task of the variants.
        slo: True if the best configurations are those within an SLO.
        linked: True if the page has a section for each variant.
    """
    header = (
        "variant",
        "choice",
        "#accuracy",
        "#of the best",
        "#items/s per compute slice",
        f"best configuration{' within the SLO' if slo else ''}",
        "#p95 ms",
        "#MiB",
        "source",
        "#shortest p95 ms",
        "#error of the fit, median",
        "#its p95",
    )
    return table(header, [_choice_cells(task, one, linked=linked) for one in task.variants])


def _choice_cells(task: TaskFigures, variant: VariantFigures, *, linked: bool) -> list[Content]:
    accuracy, best, errors = ["", ""], ["", "none", "", "", ""], ["", ""]
    if variant.accuracy is not None and variant.relative_accuracy is not None:
        accuracy = [f"{variant.accuracy:g}", percent(variant.relative_accuracy)]
    if (row := variant.best) is not None:
        memory = number(row.memory_mib) if row.memory_mib else "not known"
        best = [number(per_slice(row)), place(row.key), number(row.latency_p95_ms), memory, stated(row)]
    if variant.validation is not None:
        errors = [percent(variant.validation.median_error), percent(variant.validation.p95_error)]
    name: Content = tag("a", variant.name, href=f"#{anchor(task, variant)}") if linked else variant.name
    return [name, _verdict(variant), *accuracy, *best, number(variant.fastest.latency_p95_ms), *errors]


def _verdict(variant: VariantFigures) -> Content:
    if variant.accuracy is None:
        return ""
    if not variant.accurate:
        return "below the SLO's accuracy"
    if variant.best is None:
        return "too slow for the SLO"
    return f"{variant.dominated_by} is better" if variant.dominated_by else tag("strong", "Pareto front")


def findings_table(findings: Iterable[Finding]) -> Element:
    """Returns the table of what the check found, errors first."""
    found = sorted(findings, key=lambda finding: finding.severity)
    rows = []
    for one in found[:_MOST_FINDINGS]:
        where = f"{one.key.task}.{one.key.variant} on {one.key.gpu}, {place(one.key)}" if one.key is not None else ""
        advice = f"; {one.hint}" if one.hint else ""
        rows.append((tag("span", one.severity, class_=one.severity), where, one.message + advice))
    shown = table(("severity", "configuration", "finding"), rows, style="wide words")
    if len(found) <= _MOST_FINDINGS:
        return shown
    more = f"{len(found) - _MOST_FINDINGS} more are not shown; `jigsaw-triton profiles check` has all of them."
    return tag("div", shown, tag("p", more, class_="soft"))


def origins_table(task: TaskFigures) -> Element:
    """Returns the table of where the rows of a task are from."""
    rows = []
    for variant in task.variants:
        for name in dict.fromkeys(map(kind, variant.rows)):
            same = [row for row in variant.rows if kind(row) == name]
            errors = [row.error for row in same if row.error is not None]
            origins = list(dict.fromkeys(row.origin for row in same if row.origin))
            figures = [percent(median(errors)), percent(max(errors))] if errors else ["", ""]
            rows.append([variant.name, name, str(len(same)), *figures, limited(origins, _MOST_ORIGINS)])
    header = ("variant", "source", "#rows", "#stated error, median", "#largest", "origin")
    return table(header, rows, style="wide words")


def rows_table(variant: VariantFigures) -> Element:
    """Returns the table of all rows of a variant."""
    body = []
    for row in variant.rows:
        figures = (row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms, row.throughput_rps, per_slice(row))
        memory = number(row.memory_mib) if row.memory_mib else ""
        error = percent(row.error) if row.error is not None else ""
        sizes = (row.key.slice, str(row.key.instances), str(row.key.batch))
        body.append(
            [*sizes, *map(number, figures), memory, row.source, error, row.origin, row.processes or "", row.model]
        )
    return table(_ROW_HEADER, body)
