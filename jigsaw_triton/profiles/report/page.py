"""Makes the HTML file of a report. It needs no script and no other file."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from xml.etree.ElementTree import Element

from jigsaw_triton.profiles.fit import INTERVAL, LEAST_ROWS
from jigsaw_triton.profiles.report.axes import number
from jigsaw_triton.profiles.report.figures import ReportFigures, TaskFigures, Validation, VariantFigures, per_slice
from jigsaw_triton.profiles.report.markup import Content, append, html, tag
from jigsaw_triton.profiles.report.panels import (
    Panel,
    accuracy_front,
    fit_panel,
    latency_front,
    latency_panels,
    memory_panel,
    shades,
    throughput_panel,
)
from jigsaw_triton.profiles.report.style import STYLE
from jigsaw_triton.profiles.table import ProfileRow

_MOST_FINDINGS = 50
_MOST_ORIGINS = 3

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content security policy: browsers load nothing and run nothing, whatever the file contains."""

_HEADER = ("slice", "instances", "batch", "p50 ms", "p95 ms", "p99 ms", "items/s", "per slice", "MiB", "source", "error")


def report_html(report: ReportFigures) -> str:
    """Returns the HTML file of a report."""
    title = f"Profiles of {report.graph or report.file}"
    body = tag("body", tag("h1", title), _facts(report))
    for part in _index(report):
        append(body, part)
    for part in _trust(report):
        append(body, part)
    for task in report.tasks:
        append(body, _task(task, report))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("style", STYLE),
    )
    return html(tag("html", head, body, lang="en"))


def _facts(report: ReportFigures) -> Element:
    facts = [("File", report.file)]
    if report.modified is not None:
        facts.append(("Written", f"{report.modified:%Y-%m-%d %H:%M %Z}".strip()))
    facts.append(("GPU models", ", ".join(report.gpus) or "none"))
    facts.append(("Rows", f"{len(report.rows)}: {_counts(report.rows)}" if report.rows else "none"))
    if report.slo is not None:
        slo = report.slo
        scope = "for each request" if slo.accuracy_mode == "floor" else "on average"
        facts.append(
            ("SLO", f"p{slo.percentile:g} within {slo.latency_ms:g} ms, accuracy at least {slo.accuracy:g} {scope}")
        )
    return tag("dl", *(part for name, text in facts for part in (tag("dt", name), tag("dd", text))))


def _index(report: ReportFigures) -> Iterator[Element]:
    if not report.tasks:
        yield tag("p", "The file has no rows. Measure the variants with ", tag("code", "jigsaw-triton profile"), ".")
        return
    items = [tag("li", tag("a", "How far to trust the figures", href="#trust"))]
    for task in report.tasks:
        item = tag("li", tag("a", _title(task), href=f"#{_id(task)}"), " ", class_="of")
        variants = tag("span", class_="soft")
        for variant in task.variants:
            append(variants, tag("a", variant.name, href=f"#{_id(task, variant)}"))
            append(variants, " ")
        append(item, variants)
        items.append(item)
    yield tag("nav", tag("ul", *items))


def _trust(report: ReportFigures) -> Iterator[Element]:
    """Yields the section on sources, errors and findings."""
    if not report.rows:
        return
    section = tag("section", tag("h2", "How far to trust the figures"), id="trust")
    for words in _trust_words(report):
        append(section, tag("p", words))
    if report.findings:
        append(section, _findings(report))
    yield section


