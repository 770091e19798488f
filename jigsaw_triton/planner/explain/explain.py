"""Explanations of a plan: how it uses the SLOs, what each requirement costs, and what the next best choices would cost.

Each cost is that of a new plan with one thing changed, not a dual price of a linear relaxation: slices are integral.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from jigsaw_triton.errors import JigsawError
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, available, loss
from jigsaw_triton.planner.domain.accuracy import with_pair_losses
from jigsaw_triton.planner.domain.paths import count_paths, longest_path
from jigsaw_triton.planner.domain.plan import GraphPlan, Plan, TaskPlan
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Options, Problem
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.explain.explanation import (
    MOST_PATHS,
    Choice,
    Effect,
    Explanation,
    Limit,
    PathBudget,
    Step,
    TaskBudget,
)
from jigsaw_triton.planner.explain.requirement import Requirement, What, requirements, value_of, varied
from jigsaw_triton.planner.formulation.mixture import mean_loss
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan
from jigsaw_triton.profiles.table import ProfileTable

_PLANS = 5
"""Number of plans at their full duration that fit into the time limit."""

_COST_DIGITS = 9
"""Decimal places of a difference of costs: further ones are errors of floating point."""

_LEAST_S = 0.1
"""Smallest time limit of a plan, in seconds."""


def explained(
    plan: Plan, problem: Problem, options: Options, *, solvers: SolverFactory, clock: Callable[[], float]
) -> Explanation:
    """Explains a plan by making about ten other plans for each graph, and two or more for each task.

    Args:
        plan: Plan to explain.
        problem: Problem that it was made for.
        options: Options that it was made with; the time limit holds for the whole explanation.
        solvers: Factory of solvers by name; it is called repeatedly.
        clock: Clock for the time limit, in seconds.
    """
    return _Explaining(plan, problem.prepared(options), options, solvers, clock).explanation()


class _Explaining:
    """Explains one plan; the arguments are those of `explained`, with the problem prepared."""

    def __init__(
        self, plan: Plan, problem: Problem, options: Options, solvers: SolverFactory, clock: Callable[[], float]
    ) -> None:
        self._plan, self._problem, self._options = plan, problem, options
        self._solvers, self._clock = solvers, clock
        self._began = clock()

    def explanation(self) -> Explanation:
        """Returns the complete explanation."""
        budgets = {w.graph.name: self._budgets(w) for w in self._problem.workloads}
        paths = [path for w in self._problem.workloads for path in self._paths(w.graph, budgets[w.graph.name])]
        limits = tuple(self._limit(requirement) for requirement in requirements(self._problem))
        choices = tuple(self._choices())
        effects = [s.effect for limit in limits for s in limit.steps] + [choice.effect for choice in choices]
        return Explanation(
            tasks=tuple(budget for tasks in budgets.values() for budget in tasks.values()),
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
        """Returns the configurations of each task's replicas, at the utilisation planned for their segment."""
        table = self._problem.profiles.get(graph.name, ProfileTable(()))
        counts = Counter(
            (m.graph, m.task, m.variant, gpu.model, placed.placement.slice, m.instances, m.batch)
            for gpu in self._plan.gpus
            for placed in gpu.layout
            for m in placed.models
        )
        number = {name: sum(s.count for s in task.segments) for name, task in planned.tasks.items()}
        known: dict[Replica, list[Configuration]] = {}
        for found in available(graph, table, self._problem.boards, self._options, counts).values():
            for c in found:
                if c.replica_range[0] <= number[c.task] <= c.replica_range[1]:
                    known.setdefault(c.replica, []).append(c)
        boards = [board.name for board in self._problem.boards]
        used: dict[str, list[Configuration]] = {}
        for name, task in planned.tasks.items():
            for s in task.segments:
                replicas = [(graph.name, name, s.variant, b, s.slice, s.instances, s.batch) for b in boards]
                replicas = [replica for replica in replicas if counts[replica]]
                full_rps = sum(counts[r] * known[r][0].throughput_rps / known[r][0].utilisation for r in replicas)
                load = task.rate_rps * s.share / full_rps
                used.setdefault(name, []).extend(_as_busy(known[replica], load) for replica in replicas)
        return used

    def _paths(self, graph: TaskGraph, budgets: Mapping[str, TaskBudget]) -> Iterator[PathBudget]:
        used = {task: set(planned.mix) for task, planned in self._plan.graphs[graph.name].tasks.items()}
        lost = with_pair_losses(graph, {task: -math.log(b.accuracy) for task, b in budgets.items()}, used)
        for path in _reported_paths(graph, {task: b.latency_ms for task, b in budgets.items()}):
            latency_ms = math.fsum(budgets[task].latency_ms for task in path)
            accuracy = math.exp(-math.fsum(lost[task] for task in path))
            yield PathBudget(
                graph=graph.name,
                tasks=path,
                latency_ms=latency_ms,
                budget_ms=math.fsum(budgets[task].budget_ms for task in path),
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
            case "survive":
                return 0 <= value <= 1
            case "latency_ms":
                return all(w.graph.tasks_ms > 0 for w in varied(self._problem, requirement, value).workloads)
            case "accuracy":
                return 0 < value <= 1
            case "demand_rps":
                return value <= MAX_DEMAND_RPS

    def _choices(self) -> Iterator[Choice]:
        for name, graph in self._plan.graphs.items():
            for task, planned in graph.tasks.items():
                for variant in sorted({s.variant for s in planned.segments}):
                    yield self._without(name, task, "variant", variant)
                for kind in sorted({s.slice for s in planned.segments}):
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
            cost=self._cost(plan, own),
            gpus=plan.gpus_used - own.gpus_used,
            accuracy={name: graph.accuracy - own.graphs[name].accuracy for name, graph in plan.graphs.items()},
            mean_accuracy={
                w.graph.name: _mean(w.graph, plan.graphs[w.graph.name]) - _mean(w.graph, own.graphs[w.graph.name])
                for w in self._problem.workloads
            },
            proven=plan.solver.status == own.solver.status == "optimal",
        )

    def _cost(self, plan: Plan, own: Plan) -> float | None:
        """Returns the additional cost of a plan, by the costs of the explained problem."""
        more, less = (self._problem.cost_of(of.gpus) for of in (plan, own))
        return round(more.used - less.used, _COST_DIGITS) if more is not None and less is not None else None


