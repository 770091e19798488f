"""Results of measuring the accuracies of variants."""

from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.evaluation.accuracy.estimate import Estimate
from jigsaw_triton.evaluation.accuracy.running import Failure
from jigsaw_triton.graph.measured import Measured

AGREEMENT = "agreement"
"""Name of the share of calls that a variant answers like the best one. It is no accuracy."""


@dataclass(frozen=True, slots=True)
class Result:
    """Measured accuracy, or agreement.

    Attributes:
        variants: Task -> its variant: one task, or several that were measured together, end to end.
        metric: Name of the metric; `AGREEMENT` if there are no labels.
        data: Name of the labelled set.
        estimate: The figure with its confidence interval.
        best: Variant whose answers are the reference of an agreement; empty for an accuracy.
    """

    variants: Mapping[str, str]
    metric: str
    data: str
    estimate: Estimate
    best: str = ""

    @property
    def name(self) -> str:
        """Tasks and variants as messages name them."""
        return _named(self.variants)

    @property
    def measured(self) -> Measured:
        """Description of the measurement, with rounded figures. Like an accuracy, its interval is not below 0."""
        low, high = max(0.0, round(self.estimate.low, 4)), round(self.estimate.high, 4)
        return Measured(self.metric, self.data, self.estimate.n, low, high)

    @property
    def value(self) -> float:
        """The rounded figure."""
        return round(self.estimate.value, 4)


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Variant, or combination of variants, whose accuracy could not be measured.

    Attributes:
        variants: Task -> its variant.
        failure: Reason.
    """

    variants: Mapping[str, str]
    failure: Failure

    @property
    def name(self) -> str:
        """Tasks and variants as messages name them."""
        return _named(self.variants)


def _named(variants: Mapping[str, str]) -> str:
    return ", ".join(f"{task} {variant}" for task, variant in variants.items())
