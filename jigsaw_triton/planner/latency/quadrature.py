"""Quadrature points and weights for uniform and normal variables, and quantiles of other distributions."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def middles(count: int) -> Array:
    """Returns the midpoints of `count` equal parts of (0, 1)."""
    return (np.arange(count) + 0.5) / count


def hermite(count: int) -> tuple[Array, Array]:
    """Returns points and weights of Gauss-Hermite quadrature for a normal variable (Golub and Welsch)."""
    off_diagonal = np.sqrt(np.arange(1, count))
    points, vectors = np.linalg.eigh(np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1))
    return points, vectors[0] ** 2


def tail(count: int) -> tuple[Array, Array]:
    """Returns points and weights for a normal variable whose upper tail matters; intervals get finer towards it."""
    edges = np.concatenate([[1.0], np.geomspace(0.7, 0.0015, count - 1), [0.0]])
    middles = (edges[1:] + edges[:-1]) / 2
    return np.array([NormalDist().inv_cdf(1 - p) for p in middles.tolist()]), edges[:-1] - edges[1:]


def halves(count: int, each: int) -> tuple[Array, Array]:
    """Returns points of a normal variable whose upper tail matters, shape [each, count], and weights of the columns.

    Args:
        count: Number of levels, each of which is the upper half of the one before.
        each: Number of points of equal weight in each level.
    """
    edges = np.append(2.0 ** -np.arange(count), 0.0)
    weights = edges[:-1] - edges[1:]
    beyond = edges[1:] + middles(each)[:, None] * weights
    return np.array([NormalDist().inv_cdf(1 - p) for p in beyond.ravel().tolist()]).reshape(beyond.shape), weights


def cdf(deviates: Array) -> Array:
    """Returns the normal distribution function at these deviates."""
    return np.array(list(map(math.erfc, (deviates / -math.sqrt(2)).tolist()))) / 2


def gamma_quantiles(mean: Array, variance: Array, deviates: Array) -> Array:
    """Returns quantiles of a gamma variable at normal deviates, after Wilson and Hilferty."""
    shape = np.maximum(mean**2 / variance, 0.1)
    roots: Array = np.maximum(0.0, 1 - 1 / (9 * shape) + deviates / (3 * np.sqrt(shape)))
    quantiles: Array = mean * roots**3
    return quantiles


def poisson_quantiles(mean: Array, deviates: Array, out: Array) -> Array:
    """Returns quantiles of a Poisson variable at normal deviates, after Anscombe; -1 if both are low.

    The -1 is kept, because with 0 the predicted latencies exceed simulated ones by more.
    """
    np.add(np.sqrt(mean + 0.375), deviates / 2, out=out)
    np.square(out, out=out)
    out -= 0.3749  # 3/8, less the error of single precision
    return np.floor(out, out=out)


def never_above(drift: Array) -> Array:
    """Returns the probability that a Gaussian random walk with this downward drift never rises above 0.

    After Chang and Peres (1997), as cited in `planner.latency.queueing`.

    Args:
        drift: Drift of a step in standard deviations.
    """
    exponent = drift * (-1.4603545 + 0.0346477 * drift**2) / math.sqrt(2 * math.pi)
    never: Array = math.sqrt(2) * drift * np.exp(exponent)
    return never
