"""The fewest slices that a task takes by what it may use of latency and accuracy; for `planner.bounds`.

Counted exactly while they are few, else by the best throughput a slice.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.configurations import TOLERANCE, Configuration
from jigsaw_triton.planner.latency import ANY_NUMBER
from jigsaw_triton.planner.problem import Replicas

EXACT_SLICES = 64
"""Up to so many slices a task are counted exactly."""

_COUNTED = 4
"""Up to so many replicas their number is minded exactly."""

_EVERY = slice(None)

_LEAST_RATE = 1e-9

_ROUNDING = 1e-6
"""Part of a slice that may be missing to the next; relative, of accuracies."""

Array = NDArray[np.float64]


class Cover(Protocol):
    """Levels of what a task may use, and the slices that it takes at each."""

    @property
    def configurations(self) -> Sequence[Configuration]:
        """Of the task."""

    @property
    def latency_ms(self) -> Array:
        """Level -> largest latency of what is in use."""

    @property
    def loss(self) -> Array:
        """Level -> loss of accuracy that it is charged for."""

    @property
    def most_loss(self) -> Array:
        """Level -> loss that a configuration in use may have."""

    def allowing(self, c: Configuration) -> NDArray[np.bool_]:
        """The levels that allow a configuration."""

    def fewest(self, calls: Mapping[str, float]) -> tuple[float, ...]:
        """By level, the fewest calls elsewhere that follow from one of the task's, by variant."""

    def slices(self, rate_rps: float) -> Array:
        """By level, for at least one replica, or for one that shares a slice and does all."""

    def slices_with(self, c: Configuration, rate_rps: float, levels: NDArray[np.int64]) -> Array:
        """By these levels, for a replica of a configuration and whatever else it takes."""


class FloorCover:
    """Where each call keeps the accuracy: levels are the latencies and losses that sets of configurations come to.

    Args:
        configurations: Of the task.
        bin_ms: Latencies that round down to the same multiple of it are one, the longest.
    """

    def __init__(self, configurations: Sequence[Configuration], bin_ms: float) -> None:
        self.configurations = configurations
        longest: dict[int, float] = {}
        for c in configurations:
            number = int(c.latency_ms / bin_ms + _ROUNDING)
            longest[number] = max(c.latency_ms, longest.get(number, 0.0))
        least_loss: dict[float, float] = {}
        least_ms: dict[float, float] = {}
        for c in configurations:
            at = longest[int(c.latency_ms / bin_ms + _ROUNDING)]
            least_loss[at] = min(c.loss, least_loss.get(at, math.inf))
            least_ms[c.loss] = min(at, least_ms.get(c.loss, math.inf))
        levels = (
            (at, loss)
            for at, least in least_loss.items()
            for loss, soonest in least_ms.items()
            if least <= loss and soonest <= at
        )
        self.latency_ms, self.loss = np.array(sorted(levels)).T
        self.most_loss = self.loss
        self._shared = _sharing(configurations, self)
        alone = [c for c in configurations if not c.shares]
        self._carrying: dict[Replicas, _Carrying] = {}
        self._rest: dict[Replicas, _Carrying] = {}
        for among in {c.among for c in alone}:
            self._carrying[among], self._rest[among] = self._carried_by([c for c in alone if c.among == among], among)

    def _carried_by(self, alone: Sequence[Configuration], among: Replicas) -> "tuple[_Carrying, _Carrying]":
        """By as many replicas, and by one fewer."""
        sizes = _sizes(alone)
        best = np.zeros((len(self.loss), len(sizes)))
        for c in alone:
            allowed, column = self.allowing(c), sizes.index(c.compute_slices)
            best[allowed, column] = np.maximum(best[allowed, column], c.throughput_rps)
        (least, most), carried = among, _most_carried(best, sizes, among)
        last = len(carried) - 1
        fewer = carried[max(0, min(least, last) - 1) : last if last == most else None]
        return (
            _Carrying(best, sizes, carried[min(least, last) :].max(axis=0), least, most),
            _Carrying(best, sizes, fewer.max(axis=0), least - 1, most - 1),
        )

    def allowing(self, c: Configuration) -> NDArray[np.bool_]:
        """See `Cover`."""
        allowed: NDArray[np.bool_] = (self.latency_ms >= c.latency_ms) & (self.loss >= c.loss)
        return allowed

    def fewest(self, calls: Mapping[str, float]) -> tuple[float, ...]:
        """See `Cover`."""
        least = {c.loss: math.inf for c in self.configurations}
        for c in self.configurations:
            least[c.loss] = min(least[c.loss], calls[c.variant])
        return tuple(min(n for loss, n in least.items() if loss <= level) for level in self.loss)

    def slices(self, rate_rps: float) -> Array:
        """See `Cover`."""
        slices = self._shared
        for carrying in self._carrying.values():
            slices = np.minimum(slices, carrying.slices(rate_rps))
        return slices

    def slices_with(self, c: Configuration, rate_rps: float, levels: NDArray[np.int64]) -> Array:
        """See `Cover`."""
        if c.shares:
            return np.full(len(levels), c.turn.least * c.compute_slices)
        return c.compute_slices + self._rest[c.among].slices(rate_rps - c.throughput_rps, levels)