def _trust_words(report: ReportFigures) -> Iterator[str]:
    counts = Counter(row.source for row in report.rows)
    total = len(report.rows)
    if counts["measured"]:
        yield f"{counts['measured']} of {total} rows were measured, {_imported(report.rows)} of them by another tool."
    else:
        yield "No row was measured. What follows is no better than the assumptions and fits that it was made from."
    if counts["fitted"]:
        errors = [row.error for row in report.rows if row.source == "fitted" and row.error is not None]
        stated = (
            f" Their stated errors (one standard deviation): median {median(errors):.1%}, largest {max(errors):.1%}."
            if errors
            else " They state no error."
        )
        yield f"{counts['fitted']} rows are predictions of a latency model.{stated}"
    if counts["assumed"]:
        yield f"{counts['assumed']} rows are assumed: nobody measured them, and they state no error."
    found = [one for task in report.tasks for one in task.variants if one.validation is not None]
    if report.unfitted:
        yield report.unfitted
    elif not found:
        yield f"The latency model could not be fitted: no variant has {LEAST_ROWS} rows on a GPU model."
    else:
        predictions = [one for variant in found if variant.validation for one in variant.validation.predictions]
        inside = sum(one.inside for one in predictions)
        yield (
            f"In cross-validation the latency model predicted {len(predictions)} rows from others: {inside} of them "
            f"({inside / len(predictions):.0%}) are in their {INTERVAL:.0%} interval. Rows that it does not explain are "
            "worth measuring again."
        )
    errors_found = sum(finding.severity == "error" for finding in report.findings)
    if report.findings:
        yield f"The check found {errors_found} errors and {len(report.findings) - errors_found} warnings:"
    else:
        yield "The check found no mistakes."


def _findings(report: ReportFigures) -> Element:
    findings = sorted(report.findings, key=lambda finding: finding.severity)
    rows = []
    for finding in findings[:_MOST_FINDINGS]:
        key = finding.key
        where = f"{key.task}.{key.variant} on {key.gpu}, {_at(key.slice, key.instances, key.batch)}" if key else ""
        advice = f"; {finding.hint}" if finding.hint else ""
        rows.append((tag("span", finding.severity, class_=finding.severity), where, finding.message + advice))
    table = _table(("", "configuration", "finding"), rows)
    if len(findings) > _MOST_FINDINGS:
        more = f"{len(findings) - _MOST_FINDINGS} more are not shown; `jigsaw-triton profiles check` has all of them."
        return tag("div", table, tag("p", more, class_="soft"))
    return table


def _task(task: TaskFigures, report: ReportFigures) -> Element:
    styles = shades(row.key.instances for variant in task.variants for row in variant.rows)
    section = tag("section", tag("h2", _title(task)), id=_id(task))
    for words in _choice_words(task, report):
        append(section, tag("p", words))
    append(section, _choice(task, report))
    fronts = [accuracy_front(task, report.slo), latency_front(task, report.slo)]
    append(section, _charts(filter(None, fronts), "charts large"))
    append(section, _origins(task))
    append(section, tag("p", _legend_words(task), class_="soft"))
    append(section, _legend(styles))
    for variant in task.variants:
        append(section, _variant(task, variant, styles, report))
    return section


def _choice_words(task: TaskFigures, report: ReportFigures) -> Iterator[str]:
    front = sorted((one for one in task.variants if one.on_front), key=lambda one: -(one.accuracy or 0.0))
    limit = f" within {number(report.slo.latency_ms)} ms" if report.slo is not None else ""
    if len(front) > 1:
        steps = ", ".join(f"{one.name} ({number(per_slice(one.best))} items/s)" for one in front if one.best)
        yield f"Worth a choice, from accurate to fast, with items per second and compute slice{limit}: {steps}."
    elif front and len(task.variants) > 1:
        yield f"{front[0].name} is the most accurate variant and carries the most{limit}."
    if report.graph and not front:
        known = any(one.accuracy is not None for one in task.variants)
        yield (
            f"No configuration has a p95{limit}, so no plan can meet the SLO with these rows."
            if known
            else "The graph has no such task or variants, so plans ignore these rows."
        )
    if not report.graph:
        yield "Accuracies are in the graph: give the graph instead of the file to compare the variants by accuracy."


