"""Design of a sparse sweep: chooses the configurations that are most informative to measure."""

from collections.abc import Collection, Sequence

import numpy as np

from jigsaw_triton.profiles.estimation import DEVIATION, Estimate
from jigsaw_triton.profiles.latency_model import Configuration, Points, log_latency


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
