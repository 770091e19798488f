"""Distributions of service times and of numbers of rows, from which emulated models and the simulator draw."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Z95, Z99, MOST_Z = (NormalDist().inv_cdf(p) for p in (0.95, 0.99, 0.999))
"""Normal deviates of the profiled percentiles, and of the one beyond which a profile has no information."""


def factors(deviates: Array, p95: float, p99: float) -> Array:
    """Returns service times relative to their median.

    The logarithm of the factor is piecewise linear in the normal deviate: it passes through the profile's p50, p95 and
    p99; below the median its slope is that above it; beyond p99 its slope is that between p95 and p99; and it is
    constant from p99.9 on, because a profile has no information about that range.

    Args:
        deviates: Normal deviates.
        p95: 95th percentile of the factor, at least 1.
        p99: 99th percentile of the factor, at least `p95`.
    """
    below, beyond = math.log(p95) / Z95, (math.log(p99) - math.log(p95)) / (Z99 - Z95)
    z = np.minimum(deviates, MOST_Z)
    found: Array = np.exp(below * np.minimum(z, Z95) + beyond * np.maximum(z - Z95, 0.0))
    return found


def rows(means: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws numbers of rows from Poisson distributions.

    Args:
        means: Expected numbers of rows.
        rng: Source of randomness.
    """
    return rng.poisson(means)
