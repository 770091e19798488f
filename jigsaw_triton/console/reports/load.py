"""Part of a report about the last hour of a deployment: its load, latency, accuracy and slices over time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any
from xml.etree.ElementTree import Element

from jigsaw_triton.console.plan_changes import PlanChange
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.report.axes import Axis, linear_axis, span_axis, time_axis
from jigsaw_triton.report.chart import Chart, Mark, Rule, Series
from jigsaw_triton.report.frame import Panel, charts, table
from jigsaw_triton.report.markup import tag
from jigsaw_triton.report.numbers import number

Sample = Mapping[str, Any]
"""Sample of the load, as `load_history` keeps it: its time, the slices in use, and figures of each graph."""

_POINTS = 180
"""Largest number of points of a line: one for each two units of its width."""

_ROWS = 12
"""Largest number of rows of the table."""

_GAP_S = 10.0
"""Seconds without a sample that interrupt a line. There is one a second while a controller runs."""

_WIDE, _HIGH = 480, 230

_HEADROOM = 1.15
"""Ratio of the room of a chart to a limit at its top."""

_MARKS = 8
"""Number of labels of changes that have room beside each other."""

_RATES = {"arrivals_rps": "arrivals", "served_rps": "served", "refused_rps": "refused", "failed_rps": "failed"}
_HEADER = ("from", "#arrivals/s", "#served/s", "#refused/s", "#failed/s", "#p50 ms", "#p99 ms", "#accuracy")


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a deployment over time.

    Attributes:
        samples: Samples, oldest first.
        changes: Changes of the plan in the same time, oldest first.
    """

    samples: Sequence[Sample] = ()
    changes: Sequence[PlanChange] = ()


def load_over_time(load: Load, graphs: Mapping[str, TaskGraph]) -> Iterator[Element]:
    """Yields the charts of the deployment and of each graph.

    Args:
        load: The load.
        graphs: Graphs that are served.
    """
    yield tag("h3", "The last hour")
    if not load.samples:
        yield tag("p", "No load was recorded yet.", class_="soft")
        return
    charted = _Charted(load)
    if load.changes:
        yield tag(
            "p", "The dashed lines with g and a number mark changes of the plan to that generation.", class_="soft"
        )
    for name, graph in graphs.items():
        yield tag("h4", f"Graph {name}")
        yield charts(charted.panels(graph), "charts large")
        yield tag("details", tag("summary", "Figures"), table(_HEADER, list(_rows(charted.parts(_ROWS), name))))
    yield tag("h4", "Deployment")
    yield charts(charted.totals(), "charts large")


