"""Standby variants: lighter models, loaded beside those that serve, which carry a burst until a new plan does. Pure.

A plan covers its demand and little more. A model that is loaded but not called takes memory and no time, so a slice can
hold a second variant of its task, with a higher throughput. If the load jumps beyond the plan's capacity, a change of
routes is enough to use it (`controller/core/standby.py`). Standby variants never change the number of slices, and they
are chosen after the plan. The conditions are:

- The slice has one model, and memory for both. As elsewhere in the planner, memory is the sum of what the profiles say.
- The variant keeps the task's latency budget. What it carries within the budget is more than the other model carries.
- Every path keeps the graph's accuracy SLO for each request, whichever of the loaded variants answers its calls. This
  is required even if the SLO is a mean, because a burst may last.
- The graph's capacity rises by at least `LEAST_GAIN`.

The baselines have no standby variants: the paper's formulation, and features without accuracy scaling (A).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.configurations import accuracy_budget, loss, why_not
from jigsaw_triton.planner.capacity import Array, Service, of_count, within_budget
from jigsaw_triton.planner.domain.accuracy import with_pair_losses
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.plan import GraphPlan, PlacedModel, PlacedSlice, Plan, PlannedGpu, Standby
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.processors import processor_load
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, TOLERANCE
from jigsaw_triton.planner.latency.latency import uses
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

LEAST_GAIN = 1.1
"""Least ratio of a graph's capacity with standby variants to that without. Less is not worth the memory."""

Choice = Mapping[str, str]
"""Task -> its standby variant. Tasks without one are absent."""

Content = tuple[str, str, PlacedModel]
"""Model of GPU, slice, and the only model in it."""

Lighter = Mapping[str, PlacedModel]
"""Variant -> its best configuration in a slice."""


def with_standby(problem: Problem, plan: Plan, options: Options) -> Plan:
    """Returns the plan with the standby variants that raise the capacity of its graphs most.

    Args:
        problem: Problem that the plan was made for.
        plan: Plan.
        options: Options that it was made with.
    """
    if options.standby == "off" or "A" not in options.features or options.formulation != "exact":
        return plan
    problem = replace(problem.prepared(options), running=None)
    contents = Counter(content for gpu in plan.gpus for placed in gpu.layout if (content := _content(gpu, placed)))
    lighter: dict[Content, Lighter] = {}
    for workload in problem.workloads:
        lighter |= _lighter(workload.graph, _of(workload.graph, contents), plan, problem, options)
    able = [w.graph for w in problem.workloads if any(lighter[content] for content in _of(w.graph, contents))]
    if not able:
        return plan
    everything = _placed(plan, {content: tuple(found.values()) for content, found in lighter.items()})
    service = Service(problem, everything, options)
    shared = service.start
    for gpu in plan.gpus:
        for placed in gpu.layout:
            if _content(gpu, placed) is None:
                shared = shared + service.rates(placed.models, gpu.model, placed.placement.slice)
    graphs, standby = dict(plan.graphs), dict[Content, tuple[PlacedModel, ...]]()
    for graph in able:
        counts = {content: contents[content] for content in _of(graph, contents)}
        search = _Search(graph, plan.graphs[graph.name], service, shared, counts, lighter)
        if choice := search.choice():
            served, models = search.service_of(choice), search.models(choice)
            load = processor_load(_placed(plan, models), problem, standby=True)
            carried_rps = load.carried_rps[graph.name] if load is not None else math.inf
            if carried_rps < LEAST_GAIN * plan.graphs[graph.name].capacity_rps:
                continue
            served = replace(served, capacity_rps=min(served.capacity_rps, carried_rps))
            graphs[graph.name] = replace(graphs[graph.name], standby=served)
            standby |= models
    return replace(_placed(plan, standby), graphs=graphs)


def _content(gpu: PlannedGpu, placed: PlacedSlice) -> Content | None:
    """Returns the content of a slice; None if several models share it."""
    return (gpu.model, placed.placement.slice, placed.models[0]) if len(placed.models) == 1 else None


