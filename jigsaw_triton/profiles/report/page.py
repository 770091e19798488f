"""Makes the HTML file of a report. It needs no script and no other file."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from jigsaw_triton.graph.draw import slo_words
from jigsaw_triton.profiles.report.figures import ReportFigures, TaskFigures, VariantFigures
from jigsaw_triton.profiles.report.panels import (
    accuracy_front,
    fit_panel,
    latency_front,
    latency_panels,
    memory_panel,
    shades,
    throughput_panel,
)
from jigsaw_triton.profiles.report.sentences import choice_words, counts, legend_words, trust_words, variant_words
from jigsaw_triton.profiles.report.tables import anchor, choice_table, findings_table, origins_table, rows_table
from jigsaw_triton.report.frame import charts, facts, page
from jigsaw_triton.report.markup import append, tag


def report_html(report: ReportFigures) -> str:
    """Returns the HTML file of a report."""
    title = f"Profiles of {report.graph.name if report.graph is not None else report.file}"
    return page(title, _facts(report), *_sections(report))


def _facts(report: ReportFigures) -> Element:
    found = [("File", report.file)]
    if report.modified is not None:
        found.append(("Written", f"{report.modified:%Y-%m-%d %H:%M %Z}".strip()))
    found.append(("GPU models", ", ".join(report.gpus) or "none"))
    found.append(("Rows", counts(report.rows) or "none"))
    if report.graph is not None:
        found.append(("SLO", slo_words(report.graph)))
    return facts(found)


def _sections(report: ReportFigures) -> Iterator[Element]:
    if not report.rows:
        yield tag("p", "The file has no rows. Measure the variants with ", tag("code", "jigsaw-triton profile"), ".")
        return
    yield _index(report)
    yield _trust(report)
    for task in report.tasks:
        yield _task(task, report)


def _index(report: ReportFigures) -> Element:
    items = [tag("li", tag("a", "How far to trust the figures", href="#trust"))]
    for task in report.tasks:
        links = tag("span", class_="of")
        for variant in task.variants:
            append(links, tag("a", variant.name, href=f"#{anchor(task, variant)}"))
            append(links, " ")
        items.append(tag("li", tag("a", _title(task), href=f"#{anchor(task)}"), " ", links))
    return tag("nav", tag("ul", *items))


def _trust(report: ReportFigures) -> Element:
    section = tag("section", tag("h2", "How far to trust the figures"), id="trust")
    for words in trust_words(report):
        append(section, tag("p", words))
    if report.findings:
        append(section, findings_table(report.findings))
    return section


def _task(task: TaskFigures, report: ReportFigures) -> Element:
    rows = [row for variant in task.variants for row in variant.rows]
    styles = shades(row.key.instances for row in rows)
    fronts = [accuracy_front(task, report.slo), latency_front(task, report.slo)]
    return tag(
        "section",
        tag("h2", _title(task)),
        *(tag("p", words) for words in choice_words(task, report)),
        choice_table(task, slo=report.slo is not None),
        charts(filter(None, fronts), "charts large"),
        tag("details", tag("summary", f"Where the rows are from: {counts(rows)}"), origins_table(task)),
        tag("p", legend_words(task), class_="soft"),
        _legend(styles),
        *(_variant(task, variant, styles, report) for variant in task.variants),
        id=anchor(task),
    )


def _variant(task: TaskFigures, variant: VariantFigures, styles: dict[int, str], report: ReportFigures) -> Element:
    others = (throughput_panel(variant, styles), memory_panel(variant, styles, task), fit_panel(variant))
    count = len(variant.rows)
    summary = f"All {count} rows of {variant.name}" if count > 1 else f"The row of {variant.name}"
    return tag(
        "section",
        tag("h3", variant.name),
        tag("p", variant_words(variant, report), class_="soft"),
        charts((*latency_panels(variant, styles), *filter(None, others))),
        tag("details", tag("summary", summary), rows_table(variant)),
        id=anchor(task, variant),
    )


def _legend(styles: dict[int, str]) -> Element:
    key = tag("div", class_="key")
    for count, style in styles.items():
        dot = tag("svg", tag("circle", cx=5, cy=5, r=4), viewBox="0 0 10 10", aria_hidden="true", class_=style)
        append(key, tag("span", dot, f"{count} instance{'s' if count > 1 else ''}"))
    return key


def _title(task: TaskFigures) -> str:
    return f"{task.task} on {task.gpu}"
