"""Accuracies of a graph: its labelled set, measurements, and combinations of variants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

METRICS = ("exact", "top1", "f1", "edit")
"""Metrics that need no code of the user's own."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurement that an accuracy comes from.

    Attributes:
        metric: Name of the metric.
        data: Path of the labelled set as written in graph.yaml.
        n: Number of labelled requests.
        low: Lower end of the 95% confidence interval of the accuracy.
        high: Upper end of that interval.
    """

    metric: str
    data: str
    n: int
    low: float
    high: float

    @property
    def how(self) -> tuple[str, str, int]:
        """Metric, labelled set and number of requests: what figures must share to be comparable."""
        return self.metric, self.data, self.n


@dataclass(frozen=True, slots=True)
class Metric:
    """Way to compare answers with labels.

    Attributes:
        name: One of `METRICS`, or the name of a function in the file of labels.
        output: Output that is compared with its labels; empty for a function, which gets all tensors.
    """

    name: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labelled set of an application.

    Attributes:
        file: Absolute path of the file.
        tasks: Task -> metric of its variants' accuracy.
        graph: Metric of the accuracy end to end, whose output is one of the graph; None if there is none.
    """

    file: Path
    tasks: Mapping[str, Metric] = field(default_factory=dict)
    graph: Metric | None = None


@dataclass(frozen=True, slots=True)
class Combination:
    """Accuracy of a combination of variants end to end.

    Attributes:
        variants: Task -> its variant, for at least two tasks; the others use their most accurate variants.
        accuracy: Accuracy, greater than 0, in a unit that all combinations of a graph share.
        measured: Measurement that it comes from; None if that is not known.
    """

    variants: Mapping[str, str]
    accuracy: float
    measured: Measured | None = None