def _as_busy(configs: Sequence[Configuration], load: float) -> Configuration:
    """Returns the configuration of a replica that permits a load, at the least latency."""
    ascending = sorted(configs, key=lambda c: (c.utilisation, c.latency_ms))
    return next((c for c in ascending if load <= c.utilisation * (1 + TOLERANCE)), ascending[-1])


def _mean(graph: TaskGraph, planned: GraphPlan) -> float:
    lost = (s.share * loss(graph.tasks[name], s.variant) for name, t in planned.tasks.items() for s in t.segments)
    return math.exp(-sum(lost))


def _steps(what: What, value: float) -> tuple[tuple[str, float, bool], ...]:
    """Returns the other values to try: the change as text, the value, and True if it relaxes the requirement."""
    match what:
        case "gpus":
            return ("+1", value + 1, True), ("-1", value - 1, False)
        case "survive":
            return ("-0.1", max(0.0, round(value - 0.1, 9)), True), ("+0.1", round(value + 0.1, 9), False)
        case "latency_ms":
            return ("+10 ms", value + 10, True), ("-10 ms", value - 10, False)
        case "accuracy":
            return ("-0.01", value - 0.01, True), ("+0.01", value + 0.01, False)
        case "demand_rps":
            parts = ((-0.01, True), (-0.1, True), (0.01, False), (0.1, False))
            return tuple((f"{part:+.0%}", value * (1 + part), eases) for part, eases in parts)


def _reported_paths(graph: TaskGraph, latency_ms: Mapping[str, float]) -> tuple[tuple[str, ...], ...]:
    if count_paths(graph) <= MOST_PATHS:
        return graph.paths()
    beyond_all = 1.0 + sum(latency_ms.values())
    through = (longest_path(graph, {**latency_ms, task: latency_ms[task] + beyond_all}) for task in graph.tasks)
    return tuple(sorted(set(through)))
