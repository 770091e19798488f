"""Draws the charts of a task and of its variants."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from jigsaw_triton.graph.model import Slo
from jigsaw_triton.profiles.latency_model import SHARES
from jigsaw_triton.profiles.report.figures import Prediction, TaskFigures, VariantFigures, per_slice
from jigsaw_triton.profiles.report.sentences import place, row_words
from jigsaw_triton.profiles.table import ProfileRow
from jigsaw_triton.report.axes import (
    deviation_axis,
    groups_axis,
    linear_axis,
    log_axis,
    sizes_axis,
    span_axis,
)
from jigsaw_triton.report.chart import Bar, Chart, Mark, Rule, Series
from jigsaw_triton.report.frame import Panel
from jigsaw_triton.report.numbers import number

SHADES = 7
"""Number of ordered colours, for numbers of instances (`s0` to `s6`)."""

HUES = 7
"""Number of distinct colours, for variants (`h0` to `h6`)."""

_DASHES = 3
_WIDE, _HIGH = 420, 320
_MIB_PER_GIB = 1024.0


def shades(instances: Iterable[int]) -> dict[int, str]:
    """Returns the classes of numbers of instances, spread over the ordered colours."""
    known = sorted(set(instances))
    last = max(len(known) - 1, 1)
    return {count: f"s{round(index * (SHADES - 1) / last)}" for index, count in enumerate(known)}


def hues(names: Sequence[str]) -> dict[str, str]:
    """Returns the classes of variants: a colour, and another dash once all colours are in use."""
    return {name: f"h{index % HUES} d{index // HUES % _DASHES}" for index, name in enumerate(names)}


def slices_of(rows: Iterable[ProfileRow]) -> list[str]:
    """Returns the kinds of slices of rows, the smallest first."""
    return sorted({row.key.slice for row in rows}, key=lambda kind: SHARES[kind])


def accuracy_front(task: TaskFigures, slo: Slo | None) -> Panel | None:
    """Draws throughput per compute slice against accuracy; None if no variant has both."""
    offers = [(one, one.accuracy, one.best) for one in task.variants]
    known = [(one, accuracy, best) for one, accuracy, best in offers if accuracy is not None and best is not None]
    if not known:
        return None
    styles = hues([one.name for one in task.variants])
    chart = Chart(
        span_axis("accuracy", [accuracy for _, accuracy, _ in known]),
        log_axis("items/s per compute slice", [per_slice(best) for *_, best in known]),
        f"Throughput per compute slice against accuracy of {task.task} on {task.gpu}",
        width=_WIDE,
        height=_HIGH,
    )
    if slo is not None and slo.accuracy_mode == "floor" and slo.accuracy < 1:
        top = max(accuracy / one.relative_accuracy for one, accuracy, _ in known if one.relative_accuracy)
        chart.rule(Rule(slo.accuracy * top, f"SLO: {slo.accuracy:.0%} of the best", vertical=True))
    marks = []
    for one, accuracy, best in known:
        title = f"{one.name}: accuracy {accuracy:g}, {row_words(best)}"
        marks.append((Mark(accuracy, per_slice(best), title, filled=one.on_front), one.name, styles[one.name]))
    front = sorted((replace(mark, title="") for mark, *_ in marks if mark.filled), key=lambda mark: mark.x)
    chart.series([Series(tuple(front), "front")] if front else [])
    chart.series([Series((mark,), f"big {style}") for mark, _, style in marks])
    chart.labels(marks)
    return Panel("Throughput per compute slice against accuracy", chart.svg, "Filled points are on the Pareto front.")


def latency_front(task: TaskFigures, slo: Slo | None) -> Panel:
    """Draws the throughput per compute slice that a latency allows, for each variant."""
    styles = hues([one.name for one in task.variants])
    chosen = [one.name for one in task.variants if one.on_front and one.accurate]
    rows = [row for one in task.variants for row in one.front]
    longest = max(len(one.name) for one in task.variants)
    chart = Chart(
        log_axis("p95 of a batch, ms", [row.latency_p95_ms for row in rows]),
        log_axis("items/s per compute slice", map(per_slice, rows)),
        f"Throughput per compute slice against latency of {task.task} on {task.gpu}",
        width=_WIDE,
        height=_HIGH,
        right=longest,
    )
    if slo is not None:
        chart.rule(Rule(slo.latency_ms, f"SLO {number(slo.latency_ms)} ms", vertical=True))
    chart.series(
        [
            Series(
                tuple(
                    Mark(row.latency_p95_ms, per_slice(row), f"{one.name}: {row_words(row)}", filled=_is_measured(row))
                    for row in one.front
                ),
                styles[one.name] if one.name in chosen or not chosen else f"{styles[one.name]} faint",
                one.name,
            )
            for one in task.variants
        ]
    )
    note = "Faint variants are not worth a choice; the table says why." if 0 < len(chosen) < len(task.variants) else ""
    return Panel("Throughput per compute slice that a latency allows", chart.svg, note)


def latency_panels(variant: VariantFigures, styles: dict[int, str]) -> Iterator[Panel]:
    """Draws latency against batch: a chart for each kind of slice, all with the same axes."""
    rows = variant.rows
    x = sizes_axis("batch", [row.key.batch for row in rows])
    y = log_axis("latency, ms", [ms for row in rows for ms in (row.latency_p50_ms, row.latency_p95_ms)])
    for kind in slices_of(rows):
        same = [row for row in rows if row.key.slice == kind]
        chart = Chart(x, y, f"Latency against batch of {variant.name} on a {kind}", right=3)
        chart.series(
            [
                Series(
                    tuple(
                        Mark(
                            row.key.batch,
                            row.latency_p50_ms,
                            row_words(row),
                            row.latency_p50_ms,
                            row.latency_p95_ms,
                            _is_measured(row),
                        )
                        for row in same
                        if row.key.instances == count
                    ),
                    style,
                    f"\u00d7{count}",
                )
                for count, style in styles.items()
                if any(row.key.instances == count for row in same)
            ]
        )
        yield Panel(f"Latency on a {kind}", chart.svg)


def throughput_panel(variant: VariantFigures, styles: dict[int, str]) -> Panel:
    """Draws the largest throughput by slice and number of instances."""
    rows = variant.within or variant.rows
    kinds = slices_of(rows)
    best: dict[tuple[str, int], ProfileRow] = {}
    for row in sorted(rows, key=lambda row: row.throughput_rps):
        best[row.key.slice, row.key.instances] = row
    first = max(row.throughput_rps for row in rows if row.key.slice == kinds[0])
    ideal = [first * SHARES[kind][0] / SHARES[kinds[0]][0] for kind in kinds]
    largest = max(row.throughput_rps for row in rows)
    chart = Chart(
        groups_axis("slice", kinds),
        linear_axis("items/s", [largest, *(value for value in ideal if value < 1.6 * largest)]),
        f"Throughput against slice of {variant.name}",
    )
    places = {count: place for place, count in enumerate(sorted({count for _, count in best}))}
    chart.bars(
        [
            Bar(kinds.index(kind), places[count], row.throughput_rps, row_words(row), styles[count], _is_measured(row))
            for (kind, count), row in sorted(best.items())
        ],
        len(places),
    )
    for index, value in enumerate(ideal[1:], 1):
        if value < 1.6 * largest:
            chart.step(index, value)
    return Panel("Throughput by slice", chart.svg)


def memory_panel(variant: VariantFigures, styles: dict[int, str], task: TaskFigures) -> Panel | None:
    """Draws the memory against batch, the largest of all slices; None if it is not known."""
    largest: dict[tuple[int, int], ProfileRow] = {}
    for row in sorted(variant.rows, key=lambda row: row.memory_mib):
        largest[row.key.instances, row.key.batch] = row
    most = max(row.memory_mib for row in largest.values())
    if most == 0:
        return None
    scale, unit = (_MIB_PER_GIB, "GiB") if most >= 2 * _MIB_PER_GIB else (1.0, "MiB")
    chart = Chart(
        sizes_axis("batch", [batch for _, batch in largest]),
        linear_axis(f"memory, {unit}", [most / scale]),
        f"Memory against batch of {variant.name}",
        right=3,
    )
    for kind in slices_of(variant.rows):
        if (room := task.rooms.get(kind)) is not None:
            chart.rule(Rule(room / scale, f"{kind} has {room / scale:.3g} {unit}"))
    chart.series(
        [
            Series(
                tuple(
                    Mark(batch, row.memory_mib / scale, row_words(row), filled=_is_measured(row))
                    for (instances, batch), row in sorted(largest.items())
                    if instances == count
                ),
                style,
                f"\u00d7{count}",
            )
            for count, style in styles.items()
            if any(instances == count for instances, _ in largest)
        ]
    )
    return Panel("Memory of all instances", chart.svg)


def fit_panel(variant: VariantFigures) -> Panel | None:
    """Draws how far each latency is from its prediction without it, and the interval; None without a fit."""
    if variant.validation is None:
        return None
    found = sorted(variant.validation.predictions, key=lambda one: one.row.latency_p50_ms)
    chart = Chart(
        log_axis("latency, ms", [one.row.latency_p50_ms for one in found]),
        deviation_axis("latency over prediction", [size for one in found for size in (one.deviation, one.width)]),
        f"Latency of {variant.name} over its prediction",
    )
    chart.rule(Rule(0.0, ""))
    for style, chosen in (("inside", True), ("outside", False)):
        marks = tuple(_deviation(one) for one in found if one.inside is chosen)
        chart.series([Series(marks, style, joined=False)])
    return Panel("Fit against the rows", chart.svg)


def _deviation(one: Prediction) -> Mark:
    low_ms, high_ms = one.interval_ms
    title = (
        f"{place(one.row.key)}: {number(one.row.latency_p50_ms)} ms, "
        f"predicted {number(one.predicted_ms)} ms ({number(low_ms)} to {number(high_ms)})"
    )
    return Mark(one.row.latency_p50_ms, one.deviation, title, -one.width, one.width, one.inside)


def _is_measured(row: ProfileRow) -> bool:
    return row.source == "measured"
