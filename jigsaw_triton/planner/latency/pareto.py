"""Which of many configurations dominate others, told for all at once."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Rivals:
    """Points of a throughput, of which the one with less latency is better, where it has at least the throughput.

    Args:
        place: Number of each point's place: only points of one place are rivals.
        rps: Throughput of each point.
    """

    def __init__(self, place: Array, rps: Array) -> None:
        self._place, self._rps = place, rps

    def best(self, ms: Array) -> Array:
        """Whether each is dominated by none; of equals the first one is. Infinite latencies are as good as none."""
        order, (own,) = self._in_order(ms)
        found = np.zeros(len(order), dtype=bool)
        found[order] = own < np.concatenate([[math.inf], np.minimum.accumulate(own)[:-1]])
        result: Array = found & np.isfinite(ms)
        return result

    def beaten(self, bound: Array, ms: Array) -> Array:
        """Whether each would be dominated even if it took no longer than its bound, or has an infinite one.

        Args:
            bound: Latency that each takes at least.
            ms: Latency of each; infinite where it is not known.
        """
        order, (own, bounds) = self._in_order(ms, bound)
        found = np.zeros(len(order), dtype=bool)
        found[order] = np.minimum.accumulate(own) <= bounds
        result: Array = found | ~np.isfinite(bound)
        return result

    def _in_order(self, *ms: Array) -> tuple[Array, list[Array]]:
        """Place by place, by falling throughput, then by the first of these latencies.

        Returns:
            The order, and the latencies in it, shifted so that each place's are below all of those before.
        """
        order = np.lexsort((ms[0], -self._rps, self._place))
        beyond = 1 + max(of[np.isfinite(of)].max(initial=0.0) for of in ms)
        return order, [(np.minimum(of, beyond) - 2 * beyond * self._place)[order] for of in ms]