class MeanCover:
    """Where calls keep the accuracy on average: levels are latencies of configurations and equal parts of the budget.

    At a level the mean loses up to the upper end of its part, and is charged for the lower. What carries the calls is
    bounded in two ways, of which the greater counts:

    - By price: the least slices for each call that a mixture of such accuracy takes, when each variant has its best
      throughput a slice. That is a linear program of two rows, so a line under the variants' prices over their
      accuracies: lambda + mu accuracy, mu >= 0. With a replica of one configuration, which is paid for whole, the rest
      takes as much less as its calls come to on that line.
    - By part: of variants of at least some accuracy a part is needed that follows from the best and the next lower one.

    Args:
        configurations: Of the task.
        budget: Largest loss along a path.
        parts: Of the budget.
    """

    def __init__(self, configurations: Sequence[Configuration], budget: float, parts: int) -> None:
        self.configurations = configurations
        latencies = sorted({c.latency_ms for c in configurations})
        self.latency_ms = np.repeat(latencies, parts)
        self.loss = np.tile(np.arange(parts) * budget / parts, len(latencies))
        self.most_loss = np.full(len(self.loss), np.inf)
        self._least = np.exp(-self.loss - budget / parts)
        self._accuracies = {c.variant: math.exp(-c.loss) for c in configurations}
        self._shared = _sharing(configurations, self)
        alone = [c for c in configurations if not c.shares]
        sizes = _sizes(alone)
        self._variants = sorted(self._accuracies, key=lambda v: (-self._accuracies[v], v))
        best = np.zeros((len(self._variants), len(self.loss), len(sizes)))
        for c in alone:
            allowed, column = self.allowing(c), sizes.index(c.compute_slices)
            part = best[self._variants.index(c.variant)]
            part[allowed, column] = np.maximum(part[allowed, column], c.throughput_rps)
        self._smallest = _smallest(best.max(axis=0, initial=0.0), sizes)
        base, self._rise = self._line(_price(best, sizes))
        self._possible = np.isfinite(base)
        self._base = np.where(self._possible, base, 0.0)
        self._needed: list[tuple[Array, _Carrying]] = []
        self._known: dict[float, Array] = {}
        there = best.max(axis=2, initial=0.0) > 0
        for accuracy in sorted(set(self._accuracies.values())):
            such = [i for i, v in enumerate(self._variants) if self._accuracies[v] >= accuracy]
            of_such = best[such].max(axis=0, initial=0.0)
            carrying = _Carrying(of_such, sizes, _most_carried(of_such, sizes, ANY_NUMBER)[0])
            self._needed.append((self._part(accuracy, there), carrying))

    def _line(self, price: Array) -> tuple[Array, Array]:
        """Lambda and mu by level; an infinite lambda where no mixture is so accurate.

        Args:
            price: Variant and level -> least slices a call.
        """
        accuracies = np.array([self._accuracies[v] for v in self._variants])
        base, rise = price.min(axis=0, initial=np.inf), np.zeros(len(self.loss))
        for i, high in enumerate(accuracies):
            for j, low in enumerate(accuracies):
                if high - low <= _ROUNDING:
                    continue
                usable = np.isfinite(price[i]) & np.isfinite(price[j]) & (price[i] > price[j])
                mu = np.subtract(price[i], price[j], out=np.zeros(len(usable)), where=usable) / (high - low)
                lam = np.where(usable, price[j] - mu * low, -np.inf)
                under = (lam + mu * accuracies[:, None] <= price * (1 + 1e-9)).all(axis=0)
                better = under & (lam + mu * self._least > base + rise * self._least)
                base, rise = np.where(better, lam, base), np.where(better, mu, rise)
        finest = np.where(np.isfinite(price), accuracies[:, None], 0.0).max(axis=0, initial=0.0)
        return np.where(self._least > finest * (1 + _ROUNDING), np.inf, base), rise

    def _part(self, accuracy: float, there: NDArray[np.bool_]) -> Array:
        """By level, the part of calls that variants of at least this accuracy must have.

        Args:
            accuracy: That counts.
            there: Variant and level -> whether it can be used.
        """
        accuracies = np.array([self._accuracies[v] for v in self._variants])[:, None]
        finest = np.where(there, accuracies, 0.0).max(axis=0, initial=0.0)
        below = np.where(there & (accuracies < accuracy), accuracies, 0.0).max(axis=0, initial=0.0)
        none_below = ~(there & (accuracies < accuracy)).any(axis=0)
        width = np.maximum(finest - below, _ROUNDING)
        part = np.where(finest > below, (self._least - below) / width, 0.0)
        clipped: Array = np.where(none_below, 1.0, np.clip(part, 0.0, 1.0))
        return clipped

    def allowing(self, c: Configuration) -> NDArray[np.bool_]:
        """See `Cover`; what shares a slice does all calls, so it is accurate enough alone."""
        allowed: NDArray[np.bool_] = self.latency_ms >= c.latency_ms
        if c.shares:
            allowed &= math.exp(-c.loss) * (1 + _ROUNDING) >= self._least
        return allowed

    def fewest(self, calls: Mapping[str, float]) -> tuple[float, ...]:
        """See `Cover`."""
        price = np.full((len(self._variants), len(self.loss)), np.inf)
        for c in self.configurations:
            price[self._variants.index(c.variant), self.latency_ms >= c.latency_ms] = calls[c.variant]
        base, rise = self._line(price)
        least = base + rise * self._least
        return tuple(np.where(np.isfinite(least), least, min(calls.values())).tolist())

    def slices(self, rate_rps: float) -> Array:
        """See `Cover`."""
        if rate_rps not in self._known:
            most = np.maximum(self._by_price(rate_rps), self._smallest)
            for part, carrying in self._needed:
                np.maximum(most, carrying.slices(part * rate_rps), out=most)
            self._known[rate_rps] = np.minimum(most, self._shared)
        return self._known[rate_rps]

    def slices_with(self, c: Configuration, rate_rps: float, levels: NDArray[np.int64]) -> Array:
        """See `Cover`."""
        if c.shares:
            return np.full(len(levels), c.turn.least * c.compute_slices)
        others = self._by_price(rate_rps, math.exp(-c.loss), c.throughput_rps)
        most: Array = np.maximum(self.slices(rate_rps), c.compute_slices + others)[levels]
        return most

    def _by_price(self, rate_rps: float, accuracy: float = 0.0, done_rps: float = 0.0) -> Array:
        """Slices for the calls, but for those that a replica of a variant of this accuracy can do."""
        saved = np.maximum(0.0, self._base + self._rise * accuracy) * done_rps
        most = rate_rps * (1 - TOLERANCE) * (self._base + self._rise * self._least) - saved
        return np.where(self._possible, np.ceil(np.maximum(0.0, most) - _ROUNDING), np.inf)


