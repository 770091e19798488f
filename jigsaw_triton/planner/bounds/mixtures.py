"""Lower bounds on the slices of mixtures of variants whose mean accuracy is high enough."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.bounds.rate_cover import (
    EVERY,
    Array,
    Index,
    RateCover,
    most_carried,
    remember,
    sizes_of,
    slice_price,
)
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.problem import ReplicaRange
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, ROUNDING, TOLERANCE

_NONE_OR_MORE: ReplicaRange = (0, math.inf)
"""Range without a limit, which includes no replica at all."""


class Mixtures:
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
        variants, sizes = sorted(accuracy, key=lambda v: (-accuracy[v], v)), sizes_of(alone)
        accuracies = np.array([accuracy[v] for v in variants])
        best = np.zeros((len(variants), len(least), len(sizes)))
        for c in alone:
            allowed, column = latency_ms >= c.latency_ms, sizes.index(c.cost)
            part = best[variants.index(c.variant)]
            part[allowed, column] = np.maximum(part[allowed, column], c.throughput_rps)
        base, self._rise = lower_line(slice_price(best, sizes), accuracies, least)
        self._possible = np.isfinite(base)
        self._base = np.where(self._possible, base, 0.0)
        self._needed: list[tuple[Array, RateCover]] = []
        self._known: dict[float, Array] = {}
        there = best.max(axis=2, initial=0.0) > 0
        for lowest in sorted(set(accuracy.values())):
            such = best[accuracies >= lowest].max(axis=0, initial=0.0)
            # The range holds for replicas of all variants together, which are the first entry. Later entries have a
            # part of the variants, of which there may be no replica.
            number = _NONE_OR_MORE if self._needed else replicas
            such, kind = np.unique(such, axis=0, return_inverse=True)
            cover = RateCover(such, kind.ravel(), sizes, most_carried(such, sizes, number), number)
            self._needed.append((_part(lowest, there, accuracies, least), cover))

    def slices(self, rate_rps: float) -> Array:
        """Returns, for each level, the fewest slices for at least one replica."""
        most = self._known.get(rate_rps)
        if most is None:
            most = self.others(rate_rps)
            for part, cover in self._needed:
                np.maximum(most, cover.slices(part * rate_rps), out=most)
            remember(self._known, rate_rps, most)
        return most

    def others(
        self,
        rate_rps: float,
        levels: Index | slice = EVERY,
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


def lower_line(price: Array, accuracies: Array, least: Array) -> tuple[Array, Array]:
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
