"""The least cost of slices that cover a rate, if each size of slice has its best throughput.

The size of a slice is its cost: compute slices, if all count alike. Small costs are exact; larger ones follow from the
best throughput for each unit of cost. On mixed boards, where a slice may cost thousands of units, sizes are rounded
down to steps, so that the tables stay small; the result is a lower bound.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.problem import REPLICA_RANGES, ReplicaRange
from jigsaw_triton.planner.domain.tolerances import ROUNDING, TOLERANCE

Array = NDArray[np.float64]
Index = NDArray[np.int64]

EXACT_SLICES = 64
"""Largest cost of a task that is exact, in slices, or in steps of which the cheapest slice has `STEPS`. A convention
that limits time; see ADR 4 for its effect."""

STEPS = 4
"""Least number of steps in the cost of the cheapest slice, if that is no less. A convention: rounding a cost down to
steps then loses less than a quarter of it."""

_COUNTED = int(REPLICA_RANGES[-1][0])
"""Largest number of replicas that is exact: the start of the last replica range, beyond which the number is free."""

_MOST_RATES = 64
"""Number of rates whose slices a cover remembers. A convention; one solve asks for at most `forest.MOST_CALLS`."""

EVERY = slice(None)
"""Index of all levels."""


class RateCover:
    """The fewest slices that cover a rate. Levels with the same best throughputs are of one kind.

    Args:
        best: Best throughput of a replica, shape [kinds, sizes].
        kind: Level -> kind.
        sizes: Sizes of slices.
        carried: Result of `most_carried`.
        replicas: Range of the number of replicas.
    """

    def __init__(
        self, best: Array, kind: NDArray[np.int64], sizes: Sequence[int], carried: Array, replicas: ReplicaRange
    ) -> None:
        least, most = replicas
        self._kind = kind
        self._price = slice_price(best, sizes)
        self._step = step_of(sizes)
        self._fewest = least * _smallest(best, sizes) if least else np.zeros(len(best))
        self._greatest = most * best.max(axis=1, initial=0.0) if most < math.inf else np.full(len(best), math.inf)
        last = len(carried) - 1
        carried = carried[min(least, last) : int(most) + 1 if most <= last else None].max(axis=0)
        # The rates of all kinds are in one ascending array, so that one search finds the places of all.
        self._beyond = carried.max(initial=0.0) + 1
        self._shift = 2 * self._beyond * np.arange(len(best))
        self._place = (EXACT_SLICES + 1) * np.arange(len(best))
        self._most = (np.maximum(carried, -1.0) + self._shift[:, None]).ravel()

    def slices(self, rate_rps: float | Array, levels: NDArray[np.int64] | slice = EVERY) -> Array:
        """Returns the slices for all levels or for these; the rate is one for all or one for each."""
        # A solver's replicas may fall short of the rate by its tolerance.
        rate, kind = np.maximum(0.0, np.multiply(rate_rps, 1 - TOLERANCE)), self._kind[levels]
        places = np.searchsorted(self._most, np.minimum(rate, self._beyond) + self._shift[kind])
        exactly = places - self._place[kind]
        # The rate is kept above 0, because 0 times an infinite price would be NaN.
        by_price = np.ceil(np.maximum(rate, 1e-9) * self._price[kind] - ROUNDING)
        slices = np.where(exactly <= EXACT_SLICES, exactly * self._step, by_price)
        if self._step > 1:
            # Steps round costs down, so that either bound may be the greater one.
            slices = np.where(rate > 0, np.maximum(slices, by_price), slices)
        slices = np.maximum(slices, self._fewest[kind])
        return np.where(rate > self._greatest[kind], math.inf, slices)


def most_carried(best: Array, sizes: Sequence[int], replicas: ReplicaRange) -> Array:
    """Returns the largest throughput, shape [numbers of replicas, levels, steps of cost]; -inf if it is impossible.

    The last number of replicas also stands for all larger ones, unless it is the largest allowed. It is at most
    `_COUNTED`, and 0 if the range does not constrain small numbers.
    """
    least, most = replicas
    ends = most <= _COUNTED
    last = int(most) if ends else least if 1 < least <= _COUNTED else 0
    steps = [size // step_of(sizes) for size in sizes]
    # The cost is the first axis here, so that each iteration works on whole rows.
    carried = np.full((EXACT_SLICES + 1, last + 1, len(best)), -math.inf)
    carried[:, 0] = 0.0
    best_of = np.ascontiguousarray(best.T)
    for n in range(1, EXACT_SLICES + 1):
        np.maximum(carried[n], carried[n - 1], out=carried[n])
        for column, size in enumerate(steps):
            if size <= n:
                more = carried[n - size] + best_of[column]
                np.maximum(carried[n, 1:], more[:-1], out=carried[n, 1:])
                if not ends:
                    np.maximum(carried[n, -1], more[-1], out=carried[n, -1])
    by_replicas: Array = np.moveaxis(carried, 0, -1)
    return by_replicas


def remember(known: dict[float, Array], rate_rps: float, slices: Array) -> None:
    """Adds the slices for a rate to those of at most `_MOST_RATES`. Covers are used in several threads at once."""
    if len(known) >= _MOST_RATES:
        known.clear()
    known[rate_rps] = slices


def step_of(sizes: Sequence[int]) -> int:
    """Returns the cost of a step: one unit for slices that cost a few units."""
    return max(1, min(sizes) // STEPS)


def sizes_of(alone: Sequence[Configuration]) -> list[int]:
    """Returns the costs of the slices of configurations, in ascending order."""
    return sorted({c.cost for c in alone})


def slice_price(best: Array, sizes: Sequence[int]) -> Array:
    """Returns the least cost of a call a second; the last axis of `best` is that of the sizes."""
    with np.errstate(divide="ignore"):
        price: Array = (np.array(sizes) / best).min(axis=-1, initial=np.inf)
    return price


def _smallest(best: Array, sizes: Sequence[int]) -> Array:
    """Returns, for each level, the size of the smallest replica."""
    smallest: Array = np.where(best > 0, np.array(sizes), np.inf).min(axis=1, initial=np.inf)
    return smallest
