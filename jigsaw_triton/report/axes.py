"""Axes of charts: their ranges and ticks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from jigsaw_triton.report.numbers import number

Value = TypeVar("Value", int, float)

_MOST_TICKS = 7
_LEAST_TICKS = 3
_STEPS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    tuple(1 + step / 10 for step in range(90)),
)
"""Leading digits of the ticks of a logarithmic axis. The first with enough ticks are taken."""

_DEVIATIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Ticks of an axis of deviations, on both sides of 0. The largest that are on the axis are taken."""

_DEVIATION_TICKS = 2
"""Largest number of these ticks on each side."""

_TIME_STEPS_S = (10, 30, 60, 300, 600, 900, 1800, 3600)
"""Seconds between the ticks of an axis of times. The first with few enough ticks is taken."""

_LEAST, _MOST = 1e-300, 1e300
"""Smallest and largest value of an axis, so that no figure of a table overflows."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a chart.

    Attributes:
        label: Name and unit of the values.
        low: Value at the lower end.
        high: Value at the upper end, above `low`.
        ticks: Value and text of each tick.
        log: True if the axis is logarithmic.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Returns the place of a value, from 0 at the lower end to 1. Values beyond an end are at that end."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, _LEAST))
        return min(1.0, max(0.0, (at - low) / (high - low)))


def log_axis(label: str, values: Iterable[float]) -> Axis:
    """Returns a logarithmic axis with round ticks for values above 0, of which there is at least one."""
    known = _bounded(values, least=_LEAST)
    low, high = min(known) / 1.15, max(known) * 1.15
    found: list[float] = []
    for digits in _STEPS:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(found) >= _LEAST_TICKS:
            break
    return Axis(label, low, high, tuple((tick, number(tick)) for tick in _thinned(found)), log=True)


def sizes_axis(label: str, sizes: Iterable[int]) -> Axis:
    """Returns a logarithmic axis whose ticks are the sizes themselves, or some of them."""
    known = sorted(set(sizes))
    pad = 1.25 if len(known) > 1 else 2.0
    return Axis(label, known[0] / pad, known[-1] * pad, tuple((size, str(size)) for size in _thinned(known)), log=True)


def linear_axis(label: str, values: Iterable[float]) -> Axis:
    """Returns an axis from 0 with round ticks for values of at least 0."""
    largest = max(_bounded(values), default=0.0)
    high = 1.05 * largest if largest > _LEAST else 1.0
    raw = high / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    ticks = [index * step for index in range(math.floor(high / step) + 1)]
    return Axis(label, 0.0, high, tuple((tick, number(tick)) for tick in ticks))


def span_axis(label: str, values: Iterable[float]) -> Axis:
    """Returns an axis with round ticks that begins near the smallest of the values, of which there is at least one."""
    known = _bounded(values)
    room = max(max(known) - min(known), 0.02 * abs(max(known)), 1e-9)
    low, high = min(known) - 0.12 * room, max(known) + 0.12 * room
    raw = (high - low) / 5
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    ticks = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return Axis(label, low, high, tuple((tick, f"{tick:.6g}") for tick in ticks))


def time_axis(label: str, begin_s: float, end_s: float) -> Axis:
    """Returns an axis of times of day in UTC, with ticks at round times.

    Args:
        label: Name of the axis.
        begin_s: Time at its lower end, in seconds since 1970.
        end_s: Time at its upper end, some hours later at most.
    """
    end_s = max(end_s, begin_s + _TIME_STEPS_S[0])
    step_s = next((step for step in _TIME_STEPS_S if (end_s - begin_s) / step <= _MOST_TICKS), _TIME_STEPS_S[-1])
    ticks = range(math.ceil(begin_s / step_s) * step_s, math.floor(end_s) + 1, step_s)
    form = "%H:%M" if step_s % 60 == 0 else "%H:%M:%S"
    return Axis(label, begin_s, end_s, tuple((tick, f"{datetime.fromtimestamp(tick, UTC):{form}}") for tick in ticks))


def groups_axis(label: str, names: Sequence[str]) -> Axis:
    """Returns an axis of groups, which are at 0, 1, 2 and so on."""
    return Axis(label, -0.5, len(names) - 0.5, tuple((float(index), name) for index, name in enumerate(names)))


def deviation_axis(label: str, deviations: Iterable[float]) -> Axis:
    """Returns an axis of logarithms of factors, with ticks in percent. It ends at half and at twice."""
    largest = max((abs(deviation) for deviation in deviations), default=0.0)
    width = min(1.1 * max(largest, _DEVIATIONS[1]), math.log(2))
    ticks = [(0.0, "0%")]
    for size in [size for size in _DEVIATIONS if -math.log1p(-size) <= width][-_DEVIATION_TICKS:]:
        ticks += [(math.log1p(-size), f"\u2212{size:.0%}"), (math.log1p(size), f"+{size:.0%}")]
    return Axis(label, -width, width, tuple(sorted(ticks)))


def _bounded(values: Iterable[float], least: float = -_MOST) -> list[float]:
    return [min(max(value, least), _MOST) for value in values]


def _thinned(ticks: Sequence[Value]) -> list[Value]:
    """Returns every tick, or every second, third and so on, so that there are not too many."""
    return list(ticks[:: math.ceil(len(ticks) / _MOST_TICKS)]) if ticks else []
