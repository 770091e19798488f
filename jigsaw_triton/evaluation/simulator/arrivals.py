"""Arrival processes, which return the arrival times of requests in seconds, ascending."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def poisson(rate_rps: float, count: int, rng: np.random.Generator) -> Array:
    """Returns the arrival times of a Poisson process.

    Args:
        rate_rps: Requests per second.
        count: Number of requests.
        rng: Source of randomness.
    """
    arrivals: Array = np.cumsum(rng.exponential(1 / rate_rps, count))
    return arrivals
