"""Why a plan is what it is: how the SLOs are used up, what each requirement costs, and what the next best would be.

Costs are those of plans made anew with one thing changed, not prices of a linear relaxation: slices come whole.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from jigsaw_triton.errors import JigsawError
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, available, loss
from jigsaw_triton.planner.domain.paths import count_paths, longest_path
from jigsaw_triton.planner.domain.plan import GraphPlan, Plan, Segment, TaskPlan
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Options, Problem
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.explain.requirement import Requirement, What, requirements, value_of, varied
from jigsaw_triton.planner.formulation.mixture import mean_loss
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan
from jigsaw_triton.profiles.table import ProfileTable

MOST_PATHS = 16
"""Of graphs with more paths the longest through each task are told."""

_PLANS = 5
"""The part of the time limit that a single plan may take is one of so many."""

_LEAST_S = 0.1
"""Solvers are asked for no less."""


@dataclass(frozen=True, slots=True)
class TaskBudget:
    """What a task uses of its graph's SLO.

    Attributes:
        graph: Its name.
        task: Its name.
        latency_ms: That it is planned to take.
        budget_ms: That it may take.
        accuracy: Relative, of its least accurate variant in use; the mean by shares where the SLO is one.
    """

    graph: str
    task: str
    latency_ms: float
    budget_ms: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class PathBudget:
    """What the tasks along a path use of the SLO together.

    Attributes:
        graph: Its name.
        tasks: From the first to the last.
        latency_ms: Planned.
        budget_ms: Of all tasks.
        slo_ms: Of the graph, less what python steps are given.
        slack_ms: Of the SLO, over what is planned.
        accuracy: Planned.
        slo_accuracy: Of the graph.
        slack_accuracy: Of what is planned, over the SLO.
    """

    graph: str
    tasks: tuple[str, ...]
    latency_ms: float
    budget_ms: float
    slo_ms: float
    slack_ms: float
    accuracy: float
    slo_accuracy: float
    slack_accuracy: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of the plan when something is changed.

    Attributes:
        outcome: `plan`: there is another one; `none`: there is none; `unknown`: the time limit came first.
        slices: Compute slices that it takes more than the plan.
        gpus: GPUs likewise.
        accuracy: Graph -> least accuracy along its paths, more than the plan's.
        mean_accuracy: Graph -> product over its tasks of the accuracy by shares (geometric mean), more than the plan's.
            Of plans with equal slices and GPUs the one with most of it is chosen.
        proven: Whether both plans are proven optimal; else the figures are of the best that was found.
    """

    outcome: Literal["plan", "none", "unknown"]
    slices: int = 0
    gpus: int = 0
    accuracy: Mapping[str, float] = field(default_factory=dict)
    mean_accuracy: Mapping[str, float] = field(default_factory=dict)
    proven: bool = True

    @property
    def saves(self) -> bool:
        """Whether it takes fewer slices, or as many on fewer GPUs."""
        return self.outcome == "plan" and (self.slices, self.gpus) < (0, 0)


@dataclass(frozen=True, slots=True)
class Step:
    """A requirement with another figure.

    Attributes:
        change: In words: `+10 ms`.
        value: The figure.
        eases: Whether less is required than before.
        effect: On the plan.
    """

    change: str
    value: float
    eases: bool
    effect: Effect


@dataclass(frozen=True, slots=True)
class Limit:
    """A requirement and what it is worth.

    Attributes:
        requirement: Which.
        value: Its figure.
        binds: Whether easing it by a step saves slices or GPUs; None where that is not known.
        steps: Easing ones first.
    """

    requirement: Requirement
    value: float
    binds: bool | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant or kind of slice in use for a task, and the plan without it.

    Attributes:
        graph: Its name.
        task: Its name.
        what: Of which it is one.
        chosen: Its name.
        effect: Of doing without it.
        instead: What the task would get then; empty where that is not known or there is no plan.
    """

    graph: str
    task: str
    what: Literal["variant", "slice"]
    chosen: str
    effect: Effect
    instead: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of a plan.

    Attributes:
        tasks: By graph, in topological order.
        paths: By graph; of more than `MOST_PATHS` the longest through each task.
        limits: In the order of `requirements`.
        choices: By graph and task.
        seconds: That it took.
        unknown: How many effects the time limit left open.
    """

    tasks: tuple[TaskBudget, ...]
    paths: tuple[PathBudget, ...]
    limits: tuple[Limit, ...]
    choices: tuple[Choice, ...]
    seconds: float
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """For plan.json."""
        data = asdict(self)
        for limit, told in zip(self.limits, data["limits"], strict=True):
            told["requirement"] = str(limit.requirement)
        return data