class _Charted:
    """Draws the samples of a load.

    Args:
        load: The load, with one sample at least.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._times = time_axis("time, UTC", load.samples[0]["t"], load.samples[-1]["t"])
        self._points = self.parts(_POINTS)

    def parts(self, count: int) -> list[list[Sample]]:
        """Returns the samples in parts of equal length in time, without the empty ones.

        Args:
            count: Largest number of parts.
        """
        first, span_s = self._load.samples[0]["t"], self._times.high - self._times.low
        length_s = max(1.0, span_s / count)
        return [list(part) for _, part in groupby(self._load.samples, lambda one: int((one["t"] - first) / length_s))]

    def panels(self, graph: TaskGraph) -> Iterator[Panel]:
        """Yields the panels of a graph."""
        name, slo = graph.name, graph.slo
        rates = {label: self._line(partial(_mean, graph=name, key=key)) for key, label in _RATES.items()}
        # Lines at 0 would hide the axis.
        shown = {label: marks for label, marks in rates.items() if label in ("arrivals", "served") or _any(marks)}
        yield self._panel("Requests", "requests/s", shown)
        latencies = {"p50": self._line(lambda part: _mean(part, name, "p50_ms"))}
        latencies["p99"] = self._line(lambda part: _most(part, name, "p99_ms"))
        if any(latencies.values()):
            limit = Rule(slo.latency_ms, f"SLO {slo.latency_ms:g} ms at p{slo.percentile:g}")
            note = "Of each second; p99 is the highest of the seconds that a point stands for."
            yield self._panel("Latency", "ms", latencies, limit, note=note)
        accuracy = self._line(lambda part: _mean(part, name, "accuracy"))
        if accuracy:
            yield self._panel("Accuracy served", "of the best", {"": accuracy}, Rule(slo.accuracy, "SLO"), span_axis)

    def totals(self) -> Iterator[Panel]:
        """Yields the panels of all graphs together."""
        slices = self._line(lambda part: max(sample["slices"] for sample in part))
        yield self._panel("Slices in use", "compute slices", {"": slices})
        energy = self._line(_mean_energy)
        if energy:
            yield self._panel("Energy", "joules a request", {"": energy})

    def _line(self, value: Callable[[list[Sample]], float | None]) -> list[tuple[float, float]]:
        """Returns the points of a line, without those that have no value."""
        found = ((part[-1]["t"], value(part)) for part in self._points)
        return [(t, y) for t, y in found if y is not None]

    def _panel(
        self,
        title: str,
        unit: str,
        lines: Mapping[str, list[tuple[float, float]]],
        limit: Rule | None = None,
        axis: Callable[[str, list[float]], Axis] = linear_axis,
        *,
        note: str = "",
    ) -> Panel:
        values = [y for line in lines.values() for _, y in line]
        if limit is not None:
            # The labels of the changes are above that of the limit.
            values.append(_HEADROOM * limit.value if axis is linear_axis else limit.value)
        right = max(map(len, lines))
        chart = Chart(self._times, axis(unit, values), title, width=_WIDE, height=_HIGH, right=right)
        self._mark(chart)
        if limit is not None:
            chart.rule(limit)
        gap_s = max(_GAP_S, 2.5 * (self._times.high - self._times.low) / _POINTS)
        chart.series(
            [
                Series(
                    tuple(Mark(t, y, "") for t, y in piece), f"h{index}", label if last else "", dotted=len(piece) == 1
                )
                for index, (label, line) in enumerate(lines.items())
                for piece, last in _pieces(line, gap_s)
            ]
        )
        return Panel(title, chart.svg, note)

    def _mark(self, chart: Chart) -> None:
        """Draws the changes of the plan. Labels that have no room are left out."""
        labelled = float("-inf")
        for change in self._load.changes:
            room = change.t - labelled > (self._times.high - self._times.low) / _MARKS
            chart.rule(Rule(change.t, f"g{change.after.number}" if room else "", vertical=True))
            labelled = change.t if room else labelled


def _pieces(line: list[tuple[float, float]], gap_s: float) -> Iterator[tuple[list[tuple[float, float]], bool]]:
    """Yields the parts of a line between its gaps, and whether it is the last one."""
    begin = 0
    for index in range(1, len(line) + 1):
        if index == len(line) or line[index][0] - line[index - 1][0] > gap_s:
            yield line[begin:index], index == len(line)
            begin = index


def _rows(parts: list[list[Sample]], graph: str) -> Iterator[list[str]]:
    for part in parts:
        figures = [_mean(part, graph, key) for key in _RATES]
        latencies = [_mean(part, graph, "p50_ms"), _most(part, graph, "p99_ms")]
        accuracy = _mean(part, graph, "accuracy")
        yield [
            f"{datetime.fromtimestamp(part[0]['t'], UTC):%H:%M:%S}",
            *("" if figure is None else number(figure) for figure in (*figures, *latencies)),
            "" if accuracy is None else f"{accuracy:.3f}",
        ]


def _values(part: list[Sample], graph: str, key: str) -> list[float]:
    found = (sample["graphs"].get(graph, {}).get(key) for sample in part)
    return [value for value in found if value is not None]


def _mean(part: list[Sample], graph: str, key: str) -> float | None:
    values = _values(part, graph, key)
    return sum(values) / len(values) if values else None


def _most(part: list[Sample], graph: str, key: str) -> float | None:
    return max(_values(part, graph, key), default=None)


def _mean_energy(part: list[Sample]) -> float | None:
    values = [sample["joules_per_request"] for sample in part if sample.get("joules_per_request") is not None]
    return sum(values) / len(values) if values else None


def _any(line: list[tuple[float, float]]) -> bool:
    return any(y for _, y in line)
