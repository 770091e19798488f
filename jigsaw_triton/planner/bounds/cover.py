"""The fewest slices that a task takes by what it may use of latency and accuracy; for `planner.bounds.bounds`.

Counted exactly while they are few, else by the best throughput a slice.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.problem import REPLICA_RANGES, ReplicaRange
from jigsaw_triton.planner.domain.tolerances import TOLERANCE

EXACT_SLICES = 64
"""Up to so many slices a task are counted exactly."""

_COUNTED = int(REPLICA_RANGES[-1][0])
"""Up to so many replicas their number is minded exactly: where the last range of them begins."""

_EVERY = slice(None)

_NONE_OR_MORE: ReplicaRange = (0, math.inf)

_LEAST_RATE = 1e-9

_ROUNDING = 1e-6
"""Part of a slice that may be missing to the next; relative, of accuracies."""

Array = NDArray[np.float64]
Index = NDArray[np.int64]


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

    def allowing(self, levels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Configuration and level -> whether that allows it, for these levels."""

    def fewest(self, calls: Mapping[str, float]) -> tuple[float, ...]:
        """By level, the fewest calls elsewhere that follow from one of the task's, by variant."""

    def slices(self, rate_rps: float) -> Array:
        """By level, for at least one replica, or for one that shares a slice and does all."""

    def slices_with(self, which: Index, rate_rps: float, levels: Index) -> Array:
        """Pair by pair, for a replica of a configuration, told by its place, and whatever else it takes at a level."""


class _Figures:
    """Of configurations, by their place.

    Attributes:
        ms: Latency.
        loss: Of accuracy.
        rps: Throughput.
        size: Compute slices.
        part: That it takes of a slice at least, where it shares one.
        ranges: Numbers of replicas that those which share none are for.
        among: The place in `ranges`; -1 for what shares a slice.
    """

    def __init__(self, configurations: Sequence[Configuration]) -> None:
        self.ranges = sorted({c.among for c in configurations if not c.shares})
        self.ms, self.loss, self.rps, self.size, self.part = np.array(
            [
                (c.latency_ms, c.loss, c.throughput_rps, c.compute_slices, c.turn.least * c.compute_slices)
                for c in configurations
            ]
        ).T
        self.among = np.array([-1 if c.shares else self.ranges.index(c.among) for c in configurations])

    @property
    def shares(self) -> NDArray[np.bool_]:
        """Whether it shares a slice."""
        return self.among < 0

    def apart(self, which: Index) -> Iterator[tuple[ReplicaRange, Index]]:
        """Of these configurations, by range, those that are for it: their places in `which`."""
        for number, among in enumerate(self.ranges):
            yield among, np.flatnonzero(self.among[which] == number)