def explained(
    plan: Plan, problem: Problem, options: Options, *, solvers: SolverFactory, clock: Callable[[], float]
) -> Explanation:
    """Explains a plan; some ten plans a graph are made for it, and two or more a task.

    Args:
        plan: To explain.
        problem: It was made for.
        options: It was made with; the time limit is of all that is done here.
        solvers: Makes the solver of a name, over and over.
        clock: In seconds.
    """
    return _Explaining(plan, problem.prepared(), options, solvers, clock).explanation()


class _Explaining:
    """One plan in the course of being explained; arguments as of `explained`, the problem prepared."""

    def __init__(
        self, plan: Plan, problem: Problem, options: Options, solvers: SolverFactory, clock: Callable[[], float]
    ) -> None:
        self._plan, self._problem, self._options = plan, problem, options
        self._solvers, self._clock = solvers, clock
        self._began = clock()

    def explanation(self) -> Explanation:
        """All of it."""
        budgets = {w.graph.name: self._budgets(w) for w in self._problem.workloads}
        paths = [path for w in self._problem.workloads for path in self._paths(w.graph, budgets[w.graph.name])]
        limits = tuple(self._limit(requirement) for requirement in requirements(self._problem))
        choices = tuple(self._choices())
        effects = [s.effect for limit in limits for s in limit.steps] + [choice.effect for choice in choices]
        return Explanation(
            tasks=tuple(budget for of in budgets.values() for budget in of.values()),
            paths=tuple(paths),
            limits=limits,
            choices=choices,
            seconds=round(self._clock() - self._began, 3),
            unknown=sum(effect.outcome == "unknown" for effect in effects),
        )

    def _budgets(self, workload: Workload) -> dict[str, TaskBudget]:
        graph, planned = workload.graph, self._plan.graphs[workload.graph.name]
        used = self._used(graph, planned)
        return {
            task: TaskBudget(
                graph=graph.name,
                task=task,
                latency_ms=max(c.latency_ms for c in used[task]),
                budget_ms=planned.tasks[task].budget_ms,
                accuracy=math.exp(-self._lost(graph, planned.tasks[task], used[task])),
            )
            for task in graph.tasks
        }

    def _lost(self, graph: TaskGraph, planned: TaskPlan, used: Sequence[Configuration]) -> float:
        if graph.slo.accuracy_mode == "mean":
            return mean_loss(graph, used[0].task, planned.mix)
        return max(c.loss for c in used)

    def _used(self, graph: TaskGraph, planned: GraphPlan) -> dict[str, list[Configuration]]:
        """Task -> its replicas' configurations, each as busy as its segment is planned to be."""
        table = self._problem.profiles.get(graph.name, ProfileTable(()))
        counts = Counter(
            (m.graph, m.task, m.variant, gpu.model, placed.placement.slice, m.instances, m.batch)
            for gpu in self._plan.gpus
            for placed in gpu.layout
            for m in placed.models
        )
        number = {task: sum(s.count for s in of.segments) for task, of in planned.tasks.items()}
        known: dict[Replica, list[Configuration]] = {}
        for found in available(graph, table, self._problem.boards, self._options, counts).values():
            for c in found:
                if c.replica_range[0] <= number[c.task] <= c.replica_range[1]:
                    known.setdefault(c.replica, []).append(c)
        boards = [board.name for board in self._problem.boards]
        used: dict[str, list[Configuration]] = {}
        for task, of in planned.tasks.items():
            for s in of.segments:
                replicas = [(graph.name, task, s.variant, b, s.slice, s.instances, s.batch) for b in boards]
                replicas = [replica for replica in replicas if counts[replica]]
                full_rps = sum(counts[r] * known[r][0].throughput_rps / known[r][0].utilisation for r in replicas)
                load = of.rate_rps * s.share / full_rps
                used.setdefault(task, []).extend(_as_busy(known[replica], load) for replica in replicas)
        return used

    def _paths(self, graph: TaskGraph, budgets: Mapping[str, TaskBudget]) -> Iterator[PathBudget]:
        for path in _told_paths(graph, {task: b.latency_ms for task, b in budgets.items()}):
            latency_ms = sum(budgets[task].latency_ms for task in path)
            accuracy = math.prod(budgets[task].accuracy for task in path)
            yield PathBudget(
                graph=graph.name,
                tasks=path,
                latency_ms=latency_ms,
                budget_ms=sum(budgets[task].budget_ms for task in path),
                slo_ms=graph.tasks_ms,
                slack_ms=graph.tasks_ms - latency_ms,
                accuracy=accuracy,
                slo_accuracy=graph.slo.accuracy,
                slack_accuracy=accuracy - graph.slo.accuracy,
            )

    def _limit(self, requirement: Requirement) -> Limit:
        value = value_of(self._problem, requirement)
        steps = tuple(
            Step(change, other, eases, self._effect(varied(self._problem, requirement, other))[0])
            for change, other, eases in _steps(requirement.what, value)
            if self._makes_sense(requirement, other)
        )
        easing = [step.effect for step in steps if step.eases]
        known = all(effect.outcome != "unknown" for effect in easing)
        binds = True if any(effect.saves for effect in easing) else False if known else None
        return Limit(requirement, value, binds, steps)

    def _makes_sense(self, requirement: Requirement, value: float) -> bool:
        match requirement.what:
            case "gpus":
                return len(varied(self._problem, requirement, value).cluster.gpus) > 0
            case "latency_ms":
                return all(w.graph.tasks_ms > 0 for w in varied(self._problem, requirement, value).workloads)
            case "accuracy":
                return 0 < value <= 1
            case "demand_rps":
                return value <= MAX_DEMAND_RPS

    def _choices(self) -> Iterator[Choice]:
        for name, graph in self._plan.graphs.items():
            for task, of in graph.tasks.items():
                for variant in sorted({s.variant for s in of.segments}):
                    yield self._without(name, task, "variant", variant)
                for kind in sorted({s.slice for s in of.segments}):
                    yield self._without(name, task, "slice", kind)

    def _without(self, graph: str, task: str, what: Literal["variant", "slice"], chosen: str) -> Choice:
        table = self._problem.profiles[graph]
        rows = [row for row in table.rows() if row.key.task != task or getattr(row.key, what) != chosen]
        others = replace(self._problem, profiles={**self._problem.profiles, graph: ProfileTable(rows)})
        effect, plan = self._effect(others)
        instead = plan.graphs[graph].tasks[task].segments if plan is not None else ()
        return Choice(graph, task, what, chosen, effect, instead)

    def _effect(self, problem: Problem) -> tuple[Effect, Plan | None]:
        left_s = self._began + self._options.time_limit_s - self._clock()
        if left_s <= 0:
            return Effect("unknown"), None
        limit_s = max(_LEAST_S, min(left_s, self._options.time_limit_s / _PLANS))
        try:
            plan = find_plan(problem, replace(self._options, time_limit_s=limit_s), solvers=self._solvers)
        except JigsawError:
            return Effect("unknown"), None
        return (Effect("none") if plan is None else self._compared(plan)), plan

    def _compared(self, plan: Plan) -> Effect:
        own = self._plan
        return Effect(
            "plan",
            slices=plan.slices_used - own.slices_used,
            gpus=plan.gpus_used - own.gpus_used,
            accuracy={name: graph.accuracy - own.graphs[name].accuracy for name, graph in plan.graphs.items()},
            mean_accuracy={
                w.graph.name: _mean(w.graph, plan.graphs[w.graph.name]) - _mean(w.graph, own.graphs[w.graph.name])
                for w in self._problem.workloads
            },
            proven=plan.solver.status == own.solver.status == "optimal",
        )


