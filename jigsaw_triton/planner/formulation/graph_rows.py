"""Columns and rows of one graph in the program: replicas, shares, and limits of latency and accuracy."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, TaskConfigurations, accuracy_budget
from jigsaw_triton.planner.domain.problem import ReplicaRange
from jigsaw_triton.planner.domain.processors import ProcessorLimit
from jigsaw_triton.planner.domain.rates import calls, most_calls
from jigsaw_triton.planner.domain.survival import domain_of
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR
from jigsaw_triton.planner.formulation.exclusions import exclude, measured_excess
from jigsaw_triton.planner.formulation.incremental_levels import (
    IncrementalLevels,
    Weight,
    incremental_levels,
    path_ends,
)
from jigsaw_triton.planner.formulation.mixture import mean_weights
from jigsaw_triton.planner.formulation.supply import Supply
from jigsaw_triton.planner.solver.program import Draft

Goal = Literal["least", "accurate", "most", "ideal"]
"""Goal of the program: `least` cost for a plan; `accurate`, the least loss of accuracy, then the least cost; `most`,
the largest common scale of demands; or `ideal`, the least cost of slices, then of GPUs, if there were unlimited
GPUs."""


class GraphRows:
    """Columns and rows of one graph.

    Args:
        draft: Program to add to.
        workload: Graph and demand.
        found: Configurations of the graph.
        goal: Goal of the whole program.
        staying: Running replicas that may be kept even if they carry nothing.
    """

    def __init__(
        self, draft: Draft, workload: Workload, found: TaskConfigurations, goal: Goal, staying: Mapping[Replica, int]
    ) -> None:
        self._draft, self._workload, self._found, self._goal = draft, workload, found, goal
        self._staying = staying
        graph = workload.graph
        self._variants = {task: {c.variant: c.loss for c in configurations} for task, configurations in found.items()}
        calls_per_request = most_calls(graph, self._variants)
        # If nothing yields a row, the rate is 0 and any unit will do for the shares.
        self._largest = {task: workload.demand_rps * n or 1.0 for task, n in calls_per_request.items()}
        self.count: dict[Configuration, int] = {}
        self._most: dict[Configuration, float] = {}
        self._share: dict[tuple[str, str], int] = {}
        self._excess: list[int] = []
        self._ranges: list[tuple[int, float, Sequence[Configuration]]] = []

    def choose(self, supplies: Sequence[Supply]) -> None:
        """Adds the counts of replicas, at least one for each task."""
        by_board = {s.board.name: s for s in supplies}
        for configurations in self._found.values():
            for c in configurations:
                self._most[c] = self._most_of(c, by_board[c.board])
                self.count[c] = self._draft.integer(self._most[c])
            self._number(configurations)

    def _number(self, configurations: Sequence[Configuration]) -> None:
        """Requires one replica that shares a slice, or a number of others within one range of their latencies."""
        shared = [(self.count[c], 1.0) for c in configurations if c.shares]
        ranges: dict[ReplicaRange, list[Configuration]] = {}
        for c in configurations:
            if not c.shares:
                ranges.setdefault(c.replica_range, []).append(c)
        chosen = [*shared]
        for (least, most), inside in sorted(ranges.items()):
            some = self._draft.integer(1)
            chosen.append((some, 1.0))
            self._ranges.append((some, float(least), inside))
            counts = [(self.count[c], 1.0) for c in inside]
            self._draft.at_least(0, [*counts, (some, -float(least))])
            self._draft.at_most(0, [*counts, (some, -min(most, sum(self._most[c] for c in inside)))])
        self._draft.equal(1, chosen)

    def _most_of(self, c: Configuration, supply: Supply) -> float:
        """Returns the most replicas that a plan may need: enough to carry the whole task, or to reach its range."""
        if c.shares:
            return 1
        available = math.inf if self._goal == "ideal" else supply.most(c.slice)
        if self._goal == "most":
            return available
        carry_all = math.ceil(self._largest[c.task] / c.throughput_rps)
        return min(available, max(c.replica_range[0], carry_all, self._staying.get(c.replica, 0)))

    def flow(self, scale: int | None) -> None:
        """Adds the shares: at most what the replicas carry, in sum what the requests or the source's shares require."""
        self._share = self._flow(self.count, self._workload.demand_rps, scale)

    def survive(self, part: float, scale: int | None) -> None:
        """Requires that the loss of any failure domain leaves this part of the demand, and enough replicas."""
        for domain in sorted({domain_of(c.board) for c in self.count}):
            left = {c: column for c, column in self.count.items() if domain_of(c.board) != domain}
            shares = self._flow(left, part * self._workload.demand_rps, scale)
            if self._workload.graph.slo.accuracy_mode == "mean":
                for key, column in shares.items():
                    self._draft.equal(0, [(column, 1.0), (self._share[key], -part)])
            for some, least, inside in self._ranges:
                self._draft.at_least(0, [*((left[c], 1.0) for c in inside if c in left), (some, -least)])

    def _flow(self, count: Mapping[Configuration, int], demand: float, scale: int | None) -> dict[tuple[str, str], int]:
        """Adds the shares of a demand, in requests a second, that these replicas carry, and returns their columns."""
        share: dict[tuple[str, str], int] = {}
        for task, variants in self._variants.items():
            for variant in variants:
                f = share[task, variant] = self._draft.real()
                carried = [
                    (count[c], -c.throughput_rps / self._largest[task])
                    for c in self._found[task]
                    if c.variant == variant and c in count
                ]
                self._draft.at_most(0, [(f, 1), *carried])
        graph = self._workload.graph
        for task, variants in self._variants.items():
            rule = calls(graph, graph.tasks[task])
            shares = [(share[task, v], 1.0) for v in variants]
            if rule.source is not None:
                ratio = self._largest[rule.source] / self._largest[task]
                taken = [(share[rule.source, v], -ratio * rule.weight(graph, v)) for v in self._variants[rule.source]]
                self._draft.equal(0, shares + taken)
            elif scale is not None:
                self._draft.equal(0, [*shares, (scale, -rule.factor * demand / self._largest[task])])
            else:
                self._draft.equal(rule.factor * demand / self._largest[task], shares)
        return share

    def busy(self, limit: ProcessorLimit) -> list[tuple[int, float]]:
        """Returns the terms of a lower bound on the processors that the calls keep busy.

        The calls of a variant take at least the processor time of its most economical configuration.
        """
        graph, terms = self._workload.graph.name, []
        for task, configurations in self._found.items():
            seconds: dict[str, float] = {}
            for c in configurations:
                known = limit.call_s(graph, task, c.variant, c.board, c.slice, c.batch) or 0.0
                seconds[c.variant] = min(known, seconds.get(c.variant, math.inf))
            terms += [(self._share[task, v], self._largest[task] * s) for v, s in seconds.items() if s]
        return terms

    def limit(self) -> None:
        """Keeps the configurations in use within the SLO's latency and accuracy along every path."""
        graph = self._workload.graph
        tasks_ms = graph.tasks_ms
        # Latencies are scaled by the SLO so that the solver's absolute tolerance becomes relative to the SLO.
        latency = self._levels(self._found, {c: c.latency_ms / tasks_ms for c in self.count})
        self._keep(1.0, {task: levels.weight for task, levels in latency.items()})
        means: dict[str, Weight] = {}
        if graph.slo.accuracy_mode == "mean" and self._goal != "most":
            shares = {task: {v: self._share[task, v] for v in losses} for task, losses in self._variants.items()}
            means = mean_weights(self._draft, graph, shares, dict.fromkeys(shares, 1.0))
        floors = {task: found for task, found in self._found.items() if task not in means}
        loss = self._levels(floors, {c: c.loss for c in self.count})
        self._keep(accuracy_budget(graph) + FLOAT_ERROR, means | {task: levels.weight for task, levels in loss.items()})
        if self._goal != "most":
            for task, levels in loss.items():
                variants = self._variants[task].items()
                for level in levels.levels:
                    beyond = [(self._share[task, v], 1.0) for v, lost in variants if lost >= level.weight]
                    self._draft.at_most(0, [*beyond, (level.column, -1)])

        count = {c: (column, self._most[c]) for c, column in self.count.items()}
        columns = exclude(self._draft, graph, count)
        if self._goal in ("least", "accurate"):
            self._excess = measured_excess(self._draft, graph, count, columns)
        for use, column in columns.items():
            if self._goal != "most" and use in self._share:
                self._draft.at_most(0, [(self._share[use], 1.0), (column, -1.0)])

    def _levels(
        self, configurations: TaskConfigurations, weight: Mapping[Configuration, float]
    ) -> dict[str, IncrementalLevels]:
        """Adds levels that must be reached before the configurations above them may be used."""
        levels = {
            task: incremental_levels(self._draft, (weight[c] for c in found)) for task, found in configurations.items()
        }
        for c in (c for found in configurations.values() for c in found):
            if (gate := levels[c.task].gate(weight[c])) is not None:
                self._draft.at_most(0, [(self.count[c], 1), (gate, -self._most[c])])
        return levels

    def _keep(self, budget: float, weights: Mapping[str, Weight]) -> None:
        """Limits the sum of the tasks' weights along every path."""
        for end in path_ends(self._draft, self._workload.graph, weights):
            self._draft.at_most(budget, [(end, 1)])

    def losses(self) -> list[tuple[int, float]]:
        """Returns the terms of the accuracy loss: losses of variants by shares, and what pairs in use lose beyond."""
        own = [
            (self._share[task, v], loss)
            for task, variants in self._variants.items()
            for v, loss in variants.items()
            if loss > 0
        ]
        return own + [(column, 1.0) for column in self._excess]
