"""Capacity of graphs: the requests a second that replicas in service carry."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.sharing import shared_load
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan, TaskPlan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.throughput import ByVariant, of_all_tasks, throughput_by_task
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.latency.latency import Use, uses
from jigsaw_triton.profiles.service import busy
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

Array = NDArray[np.float64]

Busiest = Mapping[tuple[str, ProfileKey], float]
"""(Graph, configuration) -> largest utilisation of a replica, as a share of its profiled throughput."""


class Service:
    """Capacity of graphs, by the budgets of one plan or of two.

    The replicas in service at a moment are an array: calls a second that may be planned for each variant of each task.
    Accuracy is not considered, since a mean is promised for plans and not for transitions between them. During a
    transition, a replica may be as busy as the budgets of either plan allow.

    Args:
        problem: Prepared problem, whose running plan is the first of the two.
        plan: Second plan.
        options: Options that the second plan was made with.

    Attributes:
        graphs: Graphs, by name.
        columns: Part of the arrays that belongs to each graph.
        start: Calls a second in service at the start.
        before_rps: Capacity of each graph in the first plan, in requests a second.
        after_rps: Capacity of each graph in the second plan, in requests a second.
        held_rps: Capacity that each graph should keep during the transition: its demand, or `before_rps` if less.
    """

    def __init__(self, problem: Problem, plan: Plan, options: Options) -> None:
        self.graphs = {w.graph.name: w.graph for w in problem.workloads}
        self._tables, self._shared_load = problem.profiles, shared_load(problem.workloads, options)
        self._column = {
            key: i
            for i, key in enumerate(
                (g.name, t, v.name) for g in self.graphs.values() for t in g.tasks for v in g.tasks[t].variants
            )
        }
        self.columns = _columns(self.graphs)
        self.graph_at = [graph for graph, *_ in self._column]
        plans = (problem.running, plan) if problem.running else (plan,)
        self._mixes = [{g: p.graphs[g].mix for g in self.graphs if g in p.graphs} for p in plans]
        self._planned = {key: rate for p in plans for key, rate in _planned_rates(p).items()}
        self._known: dict[tuple[str, bytes], float] = {}
        nothing = np.zeros(len(self._column))
        self._last = nothing, {name: self.capacity(name, nothing) for name in self.graphs}
        busiest = [_busiest(p, self.graphs, self._tables, options) for p in plans]
        self._busiest: Busiest = {
            key: max(used.get(key, 0.0) for used in busiest) for key in {key for used in busiest for key in used}
        }
        self._calls: dict[tuple[tuple[PlacedModel, ...], str, str], tuple[tuple[int, PlacedModel, float], ...]] = {}
        self.start = self._rates_of_plan(problem.running, self._busiest)
        self.before_rps = self.capacities(self._rates_of_plan(problem.running, busiest[0]))
        self.after_rps = self.capacities(self._rates_of_plan(plan, busiest[-1]))
        self.held_rps = {w.graph.name: min(w.demand_rps, self.before_rps[w.graph.name]) for w in problem.workloads}

    def _rates_of_plan(self, plan: Plan | None, busiest: Busiest) -> Array:
        """Returns the calls a second of all replicas of a plan."""
        found = np.zeros(len(self._column))
        for gpu in plan.gpus if plan is not None else ():
            for placed in gpu.layout:
                for column, _, rate in self._calls_of(placed.models, gpu.model, placed.placement.slice, busiest):
                    found[column] += rate
        return found

    def rates(self, models: Iterable[PlacedModel], board: str, kind: str) -> Array:
        """Returns the calls a second of the models in a slice; zero for a model without a graph or a profile."""
        found = np.zeros(len(self._column))
        for column, _, rate in self.calls(tuple(models), board, kind):
            found[column] += rate
        return found

    def calls(
        self, models: tuple[PlacedModel, ...], board: str, kind: str
    ) -> tuple[tuple[int, PlacedModel, float], ...]:
        """Returns the column and the calls a second of each model in a slice that has a graph and a profile."""
        key = (models, board, kind)
        if (known := self._calls.get(key)) is None:
            known = self._calls[key] = tuple(self._calls_of(models, board, kind, self._busiest))
        return known

    def _calls_of(
        self, models: tuple[PlacedModel, ...], board: str, kind: str, busiest: Busiest
    ) -> Iterator[tuple[int, PlacedModel, float]]:
        rows = {model: row for model in models if (row := self._row(model, board, kind)) is not None}
        carried = self._together(rows) if len(models) > 1 else {}
        for model, row in rows.items():
            column = self._column.get((model.graph, model.task, model.variant))
            if column is not None:
                alone = busiest.get((model.graph, row.key), 0.0) * row.throughput_rps
                yield column, model, carried.get(model, alone)

    def _together(self, rows: Mapping[PlacedModel, ProfileRow]) -> dict[PlacedModel, float]:
        """Returns the calls a second of models in one slice: planned rates, scaled to the slice's largest load."""
        planned = {model: self._planned.get((model.graph, model.task, model.variant), 0.0) for model in rows}
        load = sum(busy(planned[model], row) for model, row in rows.items())
        return {model: rate * self._shared_load / load if load > 0 else 0.0 for model, rate in planned.items()}

    def memory_mib(self, models: Iterable[PlacedModel], board: str, kind: str) -> float:
        """Returns the memory that models take in a slice; zero for a model without a profile."""
        rows = (self._row(model, board, kind) for model in models)
        return sum(row.memory_mib for row in rows if row is not None)

    def _row(self, m: PlacedModel, board: str, kind: str) -> ProfileRow | None:
        key = ProfileKey(board, m.task, m.variant, kind, m.instances, m.batch)
        return self._tables.get(m.graph, ProfileTable(())).get(key)

    def capacities(self, serving: Array) -> Mapping[str, float]:
        """Returns the capacity of each graph, in requests a second."""
        # A simulation asks for many moments, between which only few graphs change.
        serving = rounded(serving)
        last, capacities = self._last
        changed = {self.graph_at[column] for column in np.flatnonzero(serving != last).tolist()}
        self._last = serving, {**capacities, **{name: self._remembered(name, serving) for name in changed}}
        return self._last[1]

    def _remembered(self, name: str, serving: Array) -> float:
        key = (name, serving[self.columns[name]].tobytes())
        if (known := self._known.get(key)) is None:
            known = self._known[key] = self.capacity(name, serving)
        return known

    def capacity(self, name: str, serving: Array) -> float:
        """Returns the capacity of a graph, in requests a second."""
        return max(map(of_all_tasks, self.carried(name, serving)))

    def carried(self, name: str, serving: Array) -> list[dict[str, float]]:
        """Returns the capacity of each task, for each way to share out the graph's calls among variants.

        The first way hands each batch to any idle replica. The others are the mixes of the plans.
        """
        usable = self.by_variant(name, serving[self.columns[name]])
        before, after = self.mixes(name)
        return [throughput_by_task(self.graphs[name], usable, mix) for mix in (usable, *before, *after)]

    def by_variant(self, name: str, part: Array) -> dict[str, dict[str, float]]:
        """Returns a graph's part of an array by task and variant."""
        values = iter(rounded(part).tolist())
        return {t: {v.name: next(values) for v in task.variants} for t, task in self.graphs[name].tasks.items()}

    def mixes(self, name: str) -> tuple[list[ByVariant], list[ByVariant]]:
        """Returns the ways in which the first plan and the second one divide a graph's calls among variants."""
        before, after = self._mixes[:-1], self._mixes[-1:]
        return [mixes[name] for mixes in before if name in mixes], [mixes[name] for mixes in after if name in mixes]