def _as_busy(of: Sequence[Configuration], load: float) -> Configuration:
    """Of a replica's configurations the one that allows for a load, at the least latency."""
    ascending = sorted(of, key=lambda c: (c.utilisation, c.latency_ms))
    return next((c for c in ascending if load <= c.utilisation * (1 + TOLERANCE)), ascending[-1])


def _mean(graph: TaskGraph, planned: GraphPlan) -> float:
    lost = (s.share * loss(graph.tasks[t], s.variant) for t, of in planned.tasks.items() for s in of.segments)
    return math.exp(-sum(lost))


def _steps(what: What, value: float) -> tuple[tuple[str, float, bool], ...]:
    """(change, figure, whether it eases) of what a requirement is tried with."""
    match what:
        case "gpus":
            return ("+1", value + 1, True), ("-1", value - 1, False)
        case "latency_ms":
            return ("+10 ms", value + 10, True), ("-10 ms", value - 10, False)
        case "accuracy":
            return ("-0.01", value - 0.01, True), ("+0.01", value + 0.01, False)
        case "demand_rps":
            parts = ((-0.01, True), (-0.1, True), (0.01, False), (0.1, False))
            return tuple((f"{part:+.0%}", value * (1 + part), eases) for part, eases in parts)


def _told_paths(graph: TaskGraph, latency_ms: Mapping[str, float]) -> tuple[tuple[str, ...], ...]:
    if count_paths(graph) <= MOST_PATHS:
        return graph.paths()
    beyond_all = 1.0 + sum(latency_ms.values())
    through = (longest_path(graph, {**latency_ms, task: latency_ms[task] + beyond_all}) for task in graph.tasks)
    return tuple(sorted(set(through)))
