"""Reports about results of `simulate`, `evaluate rehearse` and `evaluate ablation`, from their JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from jigsaw_triton.console.reports.setup import Setup, setup_sections
from jigsaw_triton.errors import InputError
from jigsaw_triton.report.axes import groups_axis, linear_axis
from jigsaw_triton.report.chart import Bar, Chart, Mark, Rule, Series
from jigsaw_triton.report.frame import Panel, charts, facts, page, section, table
from jigsaw_triton.report.markup import append, tag
from jigsaw_triton.report.numbers import clock, number, percent

MOST_CHANGES = 200
"""Number of changes that a report lists, the first."""

_MOST_MARKS = 40
"""Number of changes that are marked in charts. More would hide the lines."""

_LARGEST = "Plan with the most slices"
"""Title of the plan that a run's report shows."""

_WIDE, _HIGH = 480, 260

Document = Mapping[str, Any]


def result_page(document: Any, where: str, read_setup: Callable[[Any], Setup]) -> str:
    """Returns the report about a result.

    Args:
        document: The result, as a command printed it with `-o json`.
        where: Name of its file.
        read_setup: Function that reads the setup, a part of the document.

    Raises:
        InputError: No command prints such a document, or a part of it is missing.
    """
    for keys, made in _KINDS.items():
        if isinstance(document, dict) and keys <= document.keys():
            try:
                text = made(document, where, read_setup(document["setup"]))
                # Half of a surrogate pair, which JSON may have, cannot be written.
                text.encode()
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
                hint = "run the command again, and keep its output as it is"
                message = f"the result is damaged or of another release ({type(error).__name__}: {error})"
                raise InputError(message, where=where, hint=hint) from error
            return text
    raise InputError(
        "this is no result that a report can show",
        where=where,
        hint="give the output of `simulate`, `evaluate rehearse` or `evaluate ablation` with -o json",
    )


def _simulation(found: Document, where: str, setup: Setup) -> str:
    rows = found["intervals"]
    run = _Run(rows, [change["at_s"] for change in found["changes"]], "hours", 3600)
    load = {"arrivals_rps": "arrivals", "peak_rps": "peak", "capacity_rps": "capacity"}
    panels = [
        run.lines("Load", "requests/s", load),
        run.lines("Slices in use", "slices", {"slices": "slices"}),
        run.lines("Violations", "%", {"violations": "violations"}, factor=100),
        run.lines("Accuracy", "of the best", {"accuracy": "accuracy"}),
    ]
    requests, violations = found["requests"], found["violations"]
    by_graph = [
        [name, f"{sent:,.0f}", f"{violations[name]:,.0f}", percent(1 - violations[name] / sent) if sent else ""]
        for name, sent in requests.items()
    ]
    header = ("from", "#arrivals/s", "#peak/s", "#capacity/s", "#slices", "#accuracy", "#violations", "#changes")
    body = [
        [
            clock(row["from_s"]),
            *(number(row[name]) for name in ("arrivals_rps", "peak_rps", "capacity_rps", "slices")),
            f"{row['accuracy']:.3f}",
            f"{row['violations']:.2%}",
            str(row["changes"]),
        ]
        for row in rows
    ]
    return page(
        "Simulated deployment",
        _notice("The servers of this run exist only as numbers: it is a simulation of the controller over a trace."),
        facts([("Result", where), *_totals(found, found["seconds"])]),
        section("SLO attainment", table(("graph", "#requests", "#violations", "#within the SLO"), by_graph)),
        section("Load", charts(panels, "charts large"), table(header, body)),
        _changes(found["changes"]),
        *setup_sections(setup, _LARGEST),
    )


