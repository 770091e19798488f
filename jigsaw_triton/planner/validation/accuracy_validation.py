"""Validation of the accuracies of a graph's part of a plan, on its paths and of its variants."""

import math
from collections.abc import Collection, Iterator, Mapping

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.validation.graph_part import TOLERANCE, GraphPart, close, worst

_LEAST_ACCURACY = 1e-9
"""Accuracy that stands for 0, which has no logarithm. A convention."""


def accuracy_violations(part: GraphPart) -> Iterator[str]:
    """Yields a description of each violation of the accuracy along paths."""
    accuracy = _mean_accuracy if part.graph.slo.accuracy_mode == "mean" else least_accuracy
    lost = {name: -math.log(accuracy(part, name)) for name in part.promised.tasks}
    used = {name: {s.variant for s in task.segments} for name, task in part.promised.tasks.items()}
    least = math.exp(-worst(part.graph, lost | measured_losses(part.graph, used)))
    if least < part.graph.slo.accuracy * (1 - TOLERANCE):
        yield f"the accuracy along a path is {least}, below {part.graph.slo.accuracy}"
    if not close(part.promised.accuracy, least):
        yield f"the plan says an accuracy of {part.promised.accuracy}, counted {least}"


def variant_violations(part: GraphPart) -> Iterator[str]:
    """Yields a description of each variant that a plan without accuracy scaling may not use."""
    for name, task in part.promised.tasks.items():
        for variant in sorted({s.variant for s in task.segments if _relative(part, name, s.variant) < 1}):
            yield f"{name}: {variant} is not the most accurate variant, without accuracy scaling"


def least_accuracy(part: GraphPart, task: str) -> float:
    """Returns the relative accuracy of a task's least accurate variant."""
    return min(_relative(part, task, s.variant) for s in part.promised.tasks[task].segments)


def _mean_accuracy(part: GraphPart, task: str) -> float:
    """Returns the mean accuracy by the shares of calls, at most 1, and above 0 whatever the shares are."""
    segments = part.promised.tasks[task].segments
    mean = sum(max(0.0, s.share) * _relative(part, task, s.variant) for s in segments)
    return min(1.0, max(mean, _LEAST_ACCURACY))


def measured_losses(graph: TaskGraph, used: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Returns the loss of the worst measured pair of variants in use, at the first task of each pair, 0 at the other.

    Args:
        graph: Graph whose combinations replace products.
        used: Task -> variants in use.
    """
    best: dict[frozenset[str], float] = {}
    worst_in_use: dict[frozenset[str], float] = {}
    for combination in graph.combinations:
        tasks = frozenset(combination.variants)
        best[tasks] = max(best.get(tasks, 0.0), combination.accuracy)
        if all(variant in used[task] for task, variant in combination.variants.items()):
            worst_in_use[tasks] = min(worst_in_use.get(tasks, math.inf), combination.accuracy)
    return {
        task: math.log(best[tasks] / accuracy) if task == min(tasks) else 0.0
        for tasks, accuracy in worst_in_use.items()
        for task in tasks
    }


def _relative(part: GraphPart, task: str, variant: str) -> float:
    variants = part.graph.tasks[task].variants
    return part.graph.tasks[task].variant(variant).accuracy / max(v.accuracy for v in variants)
