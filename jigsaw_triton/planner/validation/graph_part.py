"""One graph's part of a plan: its rates and replicas, counted from the graph, its profiles and the placements.

The arithmetic here and in the modules that check such a part is deliberately independent of the code that makes plans,
even where it computes the same: a shared function would hide its own errors. Only the queueing model and the constants
of the problem are shared.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.graph.model import Task, TaskGraph, Workload
from jigsaw_triton.planner.domain.plan import GraphPlan, PlacedModel, Plan, Segment
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

TOLERANCE = 1e-5
"""Relative amount by which a plan may miss a limit, from the tolerances of solvers. The validator's own constant."""

Placed = Counter[tuple[str, str, str, int, int]]
"""(board, variant, slice, instances, batch) -> number of replicas placed on the GPUs."""


def replicas_placed(plan: Plan) -> dict[tuple[str, str], Placed]:
    """Counts the replicas of each (graph, task) on the GPUs."""
    found: dict[tuple[str, str], Placed] = {}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            for m in placed.models:
                replica = (gpu.model, m.variant, placed.placement.slice, m.instances, m.batch)
                found.setdefault((m.graph, m.task), Counter())[replica] += 1
    return found


@dataclass(frozen=True, slots=True)
class GraphPart:
    """One graph's part of a plan, with what it is checked against.

    Attributes:
        plan: The whole plan.
        promised: The graph's part of the plan.
        workload: Graph and demand.
        table: Profiles of the graph.
        options: Options with which the plan was made.
        tables: Graph name -> profiles, for all graphs.
        most_shared_load: Largest load that a shared slice may have.
        placed: The plan's replicas on the GPUs, by `replicas_placed`.
    """

    plan: Plan
    promised: GraphPlan
    workload: Workload
    table: ProfileTable
    options: Options
    tables: Mapping[str, ProfileTable]
    most_shared_load: float
    placed: Mapping[tuple[str, str], Placed]

    @property
    def graph(self) -> TaskGraph:
        """The graph to check."""
        return self.workload.graph

    def placed_of(self, task: str) -> Placed:
        """Returns the replicas of a task on the GPUs."""
        return self.placed.get((self.graph.name, task), Counter())

    def rates(self) -> dict[str, float]:
        """Returns the calls a second of each task at the demand, by the plan's own shares."""
        rates: dict[str, float] = {}
        for task in self.graph.tasks.values():
            rates[task.name] = self._rate(task, rates)
        return rates

    def _rate(self, task: Task, rates: Mapping[str, float]) -> float:
        often = task.when.probability if task.when else 1.0
        over = task.for_each
        if over is None:
            return self.workload.demand_rps * often
        if over.is_graph_input:
            return self.workload.demand_rps * often * self.graph.inputs[over.name].rows
        if over.task in self.graph.steps:
            return self.workload.demand_rps * often * self.graph.steps[over.task].yields.get(over.name, 1.0)
        source = self.graph.tasks[over.task]
        rows = 1.0
        if over.name in source.outputs and source.outputs[over.name].shape[0] == -1:
            rows = sum(s.share * source.variant(s.variant).yields.get(over.name, 1.0) for s in self.segments(source))
        ancestor: Task | None = source
        while ancestor is not None and task.when is not None:
            same = ancestor.when
            if same and (same.tensor, same.above, same.below) == (task.when.tensor, task.when.above, task.when.below):
                often = 1.0
            up = ancestor.for_each
            ancestor = None if up is None else self.graph.tasks.get(up.task)
        return rates[source.name] * rows * often

    def segments(self, task: Task) -> tuple[Segment, ...]:
        """Returns the segments that the plan has for a task."""
        return self.promised.tasks[task.name].segments

    def rows(self, task: str, segment: Segment) -> list[tuple[ProfileRow, int]]:
        """Returns the profile and the count of a segment's replicas on each model of GPU."""
        wanted = (segment.variant, segment.slice, segment.instances, segment.batch)
        rows = []
        for (board, *placed), count in self.placed_of(task).items():
            row = self.table.get(
                ProfileKey(board, task, segment.variant, segment.slice, segment.instances, segment.batch)
            )
            if tuple(placed) == wanted and row is not None:
                rows.append((row, count))
        return rows


def worst(graph: TaskGraph, weight: Mapping[str, float]) -> float:
    """Returns the largest sum of weights along a path."""
    ending: dict[str, float] = {}
    for name, task in graph.tasks.items():
        ending[name] = weight[name] + max((ending[d] for d in graph.before(task)), default=0.0)
    return max(ending.values())


def close(a: float, b: float) -> bool:
    """Returns True if two figures of a plan are equal within the tolerance."""
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-9)


def busy(rate_rps: float, row: ProfileRow) -> float:
    """Returns the utilisation of a slice if each call is a separate execution."""
    return rate_rps * max(row.latency_p95_ms / 1000, 1 / row.throughput_rps)


def profiled(table: ProfileTable, board: str, kind: str, model: PlacedModel) -> ProfileRow | None:
    """Returns the profile of a model on a kind of slice; None if there is none."""
    return table.get(ProfileKey(board, model.task, model.variant, kind, model.instances, model.batch))