def _rehearsal(found: Document, where: str, setup: Setup) -> str:
    rows = found["intervals"]
    real, simulated = found["rehearsed"], found["simulated"]
    run = _Run(rows, [change["at_s"] for change in real["changes"]], "minutes", 60)
    both = {"violations": "rehearsed", "simulated_violations": "simulated"}
    slices = {"slices": "rehearsed", "simulated_slices": "simulated"}
    panels = [
        run.lines("Requests", "requests", {"requests": "requests"}),
        run.lines("Violations", "%", both, factor=100),
        run.lines("Slices in use", "slices", slices),
    ]
    requests = [
        [name, *(f"{totals[key]:,.0f}" for key in ("sent", "late", "refused", "failed"))]
        for name, totals in found["requests"].items()
    ]
    compared = [
        ["violations", percent(real["violation_share"]), percent(simulated["violation_share"])],
        ["slices on average", number(real["mean_slices"]), number(simulated["mean_slices"])],
        ["slice hours", number(real["slice_hours"]), number(simulated["slice_hours"])],
        ["changes", str(len(real["changes"])), str(len(simulated["changes"]))],
    ]
    said = [
        ("Result", where),
        ("Length", clock(found["seconds"])),
        ("Workers", f"up to {found['workers']}"),
        ("Difference", f"{found['difference_points']:+.3f} percentage points of violations"),
        ("Lag of the clients", f"{number(found['client_lag_ms'])} ms, p99"),
        ("Load of the machine", f"{number(found['host_load'])} for each processor"),
    ]
    return page(
        "Rehearsed deployment",
        _notice("Real tritonservers answered real clients; the GPUs and the models were emulated."),
        facts(said),
        section("Rehearsal and simulation", table(("", "#rehearsed", "#simulated"), compared)),
        section("Requests", table(("graph", "#sent", "#late", "#refused", "#failed"), requests)),
        section("Load", charts(panels, "charts large")),
        _changes(real["changes"]),
        *setup_sections(setup, _LARGEST),
    )


def _ablation(found: Document, where: str, setup: Setup) -> str:
    formulations = list(found["gain"])
    subsets = list(found["gain"][formulations[0]])
    mean = [
        [name, *(_times(found["gain"][f].get(name)) for f in formulations), _times(found["published"].get(name))]
        for name in subsets
    ]
    gains = [(f, name, found["gain"][f].get(name)) for f in formulations for name in subsets]
    known = [gain for _, _, gain in gains if gain is not None]
    chart = Chart(
        groups_axis("features", subsets),
        linear_axis("times the demand without features", known),
        "Largest demand by features and formulation, relative to none",
        width=_WIDE,
        height=_HIGH,
    )
    bars = [
        Bar(subsets.index(name), formulations.index(f), gain, f"{name}, {f}: {gain:.2f}", f"h{formulations.index(f)}")
        for f, name, gain in gains
        if gain is not None
    ]
    chart.bars(bars, len(formulations))
    header = ("features", *(f"#{f}" for f in formulations), "#published")
    return page(
        "Ablation of the planner's features",
        facts([("Result", where), ("GPUs", found["gpus"]), ("Graphs", ", ".join(g["graph"] for g in found["graphs"]))]),
        section(
            "Largest demand relative to no features",
            _legend({f: f"h{i}" for i, f in enumerate(formulations)}),
            charts([Panel("Gain, geometric mean over the graphs", chart.svg)], "charts large"),
            table(header, mean),
            tag("p", "Published: JigsawServe (arXiv 2603.08797), its own applications on 120 GPUs.", class_="soft"),
        ),
        *(_ablated(graph) for graph in found["graphs"]),
        *setup_sections(setup, ""),
    )


def _ablated(graph: Document) -> Element:
    rows = []
    for case in graph["cases"]:
        common, largest = case["at_common"], case["largest_rps"]
        proven = "yes" if case["proven"] else "no"
        used = str(common["used"]) if common is not None else ""
        figures = [number(largest) if largest is not None else "", _times(case["gain"]), used]
        rows.append([case["features"] or "none", case["formulation"], *figures, proven, case["reason"]])
    slices = f"#slices at {number(graph['common_rps'])}/s"
    header = ("features", "formulation", "#largest demand/s", "#gain", slices, "proven", "reason")
    return section(f"Largest demand of {graph['graph']}", table(header, rows, style="wide words"))


