"""Model of the time of a batch with two parts: launching operators, and computing.

Several instances of a model in a slice overlap the launch time of one with the compute time of another, but share the
slice's multiprocessors. The model is a closed queueing network with one customer for each instance: launching is a
delay, and computing is a server that they share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 20
"""Rounds of weighted least squares; a convention."""

_SMALLEST_ERROR = 1e-3
"""Relative error below which a row weighs no more; a convention."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Time that a batch of a model takes.

    Attributes:
        launch_s: Launch time of a batch in seconds, in which the processor launches operators and the slice does not
            compute for this instance. It depends on neither batch nor slice.
        item_s: Compute time of an item on one multiprocessor, in seconds.
    """

    launch_s: float
    item_s: float

    def batch_s(self, batch: int, instances: int, sm: int) -> float:
        """Returns the mean time of a batch while all instances are busy, by mean value analysis.

        Args:
            batch: Batch size.
            instances: Number of instances in the slice.
            sm: Number of multiprocessors of the slice.
        """
        compute_s = batch * self.item_s / sm
        computing_s, waiting = 0.0, 0.0
        for number in range(1, instances + 1):
            # Arrival theorem of mean value analysis: an arriving instance sees the others as they are without it.
            computing_s = compute_s * (1 + waiting)
            waiting = number * computing_s / (self.launch_s + computing_s)
        return self.launch_s + computing_s

    @classmethod
    def fitted(cls, rows: Sequence[tuple[float, float]]) -> Self:
        """Returns the cost that explains the times of one instance, by least absolute relative error.

        Args:
            rows: (Batch size over multiprocessors, seconds of a batch), at least one.
        """
        items, seconds = np.array(rows).T
        parts = np.stack([1 / seconds, items / seconds], axis=-1)
        found = _least(parts)
        if found.min() < 0:
            # A negative part has no meaning, so the better of the two fits with one part is used.
            alone = [_least(parts[:, [part]])[0] * np.eye(2)[part] for part in range(2)]
            found = min(alone, key=lambda one: float(np.abs(parts @ one - 1).sum()))
        return cls(float(found[0]), float(found[1]))


def _least(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns factors with which the columns add up to about 1 in every row."""
    weights = np.ones(len(parts))
    solution: NDArray[np.float64] = np.zeros(parts.shape[1])
    for _ in range(_ROUNDS):
        # Weighted least squares with the inverse of the last errors as weights approaches least absolute errors.
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(parts * root[:, None], root, rcond=None)[0]
        weights = 1 / np.maximum(_SMALLEST_ERROR, np.abs(parts @ solution - 1))
    return solution
