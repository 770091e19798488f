"""Conflicts: a smallest set of requirements that cannot be satisfied together, and the nearest feasible value of each.

The search solves the problem repeatedly with requirements dropped or relaxed, so it works with any options of planning.
A requirement is dropped by relaxing it to a value that no longer constrains any plan.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from jigsaw_triton.errors import InfeasibleError, JigsawError
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, TaskConfigurations, available
from jigsaw_triton.planner.candidates.filters import even_parts
from jigsaw_triton.planner.domain.accuracy import pair_tables
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.rates import most_calls
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.explain.requirement import Requirement, requirements, value_of, varied
from jigsaw_triton.planner.search.bisection import bisect
from jigsaw_triton.planner.search.diagnosis import rounded_down, rounded_up
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan, has_plan, largest_demand
from jigsaw_triton.profiles.table import ProfileTable

MOST_GPUS = 10_000
"""Number of additional GPUs at which the requirement on GPUs counts as dropped."""

LATENCY_GAP = 1e-4
"""Relative gap of the nearest feasible latency."""

ACCURACY_GAP = 1e-4
"""Absolute gap of the nearest feasible mean accuracy."""

SHARE_GAP = 0.01
"""Absolute gap of the largest share of the demand that a loss can leave."""

_LOSS_GAP = TOLERANCE
"""Distance below which two losses of accuracy count as one."""

_PROBES = 5
"""Number of feasibility checks at their full duration that fit into the time limit."""

_LEAST_S = 0.1
"""Smallest time limit of a feasibility check, in seconds."""

Clock = Callable[[], float]
"""Clock, in seconds."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a problem has no plan.

    Attributes:
        requirements: Requirements that cannot be satisfied together; without any one of them the others can.
        nearest: Nearest feasible value of each requirement of the problem, all others kept; None if there is none.
        unsettled: Requirements whose part in the conflict, or whose nearest value, the time limit left open.
    """

    requirements: tuple[Requirement, ...]
    nearest: Mapping[Requirement, float | None]
    unsettled: frozenset[Requirement]


def find_conflict(problem: Problem, options: Options, *, solvers: SolverFactory, clock: Clock) -> Conflict | None:
    """Returns the conflict of a problem that has no plan; None if it lacks profiles, whatever the requirements.

    Args:
        problem: Problem without a plan.
        options: Options of planning; the time limit holds for the whole search.
        solvers: Factory of solvers by name; it is called repeatedly.
        clock: Clock for the time limit.
    """
    search = _Search(problem.prepared(options), options, solvers, clock)
    if not search.has_plan_without(search.all):
        return None
    found = search.conflict()
    nearest = {r: search.nearest(r) if r in found else None for r in search.all}
    return Conflict(tuple(found), nearest, frozenset(search.unsettled))


def with_conflict(error: InfeasibleError, problem: Problem, conflict: Conflict) -> InfeasibleError:
    """Returns the error with the conflict among its reasons, and the ways to resolve it as its hint."""
    several = len(problem.workloads) > 1
    reasons = [*error.reasons]
    # A conflict within the SLO is among the reasons already.
    if len(conflict.requirements) > 1 and any(
        r.what in ("gpus", "survive", "demand_rps") for r in conflict.requirements
    ):
        reasons.append(
            f"these cannot be satisfied together: {', '.join(_words(r, problem) for r in conflict.requirements)}"
        )
    if conflict.unsettled:
        reasons.append("the time limit ended the search for conflicting requirements; allow more with --time-limit")
    ways = [_way(r, value, several) for r, value in conflict.nearest.items() if value is not None]
    return InfeasibleError(
        reasons,
        hint=", or ".join(ways) or error.hint,
        conflict=[str(r) for r in conflict.requirements],
        nearest={str(r): value for r, value in conflict.nearest.items()},
        unsettled=sorted(map(str, conflict.unsettled)),
    )


def _words(requirement: Requirement, problem: Problem) -> str:
    value, subject = value_of(problem, requirement), requirement.subject
    match requirement.what:
        case "gpus":
            return f"{value:g} GPU{'' if value == 1 else 's'} of {subject}"
        case "survive":
            return f"{value:.0%} of the demand after the loss of a {subject}"
        case "latency_ms":
            return f"{subject}'s latency of {value:g} ms"
        case "accuracy":
            return f"{subject}'s accuracy of {value:g}"
        case "demand_rps":
            return f"{subject}'s demand of {value:g} requests/s"


def _way(requirement: Requirement, value: float, several: bool) -> str:
    of_graph = f" of {requirement.subject}" if several else ""
    match requirement.what:
        case "gpus":
            return f"give the cluster {value:.0f} GPUs of {requirement.subject}"
        case "survive" if value <= 0:
            return "leave out `survive`"
        case "survive":
            return f"lower the share of `survive` to {rounded_down(value)}"
        case "latency_ms":
            return f"raise latency_ms{of_graph} to {rounded_up(value)}"
        case "accuracy":
            return f"lower accuracy{of_graph} to {rounded_down(value)}"
        case "demand_rps":
            return f"lower the demand{of_graph} to {rounded_down(value)} requests/s"


class _Search:
    """Search for the conflict of one problem, by feasibility checks.

    Args:
        problem: Prepared problem.
        options: Options of planning.
        solvers: Factory of solvers.
        clock: Clock for the time limit.
    """

    def __init__(self, problem: Problem, options: Options, solvers: SolverFactory, clock: Clock) -> None:
        self._problem, self._options, self._solvers, self._clock = problem, options, solvers, clock
        self._deadline = clock() + options.time_limit_s
        self._available = _available(problem, options)
        self._dropped = _unconstraining(problem, self._available)
        self.all = requirements(problem)
        self.unsettled: set[Requirement] = set()

    def has_plan_without(self, dropped: Collection[Requirement]) -> bool | None:
        """Returns True if there is a plan without these requirements; None if time ran out."""
        problem = self._problem
        for requirement in dropped:
            problem = varied(problem, requirement, self._dropped[requirement])
        return self._has_plan(problem)

    def conflict(self) -> list[Requirement]:
        """Finds the conflict by deletion: drops GPUs, then graph by graph, whatever leaves the rest without a plan."""
        dropped: set[Requirement] = set()
        subjects = dict.fromkeys(r.subject for r in self.all)
        for subject in subjects:
            group = [r for r in self.all if r.subject == subject]
            if self.has_plan_without(dropped.union(group)) is False:
                dropped.update(group)
            else:
                self._drop_singly(group, dropped)
        return [r for r in self.all if r not in dropped]

    def _drop_singly(self, group: Sequence[Requirement], dropped: set[Requirement]) -> None:
        for requirement in group:
            match self.has_plan_without({*dropped, requirement}):
                case False:
                    dropped.add(requirement)
                case None:
                    self.unsettled.add(requirement)

    def nearest(self, requirement: Requirement) -> float | None:
        """Returns the nearest feasible value, or the nearest found when time runs out; None if there is none."""
        match self.has_plan_without([requirement]):
            case None:
                self.unsettled.add(requirement)
                return None
            case False:
                return None
        match requirement.what:
            case "gpus":
                return self._fewest_gpus(requirement)
            case "survive":
                return self._largest_share(requirement)
            case "demand_rps":
                return self._largest_demand(requirement)
            case "latency_ms":
                return self._least_latency(requirement)
            case "accuracy":
                return self._greatest_accuracy(requirement)

    def _least_latency(self, requirement: Requirement) -> float:
        """Returns the latency of the plan at the least feasible one, which bisection finds within `LATENCY_GAP`."""
        if "T" not in self._options.features:
            return self._least_latency_of_even_parts(requirement)
        # The bisection is over logarithms, since the latency that constrains no plan may be many times the SLO.
        slo, nothing = math.log(value_of(self._problem, requirement)), math.log(self._dropped[requirement])
        least, _ = bisect(
            lambda log_ms: self._suffices(requirement, math.exp(log_ms)), nothing, slo, abs_tol=math.log1p(LATENCY_GAP)
        )
        enough = math.exp(least) if least < nothing else self._dropped[requirement]
        try:
            plan = find_plan(varied(self._problem, requirement, enough), self._limited(), solvers=self._solvers)
        except JigsawError:
            plan = None
        return plan.graphs[requirement.subject].latency_ms if plan else enough

    def _least_latency_of_even_parts(self, requirement: Requirement) -> float:
        """Returns the least feasible latency with even parts, of those at which a configuration just fits its part."""
        parts = even_parts(self._workload(requirement).graph)
        configurations = self._available[requirement.subject]
        needed = {c.latency_ms / parts[task] for task, configs in configurations.items() for c in configs}
        slo, nothing = value_of(self._problem, requirement), self._dropped[requirement]
        between = sorted(latency_ms for latency_ms in needed if slo < latency_ms < nothing)
        first = bisect_left(between, True, key=lambda latency_ms: self._suffices(requirement, latency_ms))
        return between[first] if first < len(between) else nothing

    def _greatest_accuracy(self, requirement: Requirement) -> float:
        """Returns the greatest feasible accuracy, among those that configurations can reach along a path."""
        workload = self._workload(requirement)
        if workload.graph.slo.accuracy_mode == "mean" and "T" in self._options.features:
            return self._greatest_mean_accuracy(requirement)
        nothing, slo = self._dropped[requirement], value_of(self._problem, requirement)
        reached = (math.exp(-loss) for loss in losses(workload.graph, self._available[requirement.subject]))
        between = [accuracy for accuracy in reached if nothing < accuracy < slo]
        first = bisect_left(between, True, key=lambda accuracy: self._suffices(requirement, accuracy))
        return between[first] if first < len(between) else nothing

    def _greatest_mean_accuracy(self, requirement: Requirement) -> float:
        """Returns the greatest feasible mean accuracy by bisection, since shares can reach any value."""
        slo, nothing = value_of(self._problem, requirement), self._dropped[requirement]
        enough, _ = bisect(partial(self._suffices, requirement), nothing, slo, abs_tol=ACCURACY_GAP)
        return enough

    def _workload(self, requirement: Requirement) -> Workload:
        (workload,) = (w for w in self._problem.workloads if w.graph.name == requirement.subject)
        return workload

    def _fewest_gpus(self, requirement: Requirement) -> float:
        """Returns the fewest GPUs, by doubling steps and then bisection: a few more are likelier than many."""
        too_few, enough = round(value_of(self._problem, requirement)), round(self._dropped[requirement])
        step = 1
        while enough - too_few > 1:
            number = min(too_few + step, (too_few + enough) // 2)
            if self._suffices(requirement, number):
                enough, step = number, 1
            else:
                too_few, step = number, 2 * step
        return enough

    def _largest_share(self, requirement: Requirement) -> float:
        """Returns the largest share of the demand that a loss can leave, by bisection."""
        asked = value_of(self._problem, requirement)
        enough, _ = bisect(partial(self._suffices, requirement), 0.0, asked, abs_tol=SHARE_GAP)
        return enough

    def _largest_demand(self, requirement: Requirement) -> float | None:
        graph = requirement.subject
        left = replace(self._options, time_limit_s=max(_LEAST_S, self._deadline - self._clock()))
        try:
            largest = largest_demand(self._problem, left, scaled=[graph], solvers=self._solvers)
        except JigsawError:
            self.unsettled.add(requirement)
            return None
        if not largest.proven:
            self.unsettled.add(requirement)
        return largest.rps[graph]

    def _suffices(self, requirement: Requirement, value: float) -> bool:
        """Returns True if there is a plan with this value; False also if time ran out."""
        known = self._has_plan(varied(self._problem, requirement, value))
        if known is None:
            self.unsettled.add(requirement)
        return bool(known)

    def _has_plan(self, problem: Problem) -> bool | None:
        if self._clock() >= self._deadline:
            return None
        try:
            return has_plan(problem, self._limited(), solvers=self._solvers)
        except JigsawError:
            return None

    def _limited(self) -> Options:
        left_s = min(self._deadline - self._clock(), self._options.time_limit_s / _PROBES)
        return replace(self._options, time_limit_s=max(_LEAST_S, left_s))


def losses(graph: TaskGraph, configurations: TaskConfigurations) -> list[float]:
    """Returns, ascending, the losses of accuracy that can limit a plan: along paths, and of tasks by even parts."""
    upto: dict[str, list[float]] = {}
    parts = even_parts(graph)
    found: list[float] = []
    for name, task in graph.tasks.items():
        own = {c.loss for c in configurations[name]}
        before = {loss for d in graph.before(task) for loss in upto[d]} or {0.0}
        upto[name] = _distinct(a + b for a in before for b in own)
        found += [*upto[name], *(loss / parts[name] for loss in own)]
    found += [loss for table in pair_tables(graph) for loss in table.loss.values()]
    return _distinct(found)


def _distinct(losses: Iterable[float]) -> list[float]:
    """Returns the losses ascending; of almost equal ones the greatest, which permits all of them."""
    greatest: dict[int, float] = {}
    for loss in losses:
        number = round(loss / _LOSS_GAP)
        greatest[number] = max(loss, greatest.get(number, 0.0))
    return sorted(greatest.values())


def _available(problem: Problem, options: Options) -> dict[str, TaskConfigurations]:
    return {
        w.graph.name: available(w.graph, problem.profiles.get(w.graph.name, ProfileTable(())), problem.boards, options)
        for w in problem.workloads
    }


def _unconstraining(problem: Problem, everything: Mapping[str, TaskConfigurations]) -> dict[Requirement, float]:
    """Returns for each requirement a value that no longer constrains any plan."""
    found: dict[Requirement, float] = {}
    gpus = {board.name: 0.0 for board in problem.boards}
    for workload in problem.workloads:
        graph = workload.graph
        configurations = everything[graph.name]
        found |= _slo_for_all(workload, configurations)
        calls = most_calls(graph, {name: {v.name for v in task.variants} for name, task in graph.tasks.items()})
        slowest_rps = workload.demand_rps
        for task, configs in configurations.items():
            for c in configs:
                if calls[task] > 0:
                    slowest_rps = min(slowest_rps, c.throughput_rps / calls[task])
            for board in gpus:
                gpus[board] += _replicas(workload.demand_rps * calls[task], [c for c in configs if c.board == board])
        found[Requirement(graph.name, "demand_rps")] = slowest_rps
    if problem.cluster.survive is not None:
        found[Requirement(problem.cluster.survive.loss_of, "survive")] = 0.0
    for board, more in gpus.items():
        requirement = Requirement(board, "gpus")
        found[requirement] = value_of(problem, requirement) + min(more, MOST_GPUS)
    return found


def _slo_for_all(workload: Workload, configurations: TaskConfigurations) -> dict[Requirement, float]:
    """Returns the SLO that a graph meets with any configurations, even if each task has an even part of it."""
    graph, every = workload.graph, [c for configs in configurations.values() for c in configs]
    tasks = len(graph.tasks)
    slowest_ms = graph.steps_ms + tasks * max((c.latency_ms for c in every), default=0.0)
    together = [loss for table in pair_tables(graph) for loss in table.loss.values()]
    least = math.exp(-tasks * max([*(c.loss for c in every), *together], default=0.0))
    return {
        Requirement(graph.name, "latency_ms"): max(graph.slo.latency_ms, slowest_ms),
        Requirement(graph.name, "accuracy"): min(graph.slo.accuracy, least),
    }


def _replicas(rate_rps: float, configs: Collection[Configuration]) -> int:
    """Returns a number of replicas of a task that suffices for its calls and latency, whatever the configuration."""
    if not configs:
        return 0
    carry_all = 1 + math.ceil(rate_rps / min(c.throughput_rps for c in configs))
    return max(carry_all, *(c.replica_range[0] for c in configs))
