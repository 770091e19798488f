"""Points and weights that means over uniform and normal variables are sums of, and quantiles of other distributions."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def middles(count: int) -> Array:
    """Of as many equal parts of (0, 1)."""
    return (np.arange(count) + 0.5) / count


def hermite(count: int) -> tuple[Array, Array]:
    """Points and weights of the Gauss-Hermite quadrature for a normal variable (Golub and Welsch)."""
    beside = np.sqrt(np.arange(1, count))
    points, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    return points, vectors[0] ** 2


def tail(count: int) -> tuple[Array, Array]:
    """Points and weights for a normal variable of which the upper end matters: each goes on where the last has left."""
    edges = np.concatenate([[1.0], np.geomspace(0.7, 0.0015, count - 1), [0.0]])
    middles = (edges[1:] + edges[:-1]) / 2
    return np.array([NormalDist().inv_cdf(1 - p) for p in middles.tolist()]), edges[:-1] - edges[1:]


def halves(count: int, each: int) -> tuple[Array, Array]:
    """Points of a normal variable of which the upper end matters, and weights of the columns.

    Args:
        count: Of levels, each the upper half of the last: the columns.
        each: Points of one weight in each level: the rows.
    """
    edges = np.append(2.0 ** -np.arange(count), 0.0)
    weights = edges[:-1] - edges[1:]
    beyond = edges[1:] + middles(each)[:, None] * weights
    return np.array([NormalDist().inv_cdf(1 - p) for p in beyond.ravel().tolist()]).reshape(beyond.shape), weights


def cdf(deviates: Array) -> Array:
    """The normal distribution function."""
    return np.array(list(map(math.erfc, (deviates / -math.sqrt(2)).tolist()))) / 2


def gamma_quantiles(mean: Array, variance: Array, deviates: Array) -> Array:
    """Quantiles of a gamma variable at normal deviates, after Wilson and Hilferty."""
    shape = np.maximum(mean**2 / variance, 0.1)
    roots: Array = np.maximum(0.0, 1 - 1 / (9 * shape) + deviates / (3 * np.sqrt(shape)))
    quantiles: Array = mean * roots**3
    return quantiles


def poisson_quantiles(mean: Array, deviates: Array, out: Array) -> Array:
    """Quantiles of a Poisson variable at normal deviates, after Anscombe; -1 where both are low.

    They are left at that: with 0 there, latencies come out further above simulated ones.
    """
    np.add(np.sqrt(mean + 0.375), deviates / 2, out=out)
    np.square(out, out=out)
    out -= 0.3749  # 3/8, but for what single precision may be off by
    return np.floor(out, out=out)


def never_above(drift: Array) -> Array:
    """The probability that a Gaussian walk that drifts downwards, by so many deviations a step, never rises above 0."""
    exponent = drift * (-1.4603545 + 0.0346477 * drift**2) / math.sqrt(2 * math.pi)
    never: Array = math.sqrt(2) * drift * np.exp(exponent)
    return never
