"""Streams of requests: seconds at which they arrive, ascending."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def poisson(rate_rps: float, count: int, rng: np.random.Generator) -> Array:
    """A Poisson process.

    Args:
        rate_rps: Requests a second.
        count: How many requests.
        rng: Source of randomness.
    """
    arrivals: Array = np.cumsum(rng.exponential(1 / rate_rps, count))
    return arrivals


def bursty(
    rate_rps: float,
    count: int,
    rng: np.random.Generator,
    *,
    peak: float = 3.0,
    share: float = 0.1,
    burst_s: float = 1.0,
) -> Array:
    """A Markov-modulated Poisson process of two states: bursts, and quiet between them.

    Args:
        rate_rps: Requests a second on average.
        count: How many requests.
        rng: Source of randomness.
        peak: Rate in a burst over the average, at least 1 and at most 1 / share.
        share: Of the time that is in bursts, in (0, 1).
        burst_s: Mean length of a burst.
    """
    quiet = (1 - peak * share) / (1 - share)
    periods = 16 + int(2 * count / (rate_rps * burst_s / share))
    lengths_s, work = np.empty(0), np.empty(0)
    while work.sum() < 2 * count:
        more = rng.exponential(np.tile([burst_s * (1 - share) / share, burst_s], periods))
        lengths_s = np.append(lengths_s, more)
        work = np.append(work, more * rate_rps * np.tile([quiet, peak], periods))
    # A Poisson process of rate 1 in the integral of the rate, carried back to time.
    mass = np.cumsum(rng.exponential(1.0, count))
    arrivals: Array = np.interp(mass, np.append(0.0, np.cumsum(work)), np.append(0.0, np.cumsum(lengths_s)))
    return arrivals