def _of(graph: TaskGraph, contents: Iterable[Content]) -> list[Content]:
    return [content for content in contents if content[2].graph == graph.name]


def _placed(plan: Plan, standby: Mapping[Content, tuple[PlacedModel, ...]]) -> Plan:
    """Returns the plan with these standby models in its slices."""

    def filled(gpu: PlannedGpu, placed: PlacedSlice) -> PlacedSlice:
        content = _content(gpu, placed)
        return replace(placed, standby=standby.get(content, ()) if content is not None else ())

    gpus = (replace(gpu, layout=tuple(filled(gpu, placed) for placed in gpu.layout)) for gpu in plan.gpus)
    return replace(plan, gpus=tuple(gpus))


def _lighter(
    graph: TaskGraph, contents: list[Content], plan: Plan, problem: Problem, options: Options
) -> dict[Content, Lighter]:
    """Returns, for each slice, the configuration of each lighter variant that fits and carries most."""
    table, planned = problem.profiles.get(graph.name, ProfileTable(())), plan.graphs[graph.name]
    boards = {board.name: board for board in problem.boards}
    # Most plans use up the accuracy SLO, and predicting latencies takes most of the time.
    accurate = {
        (name, v.name)
        for name, task in graph.tasks.items()
        for v in task.variants
        if _is_accurate(graph, planned, {name: v.name})
    }
    rows = {
        content: [
            row
            for row in _fitting(content, table, boards[content[0]], plan, problem)
            if (row.key.task, row.key.variant) in accurate
            and why_not(row, loss(graph.tasks[row.key.task], row.key.variant), boards[row.key.gpu], options) is None
        ]
        for content in contents
    }
    distinct = list({row.key: row for found in rows.values() for row in found}.values())
    loads = uses(graph, distinct, table, options, [row.key for row in distinct]) if distinct else {}
    lighter: dict[Content, Lighter] = {}
    for content, found in rows.items():
        task = planned.tasks[content[2].task]
        best: dict[str, tuple[float, float, PlacedModel]] = {}
        for row in found:
            within = within_budget(of_count(loads.get(row.key, ()), task), task)
            if within:
                k = row.key
                model = PlacedModel(graph.name, k.task, k.variant, k.instances, k.batch)
                better = (max(within) * row.throughput_rps, -row.memory_mib, model)
                if k.variant not in best or better[:2] > best[k.variant][:2]:
                    best[k.variant] = better
        lighter[content] = {variant: model for variant, (*_, model) in best.items()}
    return lighter


def _fitting(content: Content, table: ProfileTable, board: Board, plan: Plan, problem: Problem) -> Iterator[ProfileRow]:
    """Yields the profiles of other variants that have a higher throughput and fit beside the model of a slice."""
    gpu, kind, model = content
    row = table.get(ProfileKey(gpu, model.task, model.variant, kind, model.instances, model.batch))
    if row is None:
        return
    room_mib = board.profiles[kind].memory_mib
    budget_ms = plan.graphs[model.graph].tasks[model.task].budget_ms
    for other in table.rows(task=model.task, gpu=gpu):
        key = other.key
        if (
            key.slice == kind
            and key.variant != model.variant
            and other.throughput_rps > row.throughput_rps
            and other.latency_p50_ms <= budget_ms * (1 + TOLERANCE)
            and (room_mib is None or row.memory_mib + other.memory_mib <= room_mib)
            # Each process under MPS has one instance of either model.
            and (problem.cluster.processes != "mps" or key.instances == model.instances)
        ):
            yield other


def _is_accurate(graph: TaskGraph, planned: GraphPlan, choice: Choice) -> bool:
    """Returns True if every path keeps the accuracy SLO, whichever of the loaded variants answers its calls."""
    return _loss(graph, planned, choice) <= accuracy_budget(graph) + FLOAT_ERROR