def _columns(graphs: Mapping[str, TaskGraph]) -> dict[str, slice]:
    """Returns the part of the arrays that belongs to each graph."""
    found, begin = dict[str, slice](), 0
    for name, graph in graphs.items():
        end = begin + sum(len(task.variants) for task in graph.tasks.values())
        found[name] = slice(begin, end)
        begin = end
    return found


def rounded(serving: Array) -> Array:
    """Returns calls a second without the rounding errors of sums."""
    found: Array = np.round(serving, 6)
    return found


def _busiest(
    plan: Plan, graphs: Mapping[str, TaskGraph], tables: Mapping[str, ProfileTable], options: Options
) -> Busiest:
    """Returns the largest utilisation that a plan's budgets permit; the least of all loads if they permit none."""
    replicas = {
        (m.graph, ProfileKey(gpu.model, m.task, m.variant, placed.placement.slice, m.instances, m.batch))
        for gpu in plan.gpus
        for placed in gpu.layout
        for m in (*placed.models, *placed.standby)
    }
    found: dict[tuple[str, ProfileKey], float] = {}
    for name in plan.graphs.keys() & graphs.keys():
        graph, table, planned = graphs[name], tables.get(name, ProfileTable(())), plan.graphs[name].tasks
        known = planned.keys() & graph.tasks.keys()
        rows = (table.get(key) for owner, key in sorted(replicas) if owner == name and key.task in known)
        usable = [row for row in rows if row is not None and row.throughput_rps > 0]
        for key, loads in uses(graph, usable, table, options, [row.key for row in usable]).items():
            at = of_count(loads, planned[key.task])
            within = within_budget(at, planned[key.task])
            found[name, key] = max(within, default=min((use.utilisation for use in at), default=0.0))
    return found


def of_count(loads: Iterable[Use], task: TaskPlan) -> list[Use]:
    """Returns the uses of a configuration for a task's number of replicas."""
    count = sum(segment.count for segment in task.segments)
    return [use for use in loads if use.replica_range[0] <= count <= use.replica_range[1]]


def within_budget(loads: Iterable[Use], task: TaskPlan) -> list[float]:
    """Returns the utilisations at which a configuration keeps a task's latency budget."""
    return [use.utilisation for use in loads if use.latency_ms <= task.budget_ms * (1 + TOLERANCE)]


def _planned_rates(plan: Plan) -> dict[tuple[str, str, str], float]:
    """Returns the planned calls a second by (graph, task, variant)."""
    rates: dict[tuple[str, str, str], float] = {}
    for graph, planned in plan.graphs.items():
        for name, task in planned.tasks.items():
            for s in task.segments:
                key = (graph, name, s.variant)
                rates[key] = rates.get(key, 0.0) + s.share * task.rate_rps
    return rates
