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


def bursty(
    rate_rps: float,
    count: int,
    rng: np.random.Generator,
    *,
    peak: float = 3.0,
    share: float = 0.1,
    burst_s: float = 1.0,
) -> Array:
    """Returns the arrival times of a Markov-modulated Poisson process with two states: bursts and quiet periods.

    Args:
        rate_rps: Mean number of requests per second.
        count: Number of requests.
        rng: Source of randomness.
        peak: Ratio of the rate in a burst to the mean rate, from 1 to 1 / share.
        share: Share of time spent in bursts, in (0, 1).
        burst_s: Mean duration of a burst in seconds.
    """
    quiet = (1 - peak * share) / (1 - share)
    periods = 16 + int(2 * count / (rate_rps * burst_s / share))
    lengths_s, work = np.empty(0), np.empty(0)
    while work.sum() < 2 * count:
        more = rng.exponential(np.tile([burst_s * (1 - share) / share, burst_s], periods))
        lengths_s = np.append(lengths_s, more)
        work = np.append(work, more * rate_rps * np.tile([quiet, peak], periods))
    # A Poisson process of rate 1 in the integral of the rate is mapped back to time.
    mass = np.cumsum(rng.exponential(1.0, count))
    arrivals: Array = np.interp(mass, np.append(0.0, np.cumsum(work)), np.append(0.0, np.cumsum(lengths_s)))
    return arrivals
