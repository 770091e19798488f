"""The fewest slices that cover a task's rate, given its latency and accuracy loss; for `planner.bounds.bounds`.

Small numbers of slices are exact; larger ones follow from the best throughput for each slice.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.problem import REPLICA_RANGES, ReplicaRange
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, ROUNDING, TOLERANCE

EXACT_SLICES = 64
"""Largest number of slices of a task that is exact. A convention that limits time; see ADR 4 for its effect."""

_COUNTED = int(REPLICA_RANGES[-1][0])
"""Largest number of replicas that is exact: the start of the last replica range, beyond which the number is free."""

_MOST_RATES = 64
"""Number of rates whose slices a cover remembers. A convention; one solve asks for at most `bounds.MOST_CALLS`."""

_EVERY = slice(None)

_NONE_OR_MORE: ReplicaRange = (0, math.inf)
"""Range without a limit, which includes no replica at all."""

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Cover(Protocol):
    """Levels of latency and accuracy loss that a task may use, and the slices that it needs at each."""

    @property
    def configurations(self) -> Sequence[Configuration]:
        """Configurations of the task."""

    @property
    def latency_ms(self) -> Array:
        """Level -> largest latency of a configuration in use."""

    @property
    def loss(self) -> Array:
        """Level -> accuracy loss that the task is charged for."""

    @property
    def most_loss(self) -> Array:
        """Level -> largest accuracy loss of a configuration in use."""

    def allowing(self, levels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns a mask, shape [configurations, levels]: True if the level allows the configuration."""

    def fewest(self, calls: Mapping[str, float]) -> tuple[float, ...]:
        """Returns, for each level, the fewest calls of a follower for one call of the task, given those by variant."""

    def slices(self, rate_rps: float) -> Array:
        """Returns, for each level, the fewest slices for at least one replica, or for one that shares a slice."""

    def slices_with(self, which: Index, rate_rps: float, levels: Index) -> Array:
        """Returns, for each (configuration index, level) pair, the fewest slices with such a replica."""


class _Columns:
    """Attributes of configurations as arrays, indexed by configuration.

    Attributes:
        ms: Latency in milliseconds.
        loss: Accuracy loss.
        rps: Usable throughput in calls a second.
        size: Compute slices.
        part: Lower bound on the compute slices that it costs if it shares a slice.
        ranges: Distinct replica ranges of the configurations that do not share a slice.
        range_index: Index in `ranges`; -1 for a configuration that shares a slice.
    """

    def __init__(self, configurations: Sequence[Configuration]) -> None:
        self.ranges = sorted({c.replica_range for c in configurations if not c.shares})
        self.ms, self.loss, self.rps, self.size, self.part = np.array(
            [
                (c.latency_ms, c.loss, c.throughput_rps, c.compute_slices, c.turn.least * c.compute_slices)
                for c in configurations
            ]
        ).T
        self.range_index = np.array([-1 if c.shares else self.ranges.index(c.replica_range) for c in configurations])

    @property
    def shares(self) -> NDArray[np.bool_]:
        """Mask of the configurations that share a slice."""
        return self.range_index < 0

    def by_range(self, which: Index) -> Iterator[tuple[ReplicaRange, Index]]:
        """Yields each replica range with the positions in `which` of the configurations for it."""
        for number, replicas in enumerate(self.ranges):
            yield replicas, np.flatnonzero(self.range_index[which] == number)


