"""Draws charts as SVG, whose colours are those of the page's style sheet.

Matplotlib, which plots the studies of `evaluate`, takes about 0.25 s and 25 kB for each of the up to a hundred small
charts of a report, does not know dark pages, and is optional.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from jigsaw_triton.report.axes import Axis
from jigsaw_triton.report.markup import append, tag

_CHARACTER, _BOLD = 6.2, 7.2
_LINE = 11
_TOP = 20
_BOTTOM = 34
_RIGHT = 10
_RADIUS = 2.6
_MOST_BAR = 30
_MOST_CHARACTERS = 20

_POINT_PLACES = ((1, 0.35), (-1, 0.35), (0, -0.75), (0, 1.35), (1, -0.6), (1, 1.3), (-1, -0.6), (-1, 1.3))
_END_PLACES = tuple((1, 0.35 + step * side) for step in (0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8) for side in (-1, 1))
"""Places of a label to try, relative to its point: the side of the point, and the lines below it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a chart.

    Attributes:
        x: Value on the horizontal axis.
        y: Value on the vertical axis.
        title: Description, which browsers show when the pointer is on the mark; empty for none.
        low: Lower end of a vertical bar through the point; None without one.
        high: Upper end of that bar.
        filled: True if the point is filled, because it was measured.
    """

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None
    filled: bool = True


@dataclass(frozen=True, slots=True)
class Series:
    """Points that belong together.

    Attributes:
        marks: Points, from left to right.
        style: Classes of the style sheet, such as `c3` for its colour.
        label: Label of the last point; empty for none.
        joined: True if a line joins the points.
        dotted: True if the points themselves are drawn.
    """

    marks: tuple[Mark, ...]
    style: str
    label: str = ""
    joined: bool = True
    dotted: bool = True


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart, which stands at 0.

    Attributes:
        group: Index of its group.
        place: Index of its place in the group.
        height: Value that it reaches.
        title: Description.
        style: Classes of the style sheet.
        filled: True if the bar is filled.
    """

    group: int
    place: int
    height: float
    title: str
    style: str
    filled: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across a chart.

    Attributes:
        value: Value at which it is.
        label: Text at the line; empty for none.
        vertical: True if the value is one of the horizontal axis.
    """

    value: float
    label: str
    vertical: bool = False


class Chart:
    """A chart that is being drawn.

    Args:
        x: Horizontal axis.
        y: Vertical axis.
        title: Description for those who cannot see it.
        width: Width in units of which a character has `_CHARACTER`.
        height: Height in the same units.
        right: Room on the right for labels, in characters; that of the longest label is enough.
    """

    def __init__(
        self, x: Axis, y: Axis, title: str, *, width: float = 300, height: float = 210, right: int = 0
    ) -> None:
        self._x, self._y = x, y
        self._left = 8 + _CHARACTER * max((len(text) for _, text in y.ticks), default=1)
        self._right = width - _RIGHT - _BOLD * min(right, _MOST_CHARACTERS)
        self._width, self._bottom = width, height - _BOTTOM
        self._taken: list[tuple[float, float, float, float]] = []
        self.svg = tag("svg", viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title)
        for part in self._axes():
            append(self.svg, part)

    def _at_x(self, value: float) -> float:
        return self._left + (self._right - self._left) * self._x.share(value)

    def _at_y(self, value: float) -> float:
        return self._bottom - (self._bottom - _TOP) * self._y.share(value)

    def _axes(self) -> Iterator[Element]:
        for value, text in self._y.ticks:
            y = self._at_y(value)
            yield tag("path", class_="grid", d=f"M{self._left:.1f},{y:.1f}H{self._right:.1f}")
            yield tag("text", text, class_="end", x=self._left - 5, y=y + 4)
        yield tag("path", class_="axis", d=f"M{self._left:.1f},{self._bottom:.1f}H{self._right:.1f}")
        for value, text in self._x.ticks:
            yield tag("text", text, class_="middle", x=self._at_x(value), y=self._bottom + 14)
        yield tag("text", self._y.label, class_="name", x=1, y=_TOP - 10)
        yield tag("text", self._x.label, class_="name end", x=self._right, y=self._bottom + 29)

    def rule(self, rule: Rule) -> None:
        """Draws a line across the chart, with its label, if its value is on the axis."""
        axis = self._x if rule.vertical else self._y
        if not axis.low <= rule.value <= axis.high:
            return
        if rule.vertical:
            x = self._at_x(rule.value)
            append(self.svg, tag("path", class_="rule", d=f"M{x:.1f},{_TOP - 4:.1f}V{self._bottom:.1f}"))
            if not rule.label:
                return
            side = -1 if x + 4 + _CHARACTER * len(rule.label) > self._width else 1
            style = "soft" if side > 0 else "soft end"
            append(self.svg, tag("text", rule.label, class_=style, x=x + 4 * side, y=_TOP + 2))
        else:
            y = self._at_y(rule.value)
            append(self.svg, tag("path", class_="rule", d=f"M{self._left:.1f},{y:.1f}H{self._right:.1f}"))
            append(self.svg, tag("text", rule.label, class_="soft", x=self._left + 3, y=y - 3))

    def series(self, series: Sequence[Series]) -> None:
        """Draws points, with lines, bars through the points and labels of the last ones."""
        for one in series:
            append(self.svg, self._drawn(one))
        for one in series:
            if one.label:
                self._label(one.marks[-1], one.label, one.style, _END_PLACES)

    def _drawn(self, series: Series) -> Element:
        group = tag("g", class_=series.style)
        places = [(self._at_x(mark.x), self._at_y(mark.y)) for mark in series.marks]
        bars = [
            f"M{x:.1f},{self._at_y(mark.low):.1f}V{self._at_y(mark.high):.1f}"
            for (x, _), mark in zip(places, series.marks, strict=True)
            if mark.low is not None and mark.high is not None
        ]
        if bars:
            append(group, tag("path", class_="bar", d="".join(bars)))
        if series.joined and len(places) > 1:
            append(group, tag("path", class_="line", d="M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)))
        for (x, y), mark in zip(places, series.marks, strict=True) if series.dotted else ():
            circle = tag("circle", *([tag("title", mark.title)] if mark.title else []), cx=x, cy=y, r=_RADIUS)
            if not mark.filled:
                circle.set("class", "hollow")
            append(group, circle)
            self._taken.append((x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS))
        return group

    def bars(self, bars: Sequence[Bar], places: int) -> None:
        """Draws bars in groups.

        Args:
            bars: The bars.
            places: Number of places in each group.
        """
        width = min(_MOST_BAR, 0.8 * (self._right - self._left) / len(self._x.ticks) / places)
        for bar in bars:
            x = self._at_x(bar.group) + width * (bar.place - places / 2)
            y = self._at_y(bar.height)
            box = tag("rect", tag("title", bar.title), x=x, y=y, width=max(1.0, width - 1), height=self._bottom - y)
            box.set("class", bar.style if bar.filled else f"{bar.style} hollow")
            append(self.svg, box)

    def step(self, group: int, value: float) -> None:
        """Draws a short line across a group of bars."""
        half = 0.45 * (self._right - self._left) / len(self._x.ticks)
        x, y = self._at_x(group), self._at_y(value)
        append(self.svg, tag("path", class_="rule", d=f"M{x - half:.1f},{y:.1f}H{x + half:.1f}"))

    def labels(self, marks: Sequence[tuple[Mark, str, str]]) -> None:
        """Writes a label beside each point: the point, the text, and classes of the style sheet."""
        for mark, text, style in marks:
            self._label(mark, text, style, _POINT_PLACES, away=8)

    def _label(self, mark: Mark, text: str, style: str, places: Sequence[tuple[int, float]], away: float = 6) -> None:
        """Writes a label at the first of the places that is free, or at the first one."""
        text = text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}\u2026"
        x, y, wide = self._at_x(mark.x), self._at_y(mark.y), _BOLD * len(text)
        found = []
        for side, down in places:
            at, base = x + away * side, y + _LINE * down
            left = at - wide * (1 - side) / 2
            found.append(((left, base - 8, left + wide, base + 2), side, at, base))
        box, side, at, base = next((one for one in found if self._is_free(one[0])), found[0])
        self._taken.append(box)
        anchor = {1: "", 0: " middle", -1: " end"}[side]
        append(self.svg, tag("text", text, class_=f"label {style}{anchor}", x=at, y=base))

    def _is_free(self, box: tuple[float, float, float, float]) -> bool:
        inside = box[0] >= self._left and box[2] <= self._width and box[1] >= 0 and box[3] <= self._bottom
        return inside and not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in self._taken
        )