_KINDS: Mapping[frozenset[str], Callable[[Document, str, Setup], str]] = {
    frozenset({"rehearsed", "simulated", "intervals"}): _rehearsal,
    frozenset({"graphs", "gain", "published"}): _ablation,
    frozenset({"intervals", "violations", "slice_hours"}): _simulation,
}
"""Keys by which a result is known -> function that makes its report."""


class _Run:
    """Draws values of the intervals of a run over time, with the changes of the plan as dashed lines.

    Args:
        rows: Intervals.
        changes_s: Times of the changes, in seconds.
        unit: Name of the unit of time.
        unit_s: Seconds of that unit.
    """

    def __init__(self, rows: Sequence[Document], changes_s: Sequence[float], unit: str, unit_s: float) -> None:
        self._rows = rows
        self._unit = unit
        self._times = [row["from_s"] / unit_s for row in rows]
        self._changes = [at_s / unit_s for at_s in changes_s] if len(changes_s) <= _MOST_MARKS else []

    def lines(self, title: str, unit_y: str, names: Mapping[str, str], *, factor: float = 1.0) -> Panel:
        """Returns a panel with a line for each name.

        Args:
            title: Title of the panel.
            unit_y: Unit of the values.
            names: Key of the values in an interval -> label.
            factor: Factor by which values are multiplied.
        """
        values = {key: [factor * row[key] for row in self._rows] for key in names}
        every = [value for line in values.values() for value in line]
        axes = linear_axis(self._unit, self._times), linear_axis(unit_y, every)
        right = max(map(len, names.values())) if len(names) > 1 else 0
        chart = Chart(*axes, title, width=_WIDE, height=_HIGH, right=right)
        for change in self._changes:
            chart.rule(Rule(change, "", vertical=True))
        lines = []
        for index, (key, label) in enumerate(names.items()):
            pairs = zip(self._times, values[key], strict=True)
            marks = tuple(Mark(x, y, f"{label}, from {number(x)} {self._unit}: {number(y)}") for x, y in pairs)
            if marks:
                lines.append(Series(marks, f"h{index}", label if len(names) > 1 else ""))
        chart.series(lines)
        return Panel(title, chart.svg)


def _totals(found: Document, seconds: int) -> Iterator[tuple[str, str]]:
    yield "Length", clock(seconds)
    yield "Requests", f"{sum(found['requests'].values()):,.0f}, {found['violation_share']:.3%} of them violations"
    yield "Slices", f"{number(found['mean_slices'])} on average, {number(found['slice_hours'])} slice hours"


def _changes(changes: Sequence[Document]) -> Element:
    rows = [
        [
            clock(change["at_s"]),
            str(change["generation"]),
            f"failed: {change['failure']}" if change["failure"] else f"{change['slices']} slices",
            f"{change['seconds']:.1f}",
            change["reason"],
        ]
        for change in changes[:MOST_CHANGES]
    ]
    made = section("Changes")
    append(made, table(("at", "#generation", "outcome", "#seconds", "reason"), rows, style="wide words"))
    if len(changes) > MOST_CHANGES:
        append(made, tag("p", f"{len(changes) - MOST_CHANGES} more changes are in the result.", class_="soft"))
    return made


def _notice(words: str) -> Element:
    return tag("div", tag("p", words), class_="notice", role="note")


def _legend(styles: Mapping[str, str]) -> Element:
    key = tag("div", class_="key")
    for name, style in styles.items():
        dot = tag("svg", tag("circle", cx=5, cy=5, r=4), viewBox="0 0 10 10", aria_hidden="true", class_=style)
        append(key, tag("span", dot, name))
    return key


def _times(gain: float | None) -> str:
    return "" if gain is None else f"{gain:.2f}"
