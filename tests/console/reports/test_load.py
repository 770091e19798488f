"""The last hour of a deployment in a report."""

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from jigsaw_triton.console.plan_changes import PlanChange
from jigsaw_triton.console.reports.load import Load, load_over_time
from jigsaw_triton.controller.persistence.records import Revision
from jigsaw_triton.report.frame import page
from tests.console.test_status import ONE
from tests.controller.worlds import profiled
from tests.fakes.pages import Page

GRAPHS = profiled(ONE).wanted.graphs
"""A graph `app` with an SLO of 1000 ms."""

BEGAN_S = 1_772_600_400.0
"""05:00:00 UTC."""


def sample(second: float, **figures: float | None) -> dict[str, Any]:
    idle = {"arrivals_rps": 10.0, "served_rps": 10.0, "refused_rps": 0.0, "failed_rps": 0.0}
    return {"t": BEGAN_S + second, "slices": 2, "graphs": {"app": {**idle, **figures}}}


def change(number: int, second: float) -> PlanChange:
    return PlanChange(BEGAN_S + second, Revision(number, "", "load", "", 2, 14, "serves"), None, None)


def drawn(samples: Sequence[dict[str, Any]], *changes: PlanChange) -> tuple[Page, dict[str, Element]]:
    """Returns the page, and the chart of each panel by its title."""
    content = list(load_over_time(Load(samples, changes), GRAPHS))
    found = Page(page("", *content))
    found.check_alone()
    charts = [chart for part in content for chart in part.iter("svg") if chart.get("role") == "img"]
    return found, {chart.get("aria-label") or "": chart for chart in charts}


def lines(chart: Element, style: str) -> list[str]:
    """Paths of the lines with this colour."""
    groups = [group for group in chart.iter("g") if group.get("class") == style]
    return [path.get("d") or "" for group in groups for path in group.iter("path") if path.get("class") == "line"]


def texts(chart: Element) -> list[str]:
    return [text.text or "" for text in chart.iter("text")]


def test_an_hour_is_drawn_with_few_points_and_listed_in_a_table() -> None:
    samples = [sample(second, p50_ms=40.0, p99_ms=90.0, accuracy=0.97) for second in range(3600)]
    samples[1000] = sample(1000, p50_ms=40.0, p99_ms=700.0, accuracy=0.97)
    page, charts = drawn(samples)
    assert list(charts) == ["Requests", "Latency", "Accuracy served", "Slices in use"]
    (line,) = lines(charts["Requests"], "h0")
    assert 100 < line.count("L") <= 180
    # A second with slow answers is not lost among the others.
    assert "05:15:00 10 10 0 0 40 700 0.970" in page.text
    assert "SLO 1000 ms at p99" in texts(charts["Latency"])
    assert {"p50", "p99", "05:10", "05:50"} <= set(texts(charts["Latency"]))


def test_a_line_has_gaps_where_nothing_was_recorded() -> None:
    samples = [sample(second, p50_ms=40.0) for second in (*range(60), *range(120, 180), 300)]
    _, charts = drawn(samples)
    assert len(lines(charts["Requests"], "h0")) == 2
    assert len([group for group in charts["Requests"].iter("g") if group.get("class") == "h0"]) == 3
    assert texts(charts["Requests"]).count("arrivals") == 1
    # The last point has no neighbour, and is therefore drawn as a dot.
    assert len(list(charts["Requests"].iter("circle"))) == 2


def test_refusals_are_drawn_where_there_are_some() -> None:
    _, charts = drawn([sample(second) for second in range(9)])
    assert "refused" not in texts(charts["Requests"])
    assert list(charts) == ["Requests", "Slices in use"]
    _, charts = drawn([sample(second, refused_rps=float(second > 5)) for second in range(9)])
    assert "refused" in texts(charts["Requests"]) and "failed" not in texts(charts["Requests"])


def test_changes_of_the_plan_are_marks_whose_labels_do_not_overlap() -> None:
    samples = [sample(second) for second in range(100)]
    page, charts = drawn(samples, change(2, 10), change(3, 12), change(4, 60), change(5, 1000))
    assert "changes of the plan" in page.text
    marks = [path.get("d") for path in charts["Requests"].iter("path") if path.get("class") == "rule"]
    assert len(marks) == 3
    assert [text for text in texts(charts["Requests"]) if text.startswith("g")] == ["g2", "g4"]


def test_energy_is_drawn_where_it_is_known() -> None:
    _, charts = drawn([{**sample(second), "joules_per_request": 2.5} for second in range(9)])
    assert "Energy" in charts and len(lines(charts["Energy"], "h0")) == 1


def test_a_load_of_one_sample_or_of_none_has_a_report() -> None:
    _, charts = drawn([{"t": BEGAN_S, "slices": 0, "graphs": {}}])
    assert list(charts) == ["Requests", "Slices in use"]
    page, charts = drawn([])
    assert charts == {} and "No load was recorded yet" in page.text