class FloorCover:
    """Cover for an accuracy floor: levels are the pairs of latency and loss that sets of configurations can have.

    Args:
        configurations: Configurations of the task.
        bin_ms: Width of a bin in milliseconds; latencies in one bin are replaced by the longest.
    """

    def __init__(self, configurations: Sequence[Configuration], bin_ms: float) -> None:
        self.configurations = configurations
        self._columns = _Columns(configurations)
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
        self._rate_cover: dict[ReplicaRange, _RateCover] = {}
        self._rest: dict[ReplicaRange, _RateCover] = {}
        for replicas in {c.replica_range for c in alone}:
            self._rate_cover[replicas], self._rest[replicas] = self._rate_covers(
                [c for c in alone if c.replica_range == replicas], replicas
            )

    def _rate_covers(self, alone: Sequence[Configuration], replicas: ReplicaRange) -> "tuple[_RateCover, _RateCover]":
        """Returns the rate covers for a number of replicas in the range, and for one replica fewer."""
        sizes = _sizes(alone)
        best, kind = np.unique(self._best(alone, sizes), axis=0, return_inverse=True)
        kind = kind.ravel()
        (least, most), carried = replicas, _most_carried(best, sizes, replicas)
        fewer = (least - 1, most - 1)
        return _RateCover(best, kind, sizes, carried, replicas), _RateCover(best, kind, sizes, carried, fewer)

    def _best(self, alone: Sequence[Configuration], sizes: Sequence[int]) -> Array:
        """Returns the best throughput of a replica, shape [levels, sizes]."""
        latencies, losses = np.unique(self.latency_ms), np.unique(self.loss)
        best = np.zeros((len(latencies), len(losses), len(sizes)))
        at = (
            np.searchsorted(latencies, [c.latency_ms for c in alone]),
            np.searchsorted(losses, [c.loss for c in alone]),
            np.searchsorted(sizes, [c.compute_slices for c in alone]),
        )
        np.maximum.at(best, at, [c.throughput_rps for c in alone])
        best = np.maximum.accumulate(np.maximum.accumulate(best, axis=0), axis=1)
        by_level: Array = best[np.searchsorted(latencies, self.latency_ms), np.searchsorted(losses, self.loss)]
        return by_level

    def allowing(self, levels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Cover`."""
        allowed: NDArray[np.bool_] = self._columns.ms[:, None] <= self.latency_ms[levels]
        allowed &= self._columns.loss[:, None] <= self.loss[levels]
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
        for cover in self._rate_cover.values():
            slices = np.minimum(slices, cover.slices(rate_rps))
        return slices

    def slices_with(self, which: Index, rate_rps: float, levels: Index) -> Array:
        """See `Cover`."""
        slices: Array = self._columns.part[which]
        # The tolerance of solvers is relative to the whole rate, not to the rate that is left.
        left_rps = rate_rps - self._columns.rps[which] / (1 - TOLERANCE)
        for replicas, at in self._columns.by_range(which):
            slices[at] = self._columns.size[which[at]] + self._rest[replicas].slices(left_rps[at], levels[at])
        return slices


class MeanCover:
    """Cover for a mean accuracy: levels are pairs of a configuration's latency and one of equal parts of the budget.

    At a level, the mean may lose up to the upper end of the part, and is charged for its lower end.

    Args:
        configurations: Configurations of the task.
        bin_ms: Width of a bin in milliseconds; latencies in one bin are replaced by the longest.
        budget: Largest loss along a path.
        parts: Number of parts of the budget.
    """

    def __init__(self, configurations: Sequence[Configuration], bin_ms: float, budget: float, parts: int) -> None:
        self.configurations = configurations
        self._columns = _Columns(configurations)
        latencies = sorted({*_longest(configurations, bin_ms).values()})
        self.latency_ms = np.repeat(latencies, parts)
        self.loss = np.tile(np.arange(parts) * budget / parts, len(latencies))
        self.most_loss = np.full(len(self.loss), np.inf)
        self._least = np.exp(-self.loss - budget / parts)
        self._shared = _sharing(configurations, self)
        alone = [c for c in configurations if not c.shares]
        self._mixtures = {
            replicas: _Mixtures([c for c in alone if c.replica_range == replicas], self.latency_ms, self._least)
            for replicas in {c.replica_range for c in alone}
        }
        self._known: dict[float, Array] = {}

    def allowing(self, levels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `Cover`; a configuration that shares a slice takes all calls, so it must be accurate enough alone."""
        allowed: NDArray[np.bool_] = self._columns.ms[:, None] <= self.latency_ms[levels]
        enough = np.exp(-self._columns.loss)[:, None] * (1 + ROUNDING) >= self._least[levels]
        allowed &= ~self._columns.shares[:, None] | enough
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
        slices = self._known.get(rate_rps)
        if slices is None:
            slices = self._shared
            for mixtures in self._mixtures.values():
                slices = np.minimum(slices, mixtures.slices(rate_rps))
            _keep(self._known, rate_rps, slices)
        return slices

    def slices_with(self, which: Index, rate_rps: float, levels: Index) -> Array:
        """See `Cover`."""
        slices: Array = self._columns.part[which]
        accuracy = np.exp(-self._columns.loss[which])
        for replicas, at in self._columns.by_range(which):
            others = self._mixtures[replicas].others(rate_rps, levels[at], accuracy[at], self._columns.rps[which[at]])
            slices[at] = np.maximum(
                self._mixtures[replicas].slices(rate_rps)[levels[at]], self._columns.size[which[at]] + others
            )
        return slices


class _Mixtures:
    """Lower bounds on the slices of mixtures of variants, for one replica range.

    There are two bounds, of which the greater counts:

    - By price: the fewest slices for each call of a mixture with the required accuracy, if each variant has its best
      throughput for each slice. That is a linear program with two rows, whose dual solution is a line below the prices
      of the variants over their accuracies: lambda + mu * accuracy, mu >= 0. With a replica of one configuration, which
      is paid for in full, the rest needs less: the value of the replica's calls on that line.
    - By share: the variants of at least some accuracy must have a share of the calls that follows from the best variant
      and the best of the less accurate ones.

    Args:
        alone: Configurations, all for the same replica range.
        latency_ms: Level -> largest latency of a configuration in use.
        least: Level -> least mean accuracy.
    """

    def __init__(self, alone: Sequence[Configuration], latency_ms: Array, least: Array) -> None:
        (replicas,) = {c.replica_range for c in alone}
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
        self._needed: list[tuple[Array, _RateCover]] = []
        self._known: dict[float, Array] = {}
        there = best.max(axis=2, initial=0.0) > 0
        for lowest in sorted(set(accuracy.values())):
            such = best[accuracies >= lowest].max(axis=0, initial=0.0)
            # The first entry is for all variants, to whose replicas the range applies. Of the others there may be none.
            number = _NONE_OR_MORE if self._needed else replicas
            such, kind = np.unique(such, axis=0, return_inverse=True)
            cover = _RateCover(such, kind.ravel(), sizes, _most_carried(such, sizes, number), number)
            self._needed.append((_part(lowest, there, accuracies, least), cover))

    def slices(self, rate_rps: float) -> Array:
        """Returns, for each level, the fewest slices for at least one replica."""
        most = self._known.get(rate_rps)
        if most is None:
            most = self.others(rate_rps)
            for part, cover in self._needed:
                np.maximum(most, cover.slices(part * rate_rps), out=most)
            _keep(self._known, rate_rps, most)
        return most

    def others(
        self,
        rate_rps: float,
        levels: Index | slice = _EVERY,
        accuracy: float | Array = 0.0,
        done_rps: float | Array = 0.0,
    ) -> Array:
        """Returns, for these levels, the bound by price for the calls that a given replica leaves.

        Args:
            rate_rps: Calls a second.
            levels: Levels; all by default.
            accuracy: Accuracy of the replica's variant, one for all levels or one for each.
            done_rps: Throughput of the replica, one for all levels or one for each.
        """
        base, rise = self._base[levels], self._rise[levels]
        saved = np.maximum(0.0, base + rise * accuracy) * done_rps
        most = rate_rps * (1 - TOLERANCE) * (base + rise * self._least[levels]) - saved
        return np.where(self._possible[levels], np.ceil(np.maximum(0.0, most) - ROUNDING), np.inf)


def _line(price: Array, accuracies: Array, least: Array) -> tuple[Array, Array]:
    """Returns lambda and mu for each level; lambda is infinite if no mixture is accurate enough.

    Args:
        price: Fewest slices for a call a second, shape [variants, levels].
        accuracies: Accuracy of each variant.
        least: Level -> least mean accuracy.
    """
    base, rise = price.min(axis=0, initial=np.inf), np.zeros(len(least))
    for i, high in enumerate(accuracies):
        for j, low in enumerate(accuracies):
            if high - low <= ROUNDING:
                continue
            usable = np.isfinite(price[i]) & np.isfinite(price[j]) & (price[i] > price[j])
            mu = np.subtract(price[i], price[j], out=np.zeros(len(usable)), where=usable) / (high - low)
            lam = np.where(usable, price[j] - mu * low, -np.inf)
            under = (lam + mu * accuracies[:, None] <= price * (1 + FLOAT_ERROR)).all(axis=0)
            better = under & (lam + mu * least > base + rise * least)
            base, rise = np.where(better, lam, base), np.where(better, mu, rise)
    finest = np.where(np.isfinite(price), accuracies[:, None], 0.0).max(axis=0, initial=0.0)
    return np.where(least > finest * (1 + ROUNDING), np.inf, base), rise


def _part(accuracy: float, there: NDArray[np.bool_], accuracies: Array, least: Array) -> Array:
    """Returns, for each level, the share of calls that variants of at least this accuracy must have.

    Args:
        accuracy: The accuracy.
        there: Mask of the variants that can be used, shape [variants, levels].
        accuracies: Accuracy of each variant.
        least: Level -> least mean accuracy.
    """
    by_variant = accuracies[:, None]
    below = there & (by_variant < accuracy)
    finest = np.where(there, by_variant, 0.0).max(axis=0, initial=0.0)
    next_below = np.where(below, by_variant, 0.0).max(axis=0, initial=0.0)
    width = np.maximum(finest - next_below, ROUNDING)
    part = np.where(finest > next_below, (least - next_below) / width, 0.0)
    clipped: Array = np.where(~below.any(axis=0), 1.0, np.clip(part, 0.0, 1.0))
    return clipped


class _RateCover:
    """The fewest slices that cover a rate. Levels with the same best throughputs are of one kind.

    Args:
        best: Best throughput of a replica, shape [kinds, sizes].
        kind: Level -> kind.
        sizes: Sizes of slices.
        carried: Result of `_most_carried`.
        replicas: Range of the number of replicas.
    """

    def __init__(
        self, best: Array, kind: NDArray[np.int64], sizes: Sequence[int], carried: Array, replicas: ReplicaRange
    ) -> None:
        least, most = replicas
        self._kind = kind
        self._price = _price(best, sizes)
        self._fewest = least * _smallest(best, sizes) if least else np.zeros(len(best))
        self._greatest = most * best.max(axis=1, initial=0.0) if most < math.inf else np.full(len(best), math.inf)
        last = len(carried) - 1
        carried = carried[min(least, last) : int(most) + 1 if most <= last else None].max(axis=0)
        # All kinds in one ascending array, so that one search finds the rates of all.
        self._beyond = carried.max(initial=0.0) + 1
        self._shift = 2 * self._beyond * np.arange(len(best))
        self._place = (EXACT_SLICES + 1) * np.arange(len(best))
        self._most = (np.maximum(carried, -1.0) + self._shift[:, None]).ravel()

    def slices(self, rate_rps: float | Array, levels: NDArray[np.int64] | slice = _EVERY) -> Array:
        """Returns the slices for all levels or for these; the rate is one for all or one for each."""
        # Solvers may miss the rate by their tolerance.
        rate, kind = np.maximum(0.0, np.multiply(rate_rps, 1 - TOLERANCE)), self._kind[levels]
        places = np.searchsorted(self._most, np.minimum(rate, self._beyond) + self._shift[kind])
        exactly = places - self._place[kind]
        # A rate above 0, as 0 times an infinite price would be NaN.
        by_price = np.ceil(np.maximum(rate, 1e-9) * self._price[kind] - ROUNDING)
        slices = np.maximum(np.where(exactly <= EXACT_SLICES, exactly, by_price), self._fewest[kind])
        return np.where(rate > self._greatest[kind], math.inf, slices)


def _most_carried(best: Array, sizes: Sequence[int], replicas: ReplicaRange) -> Array:
    """Returns the largest throughput, shape [numbers of replicas, levels, numbers of slices]; -inf if it is impossible.

    The last number of replicas also stands for all larger ones, unless it is the largest allowed. It is at most
    `_COUNTED`, and 0 if the range does not constrain small numbers.
    """
    least, most = replicas
    ends = most <= _COUNTED
    last = int(most) if ends else least if 1 < least <= _COUNTED else 0
    # The number of slices is the first axis here, so that each step works on whole rows.
    carried = np.full((EXACT_SLICES + 1, last + 1, len(best)), -math.inf)
    carried[:, 0] = 0.0
    best_of = np.ascontiguousarray(best.T)
    for n in range(1, EXACT_SLICES + 1):
        np.maximum(carried[n], carried[n - 1], out=carried[n])
        for column, size in enumerate(sizes):
            if size <= n:
                more = carried[n - size] + best_of[column]
                np.maximum(carried[n, 1:], more[:-1], out=carried[n, 1:])
                if not ends:
                    np.maximum(carried[n, -1], more[-1], out=carried[n, -1])
    by_replicas: Array = np.moveaxis(carried, 0, -1)
    return by_replicas


def _keep(known: dict[float, Array], rate_rps: float, slices: Array) -> None:
    """Adds the slices for a rate to those of at most `_MOST_RATES`. Covers are used in several threads at once."""
    if len(known) >= _MOST_RATES:
        known.clear()
    known[rate_rps] = slices


def _bin(c: Configuration, bin_ms: float) -> int:
    return int(c.latency_ms / bin_ms + ROUNDING)


def _longest(configurations: Sequence[Configuration], bin_ms: float) -> dict[int, float]:
    """Returns the longest latency in each bin."""
    longest: dict[int, float] = {}
    for c in configurations:
        number = _bin(c, bin_ms)
        longest[number] = max(c.latency_ms, longest.get(number, 0.0))
    return longest


def _sizes(alone: Sequence[Configuration]) -> list[int]:
    return sorted({c.compute_slices for c in alone})


def _price(best: Array, sizes: Sequence[int]) -> Array:
    """Returns the fewest slices for a call a second; the last axis of `best` is that of the sizes."""
    with np.errstate(divide="ignore"):
        price: Array = (np.array(sizes) / best).min(axis=-1, initial=np.inf)
    return price


def _smallest(best: Array, sizes: Sequence[int]) -> Array:
    """Returns, for each level, the size of the smallest replica."""
    smallest: Array = np.where(best > 0, np.array(sizes), np.inf).min(axis=1, initial=np.inf)
    return smallest


def _sharing(configurations: Sequence[Configuration], cover: Cover) -> Array:
    """Returns, for each level, the lower bound on the compute slices of a replica that shares a slice."""
    least = np.full(len(cover.loss), np.inf)
    if any(c.shares for c in configurations):
        for c, allowed in zip(configurations, cover.allowing(np.arange(len(least))), strict=True):
            if c.shares:
                least[allowed] = np.minimum(least[allowed], c.turn.least * c.compute_slices)
    return least
