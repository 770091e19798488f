"""The fewest slices that cover a task's rate, given its latency and accuracy loss; for `planner.bounds.bounds`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.bounds.mixtures import Mixtures, lower_line
from jigsaw_triton.planner.bounds.rate_cover import Array, Index, RateCover, most_carried, remember, sizes_of
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.problem import ReplicaRange
from jigsaw_triton.planner.domain.tolerances import ROUNDING, TOLERANCE


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
        size: Cost of the slice.
        part: Lower bound on what it costs if it shares a slice.
        ranges: Distinct replica ranges of the configurations that do not share a slice.
        range_index: Index in `ranges`; -1 for a configuration that shares a slice.
    """

    def __init__(self, configurations: Sequence[Configuration]) -> None:
        self.ranges = sorted({c.replica_range for c in configurations if not c.shares})
        self.ms, self.loss, self.rps, self.size, self.part = np.array(
            [(c.latency_ms, c.loss, c.throughput_rps, c.cost, c.turn.least * c.cost) for c in configurations]
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
        self._rate_cover: dict[ReplicaRange, RateCover] = {}
        self._rest: dict[ReplicaRange, RateCover] = {}
        for replicas in {c.replica_range for c in alone}:
            self._rate_cover[replicas], self._rest[replicas] = self._rate_covers(
                [c for c in alone if c.replica_range == replicas], replicas
            )

    def _rate_covers(self, alone: Sequence[Configuration], replicas: ReplicaRange) -> "tuple[RateCover, RateCover]":
        """Returns the rate covers for a number of replicas in the range, and for one replica fewer."""
        sizes = sizes_of(alone)
        best, kind = np.unique(self._best(alone, sizes), axis=0, return_inverse=True)
        kind = kind.ravel()
        (least, most), carried = replicas, most_carried(best, sizes, replicas)
        fewer = (least - 1, most - 1)
        return RateCover(best, kind, sizes, carried, replicas), RateCover(best, kind, sizes, carried, fewer)

    def _best(self, alone: Sequence[Configuration], sizes: Sequence[int]) -> Array:
        """Returns the best throughput of a replica, shape [levels, sizes]."""
        latencies, losses = np.unique(self.latency_ms), np.unique(self.loss)
        best = np.zeros((len(latencies), len(losses), len(sizes)))
        at = (
            np.searchsorted(latencies, [c.latency_ms for c in alone]),
            np.searchsorted(losses, [c.loss for c in alone]),
            np.searchsorted(sizes, [c.cost for c in alone]),
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
            replicas: Mixtures([c for c in alone if c.replica_range == replicas], self.latency_ms, self._least)
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
        base, rise = lower_line(price, np.array([accuracies[v] for v in variants]), self._least)
        least = base + rise * self._least
        return tuple(np.where(np.isfinite(least), least, min(calls.values())).tolist())

    def slices(self, rate_rps: float) -> Array:
        """See `Cover`."""
        slices = self._known.get(rate_rps)
        if slices is None:
            slices = self._shared
            for mixtures in self._mixtures.values():
                slices = np.minimum(slices, mixtures.slices(rate_rps))
            remember(self._known, rate_rps, slices)
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


def _bin(c: Configuration, bin_ms: float) -> int:
    return int(c.latency_ms / bin_ms + ROUNDING)


def _longest(configurations: Sequence[Configuration], bin_ms: float) -> dict[int, float]:
    """Returns the longest latency in each bin."""
    longest: dict[int, float] = {}
    for c in configurations:
        number = _bin(c, bin_ms)
        longest[number] = max(c.latency_ms, longest.get(number, 0.0))
    return longest


def _sharing(configurations: Sequence[Configuration], cover: Cover) -> Array:
    """Returns, for each level, the lower bound on the compute slices of a replica that shares a slice."""
    least = np.full(len(cover.loss), np.inf)
    if any(c.shares for c in configurations):
        for c, allowed in zip(configurations, cover.allowing(np.arange(len(least))), strict=True):
            if c.shares:
                least[allowed] = np.minimum(least[allowed], c.turn.least * c.cost)
    return least