class _Carrying:
    """Slices for a rate, whatever carries it.

    Args:
        best: Level and size -> the best throughput of a replica of this size.
        sizes: Of slices.
        carried: Level and number of slices -> the most that so many carry; below 0 where they are too few.
        least: Replicas that it takes at least.
        most: Replicas that it may take.
    """

    def __init__(
        self, best: Array, sizes: Sequence[int], carried: Array, least: float = 0, most: float = math.inf
    ) -> None:
        self._price = _price(best, sizes)
        self._fewest = least * _smallest(best, sizes) if least else np.zeros(len(best))
        self._greatest = most * best.max(axis=1, initial=0.0) if most < math.inf else np.full(len(best), math.inf)
        # All levels in one ascending row, to look up a rate of each at once.
        self._beyond = carried.max(initial=0.0) + 1
        self._shift = 2 * self._beyond * np.arange(len(best))
        self._place = (EXACT_SLICES + 1) * np.arange(len(best))
        self._most = (np.maximum(carried, -1.0) + self._shift[:, None]).ravel()

    def slices(self, rate_rps: float | Array, levels: NDArray[np.int64] | slice = _EVERY) -> Array:
        """By level, of all or of these; a rate of each, or of all."""
        # Less by what solvers may miss it by.
        rate = np.maximum(0.0, np.multiply(rate_rps, 1 - TOLERANCE))
        places = np.searchsorted(self._most, np.minimum(rate, self._beyond) + self._shift[levels])
        exactly = places - self._place[levels]
        by_price = np.ceil(np.maximum(rate, _LEAST_RATE) * self._price[levels] - _ROUNDING)
        slices = np.maximum(np.where(exactly <= EXACT_SLICES, exactly, by_price), self._fewest[levels])
        return np.where(rate > self._greatest[levels], math.inf, slices)


