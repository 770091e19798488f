"""Pareto fronts of many points at once: more throughput, less latency."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class ParetoFilter:
    """(throughput, latency) points, reduced to the Pareto front of each group.

    Args:
        group: Number of each point's group, shape [points]. Points of different groups do not compare.
        rps: Throughput of each point in requests a second, shape [points].
    """

    def __init__(self, group: Array, rps: Array) -> None:
        self._group, self._rps = group, rps

    def front(self, ms: Array) -> Array:
        """Returns a mask of the points that no other point of their group dominates, shape [points].

        Of equal points the first one is on the front. A point with infinite latency never is.

        Args:
            ms: Latency of each point in milliseconds.
        """
        order, (own,) = self._in_order(ms)
        found = np.zeros(len(order), dtype=bool)
        found[order] = own < np.concatenate([[math.inf], np.minimum.accumulate(own)[:-1]])
        result: Array = found & np.isfinite(ms)
        return result

    def dominated(self, bound: Array, ms: Array) -> Array:
        """Returns a mask of the points that are dominated even if their latency is as low as its bound, shape [points].

        A point with an infinite bound counts as dominated.

        Args:
            bound: Lower bound on the latency of each point in milliseconds.
            ms: Latency of each point in milliseconds; infinite where it is not known yet.
        """
        order, (own, bounds) = self._in_order(ms, bound)
        found = np.zeros(len(order), dtype=bool)
        found[order] = np.minimum.accumulate(own) <= bounds
        result: Array = found | ~np.isfinite(bound)
        return result

    def _in_order(self, *ms: Array) -> tuple[Array, list[Array]]:
        """Sorts points by group, then by falling throughput, then by the first of these latencies.

        Returns:
            The order, and the latencies in this order, shifted so that those of each group are below those of all
            earlier groups. A running minimum over all points is then one within each group.
        """
        order = np.lexsort((ms[0], -self._rps, self._group))
        beyond = 1 + max(values[np.isfinite(values)].max(initial=0.0) for values in ms)
        return order, [(np.minimum(values, beyond) - 2 * beyond * self._group)[order] for values in ms]
