"""Fits the latency model to a table of profiles, with the error of its predictions."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from jigsaw_triton.profiles.estimation import DEVIATION, Estimate, Sample, pooled
from jigsaw_triton.profiles.latency_model import Array, Configuration
from jigsaw_triton.profiles.processes import kinds
from jigsaw_triton.profiles.table import MEASURED, Processes, ProfileRow, Source

LEAST_ROWS = 4
"""Smallest number of rows from which a variant is fitted: fewer cannot separate its floor from its work."""

FOLDS = 6
"""Largest number of parts into which the rows are divided for cross-validation. Each part needs a fit of the others."""

INTERVAL = 0.9
"""Probability of the interval whose width is calibrated."""

FAR = math.sqrt(2) * DEVIATION
"""Stated standard deviation from which the error of the parameters outweighs the deviation of rows from the model."""

_LEAST_CALIBRATION = 20
_DEFAULT_FACTOR = 2.0
"""Least factor of the standard deviations if fewer than `_LEAST_CALIBRATION` rows can calibrate it. On the public A100
table, the calibrated factors are about 1.1 and 1.3."""

VariantName = tuple[str, str]
"""Task and variant."""


@dataclass(frozen=True)
class VariantFit:
    """Fit of one variant on one GPU model.

    Attributes:
        rows: Number of rows that it was fitted to.
        estimate: Estimated parameters.
        deviations: Logarithm of measured over predicted latency, of each row, predicted without that row's fold.
        expected: Standard deviation that the prediction stated for each of them.
    """

    rows: int
    estimate: Estimate
    deviations: tuple[float, ...]
    expected: tuple[float, ...]

    @property
    def median_error(self) -> float:
        """Median of the relative errors of the latency in cross-validation."""
        return float(np.median(self._errors))

    @property
    def p95_error(self) -> float:
        """95th percentile of the relative errors of the latency in cross-validation."""
        return float(np.quantile(self._errors, 0.95))

    @property
    def _errors(self) -> Array:
        errors: Array = np.abs(np.expm1(-np.array(self.deviations)))
        return errors


@dataclass(frozen=True)
class Calibration:
    """Factors of stated standard deviations with which `INTERVAL` of the rows in cross-validation are within.

    The rows that are measured are the most informative ones. Most of them are therefore harder to predict than those
    that they are measured for, and one factor for all would make the intervals of these too wide. So there are two, as
    in Mondrian conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005, chapter 4).

    Attributes:
        near: Factor for predictions whose stated standard deviation is at most `FAR`.
        far: Factor for the others, which are of configurations unlike those that the parameters were estimated from.
    """

    near: float
    far: float

    def __call__(self, sds: Array) -> Array:
        """Returns the calibrated standard deviations of predictions that state these."""
        found: Array = np.where(sds > FAR, self.far, self.near) * sds
        return found


@dataclass(frozen=True)
class LatencyFit:
    """Fitted latency of the variants on one GPU model.

    Attributes:
        variants: Fit by task and variant.
        calibrated: Function of the standard deviations that estimates state.
        processes: Kind of the instances that it was fitted to; None if no row says its kind.
    """

    variants: Mapping[VariantName, VariantFit]
    calibrated: Calibration
    processes: Processes | None = None

    def covers(self, row: ProfileRow) -> bool:
        """Returns True if a row of this GPU model has instances of the kind that was fitted."""
        return self.processes is None or row.holds_for(self.processes)

    def deviations(self, variant: VariantName, configurations: Sequence[Configuration]) -> Array:
        """Returns the relative standard deviation of the prediction in each configuration."""
        return self.calibrated(self.variants[variant].estimate.predict(configurations)[1])

    def predict(self, variant: VariantName, configurations: Sequence[Configuration], *, quantile: float = 0.5) -> Array:
        """Returns a quantile of the median latency in each configuration, in milliseconds.

        It is at least that of each other given configuration on the same kind of slice with no more instances and no
        larger batch. The model itself promises this for the quantile 0.5 alone.

        Args:
            variant: Task and variant.
            configurations: Configurations, measured or not.
            quantile: Probability, in (0, 1), that the latency is at most the result.
        """
        logs, sds = self.variants[variant].estimate.predict(configurations)
        return _ascending(configurations, np.exp(logs + NormalDist().inv_cdf(quantile) * self.calibrated(sds)))


def _ascending(configurations: Sequence[Configuration], latencies_ms: Array) -> Array:
    """Returns the largest latency of each configuration and those on its slice that cannot be slower."""
    kinds = np.array([kind for kind, _, _ in configurations])
    sizes = np.array([size for _, *size in configurations]).reshape(-1, 2)
    found = latencies_ms.copy()
    for kind in set(kinds.tolist()):
        (same,) = np.nonzero(kinds == kind)
        for index in same:
            below = same[(sizes[same] <= sizes[index]).all(axis=1)]
            found[index] = latencies_ms[below].max()
    return found


def fit_latency(
    rows: Iterable[ProfileRow], sources: Collection[Source] = MEASURED, processes: Processes | None = None
) -> dict[str, LatencyFit]:
    """Fits the latency model to rows whose instances are of one kind.

    Args:
        rows: Rows of a table. Variants with fewer than `LEAST_ROWS` rows of these sources and kind are left out.
        sources: Sources of the rows that the model is fitted to.
        processes: Kind of the instances; by default the one that most rows of a GPU model have.

    Returns:
        Fits by GPU model. GPU models without a variant that can be fitted are left out.

    Raises:
        MissingDependencyError: Scipy is not installed.
    """
    known: dict[str, list[ProfileRow]] = {}
    for row in rows:
        if row.source in sources:
            known.setdefault(row.key.gpu, []).append(row)
    fits = {}
    for gpu, found in known.items():
        kind = processes or next(iter(kinds(found)), None)
        variants: dict[VariantName, list[ProfileRow]] = {}
        for row in found:
            if kind is None or row.holds_for(kind):
                variants.setdefault((row.key.task, row.key.variant), []).append(row)
        samples = {name: _sample(its_rows) for name, its_rows in variants.items() if len(its_rows) >= LEAST_ROWS}
        if samples:
            fits[gpu] = replace(_fitted(samples), processes=kind)
    return fits


def _sample(rows: Sequence[ProfileRow]) -> Sample:
    return Sample(
        tuple((row.key.slice, row.key.instances, row.key.batch) for row in rows),
        tuple(row.latency_p50_ms for row in rows),
    )


def _fitted(samples: Mapping[VariantName, Sample]) -> LatencyFit:
    variants = _validated(samples, pooled(samples))
    deviations, expected = (
        np.concatenate([getattr(one, name) for one in variants.values()]) for name in ("deviations", "expected")
    )
    return LatencyFit(variants, calibration(np.abs(deviations) / expected, expected))


def calibration(ratios: Array, expected: Array) -> Calibration:
    """Returns the factors with which `INTERVAL` of the rows in each group are within.

    A group of fewer than `_LEAST_CALIBRATION` rows gets the factor of all rows.

    Args:
        ratios: Absolute deviation of each row, in units of its expected standard deviation.
        expected: Standard deviation of the logarithm of the latency that the prediction of each row stated.
    """
    together = _factor(ratios)
    if len(ratios) < _LEAST_CALIBRATION:
        together = max(together, _DEFAULT_FACTOR)
    far = expected > FAR
    near, beyond = (
        _factor(group) if len(group) >= _LEAST_CALIBRATION else together for group in (ratios[~far], ratios[far])
    )
    return Calibration(near, beyond)


def _factor(ratios: Array) -> float:
    # The quantile of split conformal prediction (Lei et al., 2018), which allows for the size of the sample.
    share = min(1.0, INTERVAL * (1 + 1 / len(ratios)))
    return float(np.quantile(ratios, share)) / NormalDist().inv_cdf((1 + INTERVAL) / 2)


def _validated(
    samples: Mapping[VariantName, Sample], estimates: Mapping[VariantName, Estimate]
) -> dict[VariantName, VariantFit]:
    """Predicts each row from a fit without its fold, whose prior does not know the fold either.

    A fold has rows of all variants, so that there are few fits. The folds of the variants are shifted against each
    other: otherwise a fold would leave out the same configuration of variants that were measured alike.
    """
    folds = min(FOLDS, max(len(sample.configurations) for sample in samples.values()))
    found = {name: np.empty((2, len(sample.configurations))) for name, sample in samples.items()}
    for fold in range(folds):
        left_out = {
            name: range((fold + shift) % folds, len(sample.configurations), folds)
            for shift, (name, sample) in enumerate(samples.items())
        }
        without = pooled({name: sample.without(left_out[name]) for name, sample in samples.items()})
        for name, sample in samples.items():
            for index in left_out[name]:
                (log,), (sd,) = without[name].predict([sample.configurations[index]])
                found[name][:, index] = np.log(sample.latency_ms[index]) - log, sd
    return {
        name: VariantFit(len(deviations), estimates[name], tuple(deviations.tolist()), tuple(expected.tolist()))
        for name, (deviations, expected) in found.items()
    }
