import itertools
from xml.etree.ElementTree import Element

from jigsaw_triton.report.axes import groups_axis, linear_axis, log_axis
from jigsaw_triton.report.chart import Bar, Chart, Mark, Rule, Series


def chart(width: float = 300, right: int = 0) -> Chart:
    return Chart(log_axis("x", [1, 100]), linear_axis("y", [0, 10]), "a title", width=width, right=right)


def found(drawn: Chart, name: str, style: str = "") -> list[Element]:
    return [one for one in drawn.svg.iter(name) if style in one.get("class", "").split() or not style]


def test_a_chart_has_a_title_for_those_who_cannot_see_it() -> None:
    assert (chart().svg.get("role"), chart().svg.get("aria-label")) == ("img", "a title")


def test_points_are_where_their_values_are() -> None:
    drawn = chart()
    drawn.series([Series((Mark(1, 0, "first"), Mark(10, 5, "second"), Mark(100, 10, "third")), "h0")])
    xs, ys = ([float(one.get(name, "")) for one in found(drawn, "circle")] for name in ("cx", "cy"))
    assert xs == sorted(xs) and abs(xs[2] - 2 * xs[1] + xs[0]) < 0.2  # Decades have one width.
    assert ys == sorted(ys, reverse=True) and abs(ys[2] - 2 * ys[1] + ys[0]) < 0.2
    assert [one.findtext("title") for one in found(drawn, "circle")] == ["first", "second", "third"]
    assert len(found(drawn, "path", "line")) == 1


def test_what_was_not_measured_is_hollow_and_intervals_are_bars() -> None:
    drawn = chart()
    drawn.series([Series((Mark(1, 3, "", 2, 5), Mark(10, 5, "", filled=False)), "h0", joined=False)])
    assert [one.get("class") for one in found(drawn, "circle")] == [None, "hollow"]
    assert found(drawn, "path", "line") == []
    (bar,) = found(drawn, "path", "bar")
    assert bar.get("d", "").count("M") == 1


def test_labels_of_close_lines_do_not_overlap() -> None:
    drawn = chart(right=3)
    drawn.series([Series((Mark(1, 1, ""), Mark(100, 5 + index / 10, "")), "h0", f"x{index}") for index in range(5)])
    labels = found(drawn, "text", "label")
    ys = sorted(float(one.get("y", "")) for one in labels)
    assert {one.text for one in labels} == {f"x{index}" for index in range(5)}
    assert all(upper - lower > 5 for lower, upper in itertools.pairwise(ys))


def test_labels_of_close_points_do_not_overlap() -> None:
    drawn = chart()
    marks = [Mark(10, 5 + index / 10, "") for index in range(3)]
    drawn.series([Series((mark,), "h0") for mark in marks])
    drawn.labels([(mark, "a name", "h0") for mark in marks])
    places = {(one.get("x"), one.get("y")) for one in found(drawn, "text", "label")}
    assert len(places) == 3


def test_lines_may_have_no_points() -> None:
    chart = Chart(linear_axis("x", [2]), linear_axis("y", [2]), "")
    chart.series([Series((Mark(0, 0, ""), Mark(2, 2, "")), "h0", dotted=False)])
    assert [part.get("class") for part in chart.svg.iter("path")].count("line") == 1
    assert list(chart.svg.iter("circle")) == []


def test_a_rule_beyond_the_axis_is_left_out() -> None:
    drawn = chart()
    drawn.rule(Rule(50, "SLO", vertical=True))
    drawn.rule(Rule(500, "too far", vertical=True))
    drawn.rule(Rule(5, "room"))
    assert [one.text for one in found(drawn, "text", "soft")] == ["SLO", "room"]
    assert len(found(drawn, "path", "rule")) == 2


def test_bars_stand_beside_each_other_on_the_axis() -> None:
    drawn = Chart(groups_axis("slice", ["1g", "2g"]), linear_axis("y", [10]), "")
    drawn.bars([Bar(0, 0, 10, "a", "s0"), Bar(0, 1, 5, "b", "s1"), Bar(1, 0, 0, "c", "s0", filled=False)], 2)
    first, second, third = found(drawn, "rect")
    x, y, width, height = (float(first.get(name, "")) for name in ("x", "y", "width", "height"))
    assert x + width < float(second.get("x", "")) < float(third.get("x", ""))
    assert y + height == float(second.get("y", "")) + float(second.get("height", ""))
    assert abs(height - 2 * float(second.get("height", ""))) < 0.2
    assert third.get("class") == "s0 hollow"