class FloorCover:
    """Where each call keeps the accuracy: levels are the latencies and losses that sets of configurations come to.

    Args:
        configurations: Of the task.
        bin_ms: Latencies that round down to the same multiple of it are one, the longest.
    """

    def __init__(self, configurations: Sequence[Configuration], bin_ms: float) -> None:
        self.configurations = configurations
        self._of = _Figures(configurations)
        longest = _longest(configurations, bin_ms)
        least_loss: dict[float, float] = {}
        least_ms: dict[float, float] = {}
        for c in configurations:
            at = longest[_bin(c, bin_ms)]
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
        self._carrying: dict[ReplicaRange, _Carrying] = {}
        self._rest: dict[ReplicaRange, _Carrying] = {}
        for among in {c.among for c in alone}:
            self._carrying[among], self._rest[among] = self._throughput_by(
                [c for c in alone if c.among == among], among
            )

    def _throughput_by(self, alone: Sequence[Configuration], among: ReplicaRange) -> "tuple[_Carrying, _Carrying]":
        """By as many replicas, and by one fewer."""
        sizes = _sizes(alone)
        best, kind = np.unique(self._best(alone, sizes), axis=0, return_inverse=True)
        kind = kind.ravel()
        (least, most), carried = among, _most_carried(best, sizes, among)
        fewer = (least - 1, most - 1)
        return _Carrying(best, kind, sizes, carried, among), _Carrying(best, kind, sizes, carried, fewer)

    def _best(self, alone: Sequence[Configuration], sizes: Sequence[int]) -> Array:
        """Level and size -> the best throughput."""
        latencies, losses = np.unique(self.latency_ms), np.unique(self.loss)
        best = np.zeros((len(latencies), len(losses), len(sizes)))
        at = (
            np.searchsorted(latencies, [c.latency_ms for c in alone]),
            np.searchsorted(losses, [c.loss for c in alone]),
            np.searchsorted(sizes, [c.compute_slices for c in alone]),
        )
        np.maximum.at(best, at, [c.throughput_rps for c in alone])
        best = np.maximum.accumulate(np.maximum.accumulate(best, axis=0), axis=1)
        of_levels: Array = best[np.searchsorted(latencies, self.latency_ms), np.searchsorted(losses, self.loss)]
        return of_levels

    def allowing(self, levels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Cover`."""
        allowed: NDArray[np.bool_] = self._of.ms[:, None] <= self.latency_ms[levels]
        allowed &= self._of.loss[:, None] <= self.loss[levels]
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

    def slices_with(self, which: Index, rate_rps: float, levels: Index) -> Array:
        """See `Cover`."""
        slices: Array = self._of.part[which]
        # Of the whole rate solvers may miss a part, not of what is left of it.
        left_rps = rate_rps - self._of.rps[which] / (1 - TOLERANCE)
        for among, at in self._of.apart(which):
            slices[at] = self._of.size[which[at]] + self._rest[among].slices(left_rps[at], levels[at])
        return slices


class MeanCover:
    """Where calls keep the accuracy on average: levels are latencies of configurations and equal parts of the budget.

    At a level the mean loses up to the upper end of its part, and is charged for the lower.

    Args:
        configurations: Of the task.
        bin_ms: Latencies that round down to the same multiple of it are one, the longest.
        budget: Largest loss along a path.
        parts: Of the budget.
    """

    def __init__(self, configurations: Sequence[Configuration], bin_ms: float, budget: float, parts: int) -> None:
        self.configurations = configurations
        self._of = _Figures(configurations)
        latencies = sorted({*_longest(configurations, bin_ms).values()})
        self.latency_ms = np.repeat(latencies, parts)
        self.loss = np.tile(np.arange(parts) * budget / parts, len(latencies))
        self.most_loss = np.full(len(self.loss), np.inf)
        self._least = np.exp(-self.loss - budget / parts)
        self._shared = _sharing(configurations, self)
        alone = [c for c in configurations if not c.shares]
        self._mixtures = {
            among: _Mixtures([c for c in alone if c.among == among], self.latency_ms, self._least)
            for among in {c.among for c in alone}
        }
        self._known: dict[float, Array] = {}

    def allowing(self, levels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Cover`; what shares a slice does all calls, so it is accurate enough alone."""
        allowed: NDArray[np.bool_] = self._of.ms[:, None] <= self.latency_ms[levels]
        enough = np.exp(-self._of.loss)[:, None] * (1 + _ROUNDING) >= self._least[levels]
        allowed &= ~self._of.shares[:, None] | enough
        return allowed

    def fewest(self, calls: Mapping[str, float]) -> tuple[float, ...]:
        """See `Cover`."""
        accuracies = {c.variant: math.exp(-c.loss) for c in self.configurations}
        variants = sorted(accuracies)
        price = np.full((len(variants), len(self.loss)), np.inf)
        for c in self.configurations:
            price[variants.index(c.variant), self.latency_ms >= c.latency_ms] = calls[c.variant]
        base, rise = _line(price, np.array([accuracies[v] for v in variants]), self._least)
        least = base + rise * self._least
        return tuple(np.where(np.isfinite(least), least, min(calls.values())).tolist())

    def slices(self, rate_rps: float) -> Array:
        """See `Cover`."""
        if rate_rps not in self._known:
            slices = self._shared
            for mixtures in self._mixtures.values():
                slices = np.minimum(slices, mixtures.slices(rate_rps))
            self._known[rate_rps] = slices
        return self._known[rate_rps]

    def slices_with(self, which: Index, rate_rps: float, levels: Index) -> Array:
        """See `Cover`."""
        slices: Array = self._of.part[which]
        accuracy = np.exp(-self._of.loss[which])
        for among, at in self._of.apart(which):
            others = self._mixtures[among].others(rate_rps, levels[at], accuracy[at], self._of.rps[which[at]])
            slices[at] = np.maximum(
                self._mixtures[among].slices(rate_rps)[levels[at]], self._of.size[which[at]] + others
            )
        return slices


class _Mixtures:
    """The slices that mixtures of variants take, among as many replicas.

    They are bounded in two ways, of which the greater counts:

    - By price: the least slices for each call that a mixture of such accuracy takes, when each variant has its best
      throughput a slice. That is a linear program of two rows, so a line under the variants' prices over their
      accuracies: lambda + mu accuracy, mu >= 0. With a replica of one configuration, which is paid for whole, the rest
      takes as much less as its calls come to on that line.
    - By part: of variants of at least some accuracy a part is needed that follows from the best and the next lower one.

    Args:
        alone: Configurations for the same numbers of replicas.
        latency_ms: Level -> largest latency of what is in use.
        least: Level -> least mean accuracy.
    """

    def __init__(self, alone: Sequence[Configuration], latency_ms: Array, least: Array) -> None:
        (among,) = {c.among for c in alone}
        self._least = least
        accuracy = {c.variant: math.exp(-c.loss) for c in alone}
        variants, sizes = sorted(accuracy, key=lambda v: (-accuracy[v], v)), _sizes(alone)
        accuracies = np.array([accuracy[v] for v in variants])
        best = np.zeros((len(variants), len(least), len(sizes)))
        for c in alone:
            allowed, column = latency_ms >= c.latency_ms, sizes.index(c.compute_slices)
            part = best[variants.index(c.variant)]
            part[allowed, column] = np.maximum(part[allowed, column], c.throughput_rps)
        base, self._rise = _line(_price(best, sizes), accuracies, least)
        self._possible = np.isfinite(base)
        self._base = np.where(self._possible, base, 0.0)
        self._needed: list[tuple[Array, _Carrying]] = []
        self._known: dict[float, Array] = {}
        there = best.max(axis=2, initial=0.0) > 0
        for of_least in sorted(set(accuracy.values())):
            such = best[accuracies >= of_least].max(axis=0, initial=0.0)
            # The number of replicas is that of all variants, which come first; there may be none of some of them.
            number = _NONE_OR_MORE if self._needed else among
            such, kind = np.unique(such, axis=0, return_inverse=True)
            carrying = _Carrying(such, kind.ravel(), sizes, _most_carried(such, sizes, number), number)
            self._needed.append((_part(of_least, there, accuracies, least), carrying))

    def slices(self, rate_rps: float) -> Array:
        """By level, for at least one replica."""
        if rate_rps not in self._known:
            most = self.others(rate_rps)
            for part, carrying in self._needed:
                np.maximum(most, carrying.slices(part * rate_rps), out=most)
            self._known[rate_rps] = most
        return self._known[rate_rps]

    def others(
        self,
        rate_rps: float,
        levels: Index | slice = _EVERY,
        accuracy: float | Array = 0.0,
        done_rps: float | Array = 0.0,
    ) -> Array:
        """By these levels, slices by price for the calls, but for those that a replica can do.

        Args:
            rate_rps: Calls.
            levels: All if not given.
            accuracy: Of the replica's variant, one or one a level.
            done_rps: Calls that it can do, likewise.
        """
        base, rise = self._base[levels], self._rise[levels]
        saved = np.maximum(0.0, base + rise * accuracy) * done_rps
        most = rate_rps * (1 - TOLERANCE) * (base + rise * self._least[levels]) - saved
        return np.where(self._possible[levels], np.ceil(np.maximum(0.0, most) - _ROUNDING), np.inf)


def _line(price: Array, accuracies: Array, least: Array) -> tuple[Array, Array]:
    """Lambda and mu by level; an infinite lambda where no mixture is so accurate.

    Args:
        price: Variant and level -> least slices a call.
        accuracies: By variant.
        least: Level -> least mean accuracy.
    """
    base, rise = price.min(axis=0, initial=np.inf), np.zeros(len(least))
    for i, high in enumerate(accuracies):
        for j, low in enumerate(accuracies):
            if high - low <= _ROUNDING:
                continue
            usable = np.isfinite(price[i]) & np.isfinite(price[j]) & (price[i] > price[j])
            mu = np.subtract(price[i], price[j], out=np.zeros(len(usable)), where=usable) / (high - low)
            lam = np.where(usable, price[j] - mu * low, -np.inf)
            under = (lam + mu * accuracies[:, None] <= price * (1 + 1e-9)).all(axis=0)
            better = under & (lam + mu * least > base + rise * least)
            base, rise = np.where(better, lam, base), np.where(better, mu, rise)
    finest = np.where(np.isfinite(price), accuracies[:, None], 0.0).max(axis=0, initial=0.0)
    return np.where(least > finest * (1 + _ROUNDING), np.inf, base), rise


def _part(accuracy: float, there: NDArray[np.bool_], accuracies: Array, least: Array) -> Array:
    """By level, the part of calls that variants of at least this accuracy must have.

    Args:
        accuracy: That counts.
        there: Variant and level -> whether it can be used.
        accuracies: By variant.
        least: Level -> least mean accuracy.
    """
    by_variant = accuracies[:, None]
    below = there & (by_variant < accuracy)
    finest = np.where(there, by_variant, 0.0).max(axis=0, initial=0.0)
    next_below = np.where(below, by_variant, 0.0).max(axis=0, initial=0.0)
    width = np.maximum(finest - next_below, _ROUNDING)
    part = np.where(finest > next_below, (least - next_below) / width, 0.0)
    clipped: Array = np.where(~below.any(axis=0), 1.0, np.clip(part, 0.0, 1.0))
    return clipped


class _Carrying:
    """Slices for a rate, whatever carries it.

    Args:
        best: Kind of level and size -> the best throughput of a replica of this size.
        kind: Of each level.
        sizes: Of slices.
        carried: See `_most_carried`.
        among: Numbers of replicas that it may take.
    """

    def __init__(
        self, best: Array, kind: NDArray[np.int64], sizes: Sequence[int], carried: Array, among: ReplicaRange
    ) -> None:
        least, most = among
        self._kind = kind
        self._price = _price(best, sizes)
        self._fewest = least * _smallest(best, sizes) if least else np.zeros(len(best))
        self._greatest = most * best.max(axis=1, initial=0.0) if most < math.inf else np.full(len(best), math.inf)
        last = len(carried) - 1
        carried = carried[min(least, last) : int(most) + 1 if most <= last else None].max(axis=0)
        # All kinds in one ascending row, to look up a rate of each at once.
        self._beyond = carried.max(initial=0.0) + 1
        self._shift = 2 * self._beyond * np.arange(len(best))
        self._place = (EXACT_SLICES + 1) * np.arange(len(best))
        self._most = (np.maximum(carried, -1.0) + self._shift[:, None]).ravel()

    def slices(self, rate_rps: float | Array, levels: NDArray[np.int64] | slice = _EVERY) -> Array:
        """By level, of all or of these; a rate of each, or of all."""
        # Less by what solvers may miss it by.
        rate, of = np.maximum(0.0, np.multiply(rate_rps, 1 - TOLERANCE)), self._kind[levels]
        places = np.searchsorted(self._most, np.minimum(rate, self._beyond) + self._shift[of])
        exactly = places - self._place[of]
        by_price = np.ceil(np.maximum(rate, _LEAST_RATE) * self._price[of] - _ROUNDING)
        slices = np.maximum(np.where(exactly <= EXACT_SLICES, exactly, by_price), self._fewest[of])
        return np.where(rate > self._greatest[of], math.inf, slices)


def _most_carried(best: Array, sizes: Sequence[int], among: ReplicaRange) -> Array:
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


def _bin(c: Configuration, bin_ms: float) -> int:
    return int(c.latency_ms / bin_ms + _ROUNDING)


def _longest(configurations: Sequence[Configuration], bin_ms: float) -> dict[int, float]:
    """Bin -> the longest latency in it."""
    longest: dict[int, float] = {}
    for c in configurations:
        number = _bin(c, bin_ms)
        longest[number] = max(c.latency_ms, longest.get(number, 0.0))
    return longest


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
    if any(c.shares for c in configurations):
        for c, allowed in zip(configurations, cover.allowing(np.arange(len(least))), strict=True):
            if c.shares:
                least[allowed] = np.minimum(least[allowed], c.turn.least * c.compute_slices)
    return least
