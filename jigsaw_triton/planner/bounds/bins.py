"""Bins of latency and accuracy loss, in which `planner.bounds.bounds` measures the budget of a path."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, ROUNDING

LOSS_BINS = range(1, 161)
"""Candidate numbers of bins of loss. A convention: a graph has few distinct losses, and a small number of bins usually
separates them."""

_MOST_SUMS = 3_000
"""Largest number of distinct sums of losses along paths that is examined. A convention that limits planning time."""


def choose_loss_bins(graph: TaskGraph, losses: Mapping[str, Collection[float]], allowed: float) -> tuple[float, int]:
    """Chooses bins of accuracy loss that separate the allowed sums along a path from the others.

    Args:
        graph: Graph of the tasks.
        losses: Task -> losses of its variants.
        allowed: Largest allowed sum along a path.

    Returns:
        The budget, which is the largest allowed sum that some choice of variants reaches: relative to a smaller budget,
        larger sums exceed it by more. And the number of bins of the budget: the smallest number with which no excessive
        sum seems to fit when losses are rounded down, or else the one with which the fewest do.
    """
    distinct = sorted({loss for own in losses.values() for loss in own})
    # A sum is represented by how often each distinct loss occurs along the path.
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
    # Losses are divided by the budget.
    budget = max(largest, FLOAT_ERROR)
    if not beyond:
        return budget, 1
    counts_of = np.array(sorted(beyond))

    def seem_to_fit(bins: int) -> int:
        return int((counts_of @ rounded_down(np.array(distinct) / budget * bins, bins) <= bins).sum())

    return budget, min(LOSS_BINS, key=lambda bins: (seem_to_fit(bins), bins))


def rounded_down(values: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Rounds down to whole bins; values that exceed the budget by more than `ROUNDING` go beyond the last bin."""
    bins: NDArray[np.int64] = np.minimum(np.floor(values + ROUNDING), most + 1).astype(np.int64)
    return bins
