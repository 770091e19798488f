"""Estimates the parameters of the latency model from few measurements. This needs the optional scipy.

The parameters of a variant are estimated by maximum a posteriori. Deviations of the logarithm of the latency have the
soft L1 loss, so that a wrong row has little weight. The prior of the parameters is normal and shared by all variants of
a GPU model; empirical Bayes estimates it from the same measurements (Efron, Large-Scale Inference, 2010, chapter 1).
The covariance of the parameters is that of the Laplace approximation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from jigsaw_triton.errors import MissingDependencyError
from jigsaw_triton.profiles.latency_model import Array, Configuration, Points, log_latency, monotone

DEVIATION = 0.04
"""Standard deviation of the logarithm of a latency around the model, before outliers; about 4%."""

_MEAN = np.array((1.6, 0.5, -0.7, 0.0, 0.0, 0.5, -3.0, 1.4, -4.0))
_SD = np.array((2.0, 2.0, 1.0, 0.1, 0.2, 1.0, 1.0, 0.5, 1.0))
"""Mean and standard deviation of the parameters (`latency_model.NAMES`) over variants, before any measurement. Floor
and work are almost free: the floors of most models are between 0.1 and 250 ms. A batch's work is close to linear."""

_MEAN_SD = np.array((3.0, 3.0, 1.0, 0.1, 0.1, 1.0, 1.0, 0.5, 1.0))
"""Standard deviation of the mean itself."""

_SPREAD_ROWS = 3.0
"""Number of variants that the standard deviations before any measurement count for, each with half of `_SD`."""

_CORRECTION_SD = 0.05
"""Standard deviation of the corrections of the kinds of slices."""

Name = TypeVar("Name")

_ROUNDS = 12
_MOST_STEPS = 100
_TOLERANCE = 1e-4
"""Relative change of loss and parameters at which a search ends; far below what the measurements can tell."""


@dataclass(frozen=True)
class Prior:
    """Distribution of the parameters of the variants of one GPU model.

    Attributes:
        mean: Mean of each parameter.
        sd: Standard deviation of each parameter.
        corrections: Logarithm of the correction of each kind of slice.
    """

    mean: Array = field(default_factory=_MEAN.copy)
    sd: Array = field(default_factory=_SD.copy)
    corrections: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Sample:
    """Measurements of one variant.

    Attributes:
        configurations: Configurations that were measured.
        latency_ms: Median latency of a batch in each of them.
    """

    configurations: tuple[Configuration, ...]
    latency_ms: tuple[float, ...]

    def without(self, left_out: Sequence[int]) -> "Sample":
        """Returns the sample without the measurements with these indices."""
        kept = [index for index in range(len(self.configurations)) if index not in left_out]
        return Sample(
            tuple(self.configurations[index] for index in kept), tuple(self.latency_ms[index] for index in kept)
        )


@dataclass(frozen=True)
class Estimate:
    """Estimated parameters of a variant.

    Attributes:
        parameters: Parameters; see `log_latency`.
        covariance: Covariance of their errors.
        corrections: Logarithm of the correction of each kind of slice.
    """

    parameters: Array
    covariance: Array
    corrections: Mapping[str, float]

    def predict(self, configurations: Sequence[Configuration]) -> tuple[Array, Array]:
        """Returns the logarithm of the latency in milliseconds in each configuration, and its standard deviation."""
        logs, derivatives = log_latency(monotone(self.parameters), Points.of(configurations, self.corrections))
        slopes = derivatives[:, :-1]
        variance = np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes)
        return logs, np.sqrt(variance + DEVIATION**2)


