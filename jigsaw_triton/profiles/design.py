"""Design of a sparse sweep: chooses the configurations that are most informative to measure."""

import math
from collections.abc import Collection, Sequence
from statistics import NormalDist

import numpy as np

from jigsaw_triton.profiles.estimation import DEVIATION, Estimate, Prior, Sample, estimate
from jigsaw_triton.profiles.latency_model import SHARES, Configuration, Points, log_latency

_OPTIMISTIC = 0.1
"""Quantile of the prediction that must be within the largest useful latency: a configuration that may be useful is not
left out."""


def next_configuration(
    candidates: Collection[Configuration],
    sample: Sample,
    *,
    failed: Collection[Configuration] = (),
    most_ms: float = math.inf,
) -> Configuration | None:
    """Returns the next configuration of a variant to measure; None if no useful one is left.

    The first is the smallest, since every plan can use it and it is measured soonest. The next ones are the most
    informative. This needs scipy for all but the first.

    Args:
        candidates: Configurations that can be measured.
        sample: Measurements of the variant.
        failed: Configurations that failed. Larger ones on the same kind of slice are left out too.
        most_ms: Largest useful latency, such as the SLO of the graph. Configurations that would exceed it if latency
            grew in proportion to the items come last. They are left out if they exceed it with a probability of 90%.
    """
    known = set(sample.configurations)
    left = [c for c in candidates if c not in known and not beyond(c, failed)]
    if not left or not known:
        return min(left, key=size, default=None)
    found = estimate(sample, Prior())
    logs, deviations = found.predict(left)
    quick = logs + NormalDist().inv_cdf(_OPTIMISTIC) * deviations <= math.log(most_ms)
    useful = [configuration for configuration, within in zip(left, quick, strict=True) if within]
    # After few points the model cannot predict how latency grows, and a large batch may take minutes.
    certain = [configuration for configuration in useful if _bound_ms(configuration, sample) <= most_ms]
    return most_informative(found, [*(certain or useful), *sample.configurations], known) if useful else None


def _bound_ms(configuration: Configuration, sample: Sample) -> float:
    """Returns the latency if it grows with the items in flight, from smaller configurations on no larger slices."""
    kind, instances, batch = configuration
    return min(
        (
            latency_ms * instances * batch / (i * b)
            for (k, i, b), latency_ms in zip(sample.configurations, sample.latency_ms, strict=True)
            if SHARES[k] <= SHARES[kind] and i <= instances and b <= batch
        ),
        default=0.0,
    )


def beyond(configuration: Configuration, failed: Collection[Configuration]) -> bool:
    """Returns True if a configuration is one that failed, or is larger than one on the same kind of slice."""
    kind, instances, batch = configuration
    return any(kind == k and instances >= i and batch >= b for k, i, b in failed)


def size(configuration: Configuration) -> tuple[int, ...]:
    """Returns a key that sorts configurations by the work of all instances together, and then by slice."""
    kind, instances, batch = configuration
    return instances * batch, *SHARES[kind], instances


def most_informative(
    estimate: Estimate, candidates: Sequence[Configuration], measured: Collection[Configuration] = ()
) -> Configuration:
    """Returns the configuration whose measurement reduces the mean variance of all predictions most.

    The mean is weighted by the predicted throughput per compute slice, because plans of few slices use configurations
    with a high one. This is one greedy step of an I-optimal design (Cohn, Ghahramani and Jordan, Active Learning with
    Statistical Models, 1996), for the model linearised at the estimate.

    Args:
        estimate: Present estimate of the variant; at first `estimate(Sample((), ()), prior)`.
        candidates: Configurations that can be measured, all of which matter for plans.
        measured: Configurations that have been measured.

    Raises:
        ValueError: All candidates have been measured.
    """
    points = Points.of(candidates, estimate.corrections)
    logs, derivatives = log_latency(estimate.parameters, points)
    slopes = derivatives[:, :-1]
    covariances = slopes @ estimate.covariance @ slopes.T
    throughputs = points.batch * points.instances / points.compute / np.exp(logs)
    gains = throughputs @ covariances**2 / (np.diag(covariances) + DEVIATION**2)
    open_gains = {
        candidate: gain for candidate, gain in zip(candidates, gains, strict=True) if candidate not in measured
    }
    return max(open_gains, key=lambda candidate: open_gains[candidate])