def _most_carried(best: Array, sizes: Sequence[int], among: Replicas) -> Array:
    """Number of replicas, level and number of slices -> the largest throughput; minus infinity where they do not fit.

    The last number stands for more of them, too, unless it is the most that there may be. It is no larger than
    `_COUNTED`, and 0 where so small numbers do not matter.
    """
    least, most = among
    ends = most <= _COUNTED
    last = int(most) if ends else least if 1 < least <= _COUNTED else 0
    carried = np.full((last + 1, len(best), EXACT_SLICES + 1), -math.inf)
    carried[0] = 0.0
    for n in range(1, EXACT_SLICES + 1):
        np.maximum(carried[:, :, n], carried[:, :, n - 1], out=carried[:, :, n])
        for column, size in enumerate(sizes):
            if size <= n:
                more = carried[:, :, n - size] + best[:, column]
                np.maximum(carried[1:, :, n], more[:-1], out=carried[1:, :, n])
                if not ends:
                    np.maximum(carried[-1, :, n], more[-1], out=carried[-1, :, n])
    return carried


def _sizes(alone: Sequence[Configuration]) -> list[int]:
    return sorted({c.compute_slices for c in alone})


def _price(best: Array, sizes: Sequence[int]) -> Array:
    """Least slices for a call a second; the last axis of `best` is of sizes."""
    with np.errstate(divide="ignore"):
        price: Array = (np.array(sizes) / best).min(axis=-1, initial=np.inf)
    return price


def _smallest(best: Array, sizes: Sequence[int]) -> Array:
    """By level, the size of the smallest replica."""
    smallest: Array = np.where(best > 0, np.array(sizes), np.inf).min(axis=1, initial=np.inf)
    return smallest


def _sharing(configurations: Sequence[Configuration], cover: Cover) -> Array:
    """By level, the least part of a slice that a replica takes which shares one."""
    least = np.full(len(cover.loss), np.inf)
    for c in configurations:
        if c.shares:
            allowed = cover.allowing(c)
            least[allowed] = np.minimum(least[allowed], c.turn.least * c.compute_slices)
    return least