def estimate(sample: Sample, prior: Prior, start: Array | None = None) -> Estimate:
    """Estimates the parameters of a variant.

    Args:
        sample: Measurements of the variant; there may be none.
        prior: Prior of the parameters.
        start: Parameters that the search starts from; the prior's mean by default.

    Raises:
        MissingDependencyError: Scipy is not installed.
    """
    points = Points.of(sample.configurations, prior.corrections)
    wanted = np.log(np.array(sample.latency_ms, dtype=float))
    count = len(wanted)

    def residuals(parameters: Array) -> Array:
        return np.concatenate(
            ((log_latency(parameters, points)[0] - wanted) / DEVIATION, (parameters - prior.mean) / prior.sd)
        )

    def slopes(parameters: Array) -> Array:
        return np.concatenate((log_latency(parameters, points)[1][:, :-1] / DEVIATION, np.diag(1 / prior.sd)))

    def loss(squares: Array) -> Array:
        """Returns the loss and its first two derivatives: soft L1 for measurements, and quadratic for the prior."""
        root = np.sqrt(1 + squares[:count])
        measured = np.stack((2 * (root - 1), 1 / root, -0.5 / root**3))
        quadratic = squares[count:]
        return np.concatenate(
            (measured, np.stack((quadratic, np.ones_like(quadratic), np.zeros_like(quadratic)))), axis=1
        )

    found = _optimize().least_squares(
        residuals,
        prior.mean if start is None else start,
        jac=slopes,
        loss=loss,
        x_scale=prior.sd,
        max_nfev=_MOST_STEPS,
        ftol=_TOLERANCE,
        xtol=_TOLERANCE,
        gtol=_TOLERANCE,
    )
    jacobian = slopes(found.x)
    weights = np.concatenate((_weights(residuals(found.x)[:count]), np.ones(len(prior.mean))))
    covariance = np.linalg.inv(jacobian.T @ (weights[:, None] * jacobian))
    return Estimate(found.x, covariance, prior.corrections)


def pooled(samples: Mapping[Name, Sample]) -> dict[Name, Estimate]:
    """Estimates the variants of one GPU model together, with the prior that fits them.

    Args:
        samples: Measurements by name of the variant; each has at least one.

    Raises:
        MissingDependencyError: Scipy is not installed.
    """
    prior = Prior()
    found = {name: estimate(sample, prior) for name, sample in samples.items()}
    for _ in range(_ROUNDS):
        prior = _updated(prior, samples, found)
        found = {name: estimate(sample, prior, found[name].parameters) for name, sample in samples.items()}
    return found


def _updated(prior: Prior, samples: Mapping[Name, Sample], found: Mapping[Name, Estimate]) -> Prior:
    """Returns the prior after one step of expectation and maximisation."""
    parameters = np.array([one.parameters for one in found.values()])
    variances = np.array([np.diag(one.covariance) for one in found.values()])
    count = len(parameters)
    precision = count / prior.sd**2 + 1 / _MEAN_SD**2
    mean = (parameters.sum(axis=0) / prior.sd**2 + _MEAN / _MEAN_SD**2) / precision
    squares = ((parameters - mean) ** 2 + variances).sum(axis=0)
    sd = np.sqrt((squares + _SPREAD_ROWS * (_SD / 2) ** 2) / (count + _SPREAD_ROWS))
    return Prior(mean, sd, _corrections(prior, samples, found))


def _corrections(prior: Prior, samples: Mapping[Name, Sample], found: Mapping[Name, Estimate]) -> dict[str, float]:
    """Returns the correction of each kind of slice: a weighted mean of the deviations of all variants on it."""
    above: dict[str, float] = {}
    below: dict[str, float] = {}
    for name, sample in samples.items():
        points = Points.of(sample.configurations, prior.corrections)
        logs, derivatives = log_latency(found[name].parameters, points)
        deviations = np.log(np.array(sample.latency_ms)) - logs
        slopes = derivatives[:, -1]
        weights = _weights(deviations / DEVIATION)
        for (kind, _, _), deviation, slope, weight in zip(
            sample.configurations, deviations, slopes, weights, strict=True
        ):
            known = prior.corrections.get(kind, 0.0)
            above[kind] = above.get(kind, 0.0) + weight * slope * (deviation + slope * known)
            below[kind] = below.get(kind, 0.0) + weight * slope**2
    least = (DEVIATION / _CORRECTION_SD) ** 2
    return {kind: float(above[kind] / (below[kind] + least)) for kind in above}


def _weights(deviations: Array) -> Array:
    """Returns the weight of each measurement under the soft L1 loss."""
    weights: Array = 1 / np.sqrt(1 + deviations**2)
    return weights


def _optimize() -> Any:
    try:
        return import_module("scipy.optimize")
    except ImportError as error:
        raise MissingDependencyError(
            "scipy is needed to fit profiles, but not installed", hint="pip install 'jigsaw-triton[fit]'"
        ) from error