def _loss(graph: TaskGraph, planned: GraphPlan, choice: Choice) -> float:
    """Returns the largest loss of accuracy along a path, over the variants that serve and those that stand by."""
    loaded = {name: {*task.mix, *([choice[name]] if name in choice else ())} for name, task in planned.tasks.items()}
    lost = {name: max(loss(graph.tasks[name], v) for v in variants) for name, variants in loaded.items()}
    return max(longest_through(graph, with_pair_losses(graph, lost, loaded)).values())


@dataclass(frozen=True, slots=True)
class _Search:
    """Search for the standby variants of one graph.

    Attributes:
        graph: Graph.
        planned: Part of the plan for the graph.
        service: Capacity of replicas, lighter ones included.
        shared: Calls a second of the slices that several models share.
        contents: Number of the graph's other slices with each content.
        lighter: Lighter variants in each of them.
    """

    graph: TaskGraph
    planned: GraphPlan
    service: Service
    shared: Array
    contents: Mapping[Content, int]
    lighter: Mapping[Content, Lighter]

    def choice(self) -> Choice:
        """Returns the standby variant of each task that needs one; empty if they would gain too little.

        It raises the capacity of the tasks that limit the graph step by step, and leaves out what did not help.
        """
        choice: Choice = {}
        while better := max(self._better(choice), key=self._merit, default=None):
            choice = better
        gained = self._capacity_rps(choice)
        if gained < LEAST_GAIN * max(self.planned.capacity_rps, self._capacity_rps({})):
            return {}
        for task in list(choice):
            without = {other: variant for other, variant in choice.items() if other != task}
            if self._capacity_rps(without) >= gained * (1 - TOLERANCE):
                choice = without
        return choice

    def service_of(self, choice: Choice) -> Standby:
        """Returns the service of the graph with the chosen variants in use."""
        return Standby(self._capacity_rps(choice), math.exp(-_loss(self.graph, self.planned, choice)))

    def models(self, choice: Choice) -> dict[Content, tuple[PlacedModel, ...]]:
        """Returns the standby model of each slice that gets one."""
        found = ((content, self._standby(content, choice)) for content in self.contents)
        return {content: (model,) for content, model in found if model is not None}

    def _better(self, choice: Choice) -> Iterator[Choice]:
        """Yields the choices that differ in one task, carry more, and keep the accuracy SLO."""
        now = self._bottlenecks(choice)
        options = {(content[2].task, v) for content in self.contents for v in self.lighter[content]}
        for task, variant in sorted(options):
            other = {**choice, task: variant}
            if _is_accurate(self.graph, self.planned, other) and self._bottlenecks(other) > now:
                yield other

    def _merit(self, choice: Choice) -> tuple[tuple[float, ...], float]:
        return self._bottlenecks(choice), -_loss(self.graph, self.planned, choice)

    def _bottlenecks(self, choice: Choice) -> tuple[float, ...]:
        """Returns the capacities of the tasks, lowest first."""
        carried = self.service.carried(self.graph.name, self._serving(choice))[0]
        return tuple(sorted(round(rps, 6) for rps in carried.values()))

    def _capacity_rps(self, choice: Choice) -> float:
        return self.service.capacity(self.graph.name, self._serving(choice))

    def _serving(self, choice: Choice) -> Array:
        """Returns the calls a second of the graph's slices with the chosen variants in use."""
        serving = self.shared
        for content, count in self.contents.items():
            gpu, kind, model = content
            serving = serving + count * self.service.rates((self._standby(content, choice) or model,), gpu, kind)
        return serving

    def _standby(self, content: Content, choice: Choice) -> PlacedModel | None:
        """Returns the model that is chosen for a slice; None if it has none, or carries no more than the other."""
        gpu, kind, model = content
        lighter = self.lighter[content].get(choice.get(model.task, ""))
        if lighter is None:
            return None
        gain = self.service.rates((lighter,), gpu, kind).sum() - self.service.rates((model,), gpu, kind).sum()
        return lighter if gain > 0 else None
