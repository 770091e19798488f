"""Validation of the standby variants of a plan: their slices, and the accuracy that requests keep with them."""

import math
from collections.abc import Iterator, Mapping

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import PlacedSlice, Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.validation.accuracy_validation import measured_losses
from jigsaw_triton.planner.validation.graph_part import TOLERANCE, worst


def standby_violations(plan: Plan, problem: Problem, options: Options) -> Iterator[str]:
    """Yields a description of each violation, except those of memory and profiles."""
    allowed = options.standby == "auto" and "A" in options.features and options.formulation == "exact"
    loaded: dict[tuple[str, str], set[str]] = {}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            if placed.standby and not (allowed and _alike(placed)):
                yield f"{gpu.id} {placed.placement}: a standby variant is not allowed there"
            for model in (*placed.models, *placed.standby):
                loaded.setdefault((model.graph, model.task), set()).add(model.variant)
    with_standby = {model.graph for gpu in plan.gpus for placed in gpu.layout for model in placed.standby}
    for workload in problem.workloads:
        graph = workload.graph
        planned = plan.graphs[graph.name]
        if (planned.standby is not None) != (graph.name in with_standby):
            yield f"{graph.name}: its service with standby variants and its standby variants contradict each other"
        elif planned.standby is not None:
            if not planned.capacity_rps < planned.standby.capacity_rps < math.inf:
                yield f"{graph.name}: standby variants do not raise the capacity of {planned.capacity_rps}"
            least = _least_accuracy(graph, {task: loaded[graph.name, task] for task in graph.tasks})
            if least < graph.slo.accuracy * (1 - TOLERANCE) or not math.isclose(least, planned.standby.accuracy):
                said = planned.standby.accuracy
                yield f"{graph.name}: accuracy {least} with standby variants, said {said}, SLO {graph.slo.accuracy}"


def _alike(placed: PlacedSlice) -> bool:
    """Returns True if the slice has one model, and one more of another variant of the same task."""
    if len(placed.models) != 1 or len(placed.standby) != 1:
        return False
    (one,), (other,) = placed.models, placed.standby
    return (one.graph, one.task) == (other.graph, other.task) and one.variant != other.variant


def _least_accuracy(graph: TaskGraph, variants: Mapping[str, set[str]]) -> float:
    """Returns the accuracy along the worst path if each task uses its least accurate variant."""
    lost = {}
    for name, task in graph.tasks.items():
        best = max(variant.accuracy for variant in task.variants)
        lost[name] = -math.log(min(task.variant(variant).accuracy for variant in variants[name]) / best)
    return math.exp(-worst(graph, lost | measured_losses(graph, variants)))
