"""Bins of latency and of loss of accuracy, in which `planner.bounds.bounds` counts what a path may use."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.graph.model import TaskGraph

LOSS_BINS = range(1, 161)
"""Numbers of bins of loss to choose from: a graph's own losses are few, and mostly a small number tells them apart."""

LEAST_LOSS = 1e-9

ROUNDING = 1e-6
"""Part of a bin that may be missing to the next."""

_MOST_SUMS = 3_000
"""Of losses along paths that are looked at."""


def telling_apart(graph: TaskGraph, losses: Mapping[str, Collection[float]], allowed: float) -> tuple[float, int]:
    """Bins of loss of accuracy that tell what is allowed along a path from what is not.

    Args:
        graph: Whose.
        losses: Task -> those that its variants come to.
        allowed: The largest sum along a path.

    Returns:
        The largest sum that is allowed and that some choice of variants comes to: of less, what is beyond it is a
        larger part. And the number of bins of it: the first by which no losses, rounded down, seem to fit together that
        do not, or the one by which fewest do.
    """
    distinct = sorted({loss for of in losses.values() for loss in of})
    # How often each loss is there along a path.
    fitting: dict[str, set[tuple[int, ...]]] = {}
    beyond: set[tuple[int, ...]] = set()
    largest = 0.0
    for name in graph.tasks:
        fitting[name] = set()
        before = set().union(*(fitting[d] for d in graph.before(graph.tasks[name]))) or {(0,) * len(distinct)}
        for place in sorted({distinct.index(loss) for loss in losses[name]}):
            for counts in before:
                more = (*counts[:place], counts[place] + 1, *counts[place + 1 :])
                total = sum(n * loss for n, loss in zip(more, distinct, strict=True))
                if total <= allowed:
                    fitting[name].add(more)
                    largest = max(largest, total)
                else:
                    beyond.add(more)
        if len(fitting[name]) + len(beyond) > _MOST_SUMS:
            return allowed, LOSS_BINS[-1]
    budget = max(largest, LEAST_LOSS)
    if not beyond:
        return budget, 1
    counts_of = np.array(sorted(beyond))

    def seem_to_fit(bins: int) -> int:
        return int((counts_of @ rounded_down(np.array(distinct) / budget * bins, bins) <= bins).sum())

    return budget, min(LOSS_BINS, key=lambda bins: (seem_to_fit(bins), bins))


def rounded_down(values: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """To whole bins; what exceeds the budget by more than rounding ends up beyond the last bin."""
    bins: NDArray[np.int64] = np.minimum(np.floor(values + ROUNDING), most + 1).astype(np.int64)
    return bins