def _choice(task: TaskFigures, report: ReportFigures) -> Element:
    known = any(one.accuracy is not None for one in task.variants)
    fitted = any(one.validation is not None for one in task.variants)
    within = " within the SLO" if report.slo is not None else ""
    header = [
        "variant",
        *(("#accuracy", "#of the best") if known else ()),
        "#items/s per compute slice",
        f"best configuration{within}",
        "#p95 ms",
        "#MiB",
        "source",
        "#shortest p95 ms",
        *(("#error of the fit, median", "#p95") if fitted else ()),
        *(("choice",) if known else ()),
    ]
    rows = []
    for one in task.variants:
        best = one.best
        cells: list[Content] = [tag("a", one.name, href=f"#{_id(task, one)}")]
        if known:
            cells += (
                [f"{one.accuracy:g}", f"{one.relative_accuracy:.1%}"]
                if one.accuracy is not None and one.relative_accuracy is not None
                else ["", ""]
            )
        if best is not None:
            key = best.key
            cells += [number(per_slice(best)), _at(key.slice, key.instances, key.batch), number(best.latency_p95_ms)]
            cells += [number(best.memory_mib) if best.memory_mib else "not known", _source(best)]
        else:
            cells += ["", "none", "", "", ""]
        cells.append(number(one.fastest.latency_p95_ms))
        if fitted:
            check = one.validation
            cells += [f"{check.median_error:.1%}", f"{check.p95_error:.1%}"] if check is not None else ["", ""]
        if known:
            cells.append(_verdict(one))
        rows.append(cells)
    return _table(header, rows)


def _verdict(variant: VariantFigures) -> Content:
    if variant.accuracy is None:
        return "not in the graph"
    if variant.best is None:
        return "too slow for the SLO"
    return f"{variant.dominated_by} is better" if variant.dominated_by else tag("strong", "Pareto front")


def _origins(task: TaskFigures) -> Element:
    """Returns the table of where the rows are from."""
    rows = []
    for variant in task.variants:
        kinds = {_kind(row): None for row in variant.rows}
        for kind in kinds:
            same = [row for row in variant.rows if _kind(row) == kind]
            errors = [row.error for row in same if row.error is not None]
            origins = list(dict.fromkeys(row.origin for row in same if row.origin))
            more = f" and {len(origins) - _MOST_ORIGINS} more" if len(origins) > _MOST_ORIGINS else ""
            cells = [variant.name, kind, str(len(same)), ", ".join(origins[:_MOST_ORIGINS]) + more]
            cells += [f"{median(errors):.1%}", f"{max(errors):.1%}"] if errors else ["", ""]
            rows.append(cells)
    table = _table(("variant", "source", "#rows", "origin", "#stated error, median", "#largest"), rows)
    return tag("details", tag("summary", f"Where the rows are from: {_counts(_rows(task))}"), table)


def _legend_words(task: TaskFigures) -> str:
    parts = ["Colours and \u00d7n are the number of instances."]
    if any(row.source != "measured" for row in _rows(task)):
        parts.append("Filled points and bars were measured, hollow ones were not.")
    parts.append("A point of latency is the median of a batch, and the bar above it reaches to the 95th percentile.")
    parts.append("Throughput is the largest of all batch sizes; dashes are that of the smallest slice times the size.")
    if any(one.validation is not None for one in task.variants):
        parts.append(
            f"The fit predicts each row without it: hollow orange points are out of their {INTERVAL:.0%} interval."
        )
    return " ".join(parts)


def _legend(styles: dict[int, str]) -> Element:
    key = tag("div", class_="key")
    for count, style in styles.items():
        dot = tag("svg", tag("circle", cx=5, cy=5, r=4), viewBox="0 0 10 10", aria_hidden="true", class_=style)
        append(key, tag("span", dot, f"{count} instance{'s' if count > 1 else ''}"))
    return key


