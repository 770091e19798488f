"""An accuracy with its confidence interval, from the scores of independent requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from jigsaw_triton.evaluation.accuracy.metrics import Score
from jigsaw_triton.runtime.dtypes import Array

CONFIDENCE = 0.95
"""Confidence level of intervals."""

_RESAMPLES, _BLOCK = 2000, 100
"""Number of resamples, and how many of them are computed at once: with 10,000 requests, these take 24 MB."""

_SEED = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated share.

    Attributes:
        value: Points of all requests over those of perfect answers.
        low: Lower end of the confidence interval.
        high: Upper end of the confidence interval.
        n: Number of requests.
    """

    value: float
    low: float
    high: float
    n: int


def estimate(scores: Sequence[Score]) -> Estimate:
    """Returns the share of points over all requests, with its interval at `CONFIDENCE`.

    Requests that are each right or wrong as a whole give Wilson's interval for a proportion. Otherwise requests are
    resampled (the percentile bootstrap), because the rows of one request are not independent. If all requests have the
    same share, resampling shows no spread, and Wilson's interval holds.

    Args:
        scores: Score of each request; at least one counts something.

    Raises:
        ValueError: No request counts anything.
    """
    points, of = np.array([s.points for s in scores], float), np.array([s.of for s in scores], float)
    if of.sum() <= 0:
        raise ValueError("no request has anything to count")
    value, counted = float(points.sum() / of.sum()), of > 0
    shares = points[counted] / of[counted]
    if np.ptp(shares) == 0 or (np.ptp(of[counted]) == 0 and np.isin(shares, (0, 1)).all()):
        low, high = wilson(value, int(counted.sum()))
    else:
        low, high = _bootstrap(points, of)
    return Estimate(value, min(low, value), max(high, value), len(scores))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Returns Wilson's interval of a proportion.

    Args:
        share: Observed proportion.
        n: Number of trials.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = min(1.0, max(0.0, share))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _bootstrap(points: Array, of: Array) -> tuple[float, float]:
    rng = np.random.default_rng(_SEED)
    blocks = (rng.integers(0, len(of), (_BLOCK, len(of))) for _ in range(_RESAMPLES // _BLOCK))
    totals = np.concatenate([np.column_stack((points[rows].sum(axis=1), of[rows].sum(axis=1))) for rows in blocks])
    shares = totals[totals[:, 1] > 0, 0] / totals[totals[:, 1] > 0, 1]
    low, high = np.quantile(shares, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)