def _variant(task: TaskFigures, variant: VariantFigures, styles: dict[int, str], report: ReportFigures) -> Element:
    section = tag("section", tag("h3", variant.name), id=_id(task, variant))
    append(section, tag("p", " ".join(_variant_words(variant, report)), class_="soft"))
    extra = (throughput_panel(variant, styles), memory_panel(variant, styles, task), fit_panel(variant))
    append(section, _charts((*latency_panels(variant, styles), *filter(None, extra)), "charts"))
    append(section, _all_rows(variant))
    return section


def _variant_words(variant: VariantFigures, report: ReportFigures) -> Iterator[str]:
    if variant.accuracy is not None:
        yield f"Accuracy {variant.accuracy:g}."
    yield f"{len(variant.rows)} rows: {_counts(variant.rows)}."
    if not variant.within and report.slo is not None:
        yield f"None has a p95 within {number(report.slo.latency_ms)} ms; the throughput ignores the SLO."
    if not any(row.memory_mib for row in variant.rows):
        yield "The memory is not known."
    if variant.validation is not None:
        yield _validation_words(variant.validation)
    elif not report.unfitted:
        yield f"Too few rows for a fit, which needs {LEAST_ROWS}."


def _validation_words(validation: Validation) -> str:
    made = " and ".join(validation.sources)
    return (
        f"Fit of the {made} rows: median error {validation.median_error:.1%}, 95th percentile {validation.p95_error:.1%}; "
        f"{validation.coverage:.0%} are in their {INTERVAL:.0%} interval."
    )


def _all_rows(variant: VariantFigures) -> Element:
    origin = any(row.origin for row in variant.rows)
    body = []
    for row in variant.rows:
        key = row.key
        figures = (row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms, row.throughput_rps, per_slice(row))
        error = f"{row.error:.1%}" if row.error is not None else ""
        cells = [key.slice, str(key.instances), str(key.batch), *map(number, figures), number(row.memory_mib)]
        body.append([*cells, row.source, error, *([row.origin] if origin else [])])
    header = (_HEADER[0], *(f"#{name}" for name in _HEADER[1:9]), *_HEADER[9:], *(("origin",) if origin else ()))
    summary = f"All {len(body)} rows of {variant.name}" if len(body) > 1 else f"The row of {variant.name}"
    return tag("details", tag("summary", summary), _table(header, body))


def _charts(panels: Iterable[Panel], style: str) -> Element:
    return tag(
        "div",
        *(tag("figure", tag("figcaption", panel.title), panel.chart) for panel in panels),
        class_=style,
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[Content]]) -> Element:
    """Returns a table. Columns whose header begins with # have numbers."""
    styles = ["n" if name.startswith("#") else "" for name in header]

    def cell(kind: str, style: str, content: Content) -> Element:
        return tag(kind, content, class_=style) if style else tag(kind, content)

    head = tag("tr", *(cell("th", style, name.removeprefix("#")) for style, name in zip(styles, header, strict=True)))
    body = [tag("tr", *(cell("td", s, c) for s, c in zip(styles, cells, strict=True))) for cells in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="wide")


def _rows(task: TaskFigures) -> list[ProfileRow]:
    return [row for variant in task.variants for row in variant.rows]


def _kind(row: ProfileRow) -> str:
    return "imported" if row.source == "measured" and row.origin else row.source


def _imported(rows: Iterable[ProfileRow]) -> int:
    return sum(_kind(row) == "imported" for row in rows)


def _counts(rows: Iterable[ProfileRow]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in Counter(map(_kind, rows)).most_common())


def _source(row: ProfileRow) -> str:
    return f"{_kind(row)} \u00b1{row.error:.1%}" if row.error is not None else _kind(row)


def _at(kind: str, instances: int, batch: int) -> str:
    return f"{kind}, {instances} \u00d7 batch {batch}"


def _title(task: TaskFigures) -> str:
    return f"{task.task} on {task.gpu}"


def _id(task: TaskFigures, variant: VariantFigures | None = None) -> str:
    return ".".join((task.gpu, task.task, *((variant.name,) if variant is not None else ())))
