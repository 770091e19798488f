"""Remembers plans: a controller asks for similar plans thousands of times in a simulation of days."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from jigsaw_triton.gpus.model import Placement
from jigsaw_triton.planner.domain.plan import GraphPlan, PlacedModel, Plan, PlannedGpu
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.validation.validate import violations

TIME_LIMIT_S = 120.0
"""Time limit of a solve in a simulation. It is long, so that a busy machine does not change the result."""

_DIGITS = 6
"""Decimal digits to which the accuracies of equally good plans agree."""


@dataclass(slots=True)
class _Remembered:
    """Optimal plan, with what is known of the demands for which it is valid.

    Latencies and the rates of replicas rise with the demand. So a plan is valid between two demands for which it is
    valid, and invalid above a demand for which it is not.

    Attributes:
        plan: Plan, for the demand that it was made for.
        valid_rps: Graph -> lowest and highest demand for which the plan is valid.
        invalid_rps: Demands by graph for which the plan is not valid.
    """

    plan: Plan
    valid_rps: dict[str, tuple[float, float]]
    invalid_rps: list[Mapping[str, float]] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan) -> "_Remembered":
        """Remembers a plan, which is valid for its own demand."""
        return cls(plan, {name: (graph.demand_rps, graph.demand_rps) for name, graph in plan.graphs.items()})

    def is_valid(self, found: Plan, problem: Problem, options: Options) -> bool:
        """Returns True if the plan is valid for a problem.

        Args:
            found: The plan for the demand of the problem.
            problem: Problem.
            options: Options of planning.
        """
        demand_rps = {w.graph.name: w.demand_rps for w in problem.workloads}
        if all(self.valid_rps[name][0] <= rps <= self.valid_rps[name][1] for name, rps in demand_rps.items()):
            return True
        if any(all(demand_rps[name] >= rps for name, rps in one.items()) for one in self.invalid_rps):
            return False
        if violations(found, problem, options):
            self.invalid_rps.append(demand_rps)
            return False
        for name, rps in demand_rps.items():
            low, high = self.valid_rps[name]
            self.valid_rps[name] = (min(low, rps), max(high, rps))
        return True


@dataclass(frozen=True, slots=True)
class _Known:
    """Plans of problems that differ only in their demand and in what runs.

    Attributes:
        problem: One of these problems. It keeps its graphs and profiles alive, which are known by identity.
        plans: Optimal plans.
    """

    problem: Problem
    plans: list[_Remembered] = field(default_factory=list)


class PlanMemory:
    """Gives a remembered plan where it is optimal for the demand as well.

    If the demand grows, fewer plans are feasible, and what is minimised does not depend on the demand: slices, then
    GPUs, then the loss of accuracy. So if a plan for a lower demand is no better than one for a higher demand, the
    latter is optimal for all demands from the lower one to its own capacity. The planner's last criterion, the replicas
    that stay, decides only among the remembered plans here, with their GPUs renamed. A change may therefore move more
    replicas than a real one, and never costs less.
    """

    def __init__(self) -> None:
        self._known: dict[object, _Known] = {}

    def plan(self, problem: Problem, options: Options, make: Callable[[], Plan]) -> Plan:
        """Returns the plan of a problem.

        Args:
            problem: Problem to plan for.
            options: Options of planning.
            make: Planner of this problem, whose errors are passed on.
        """
        if problem.averages or options.share or options.change_price or problem.survive or len(problem.boards) > 1:
            return make()
        known = self._known.setdefault(_key(problem, options), _Known(problem))
        reached = {_value(p.plan) for p in known.plans if _exceeds_demand_of(problem, p.plan)}
        able = [p for p in known.plans if _value(p.plan) in reached and _may_carry(p.plan, problem)]
        fitting = [(_beside(_for_demand(p.plan, problem), problem), p) for p in able]
        for found, remembered in sorted(fitting, key=lambda pair: -_staying(pair[0].gpus, problem.running)):
            if remembered.is_valid(found, problem, options):
                return found
        plan = make()
        if plan.solver.status == "optimal":
            known.plans.append(_Remembered.of(plan))
        return plan


def _key(problem: Problem, options: Options) -> object:
    """Returns what the slices, the GPUs and the accuracy of a plan depend on, except the demand."""
    parts = [(w.graph.name, id(w.graph), id(problem.profiles[w.graph.name])) for w in problem.workloads]
    return options, id(problem.cluster), *parts


def _value(plan: Plan) -> tuple[object, ...]:
    """Returns what the planner minimises or maximises, except the replicas that stay."""
    accuracies = sorted((name, round(graph.accuracy, _DIGITS)) for name, graph in plan.graphs.items())
    return plan.slices_used, plan.gpus_used, *accuracies


def _exceeds_demand_of(problem: Problem, plan: Plan) -> bool:
    return all(w.demand_rps >= plan.graphs[w.graph.name].demand_rps for w in problem.workloads)


def _may_carry(plan: Plan, problem: Problem) -> bool:
    return all(w.demand_rps <= plan.graphs[w.graph.name].capacity_rps for w in problem.workloads)


def _for_demand(plan: Plan, problem: Problem) -> Plan:
    """Returns the plan with all rates in proportion to the demand."""
    graphs = {w.graph.name: _scaled(plan.graphs[w.graph.name], w.demand_rps) for w in problem.workloads}
    return replace(plan, graphs=graphs)


def _scaled(graph: GraphPlan, demand_rps: float) -> GraphPlan:
    factor = demand_rps / graph.demand_rps
    tasks = {name: replace(task, rate_rps=task.rate_rps * factor) for name, task in graph.tasks.items()}
    return replace(graph, demand_rps=demand_rps, tasks=tasks)


def _beside(plan: Plan, problem: Problem) -> Plan:
    """Returns the plan with its GPUs renamed so that many of the running replicas stay.

    Pairs of a new and a running GPU with the most replicas in common come first. GPUs with instances of others keep
    their names.
    """
    running = {gpu.id: gpu for gpu in problem.running.gpus} if problem.running is not None else {}
    free = [gpu for gpu in problem.cluster.gpus if not gpu.foreign]
    own = {gpu.id for gpu in free}
    pairs = sorted(
        (-_common(gpu, running.get(target.id)), i, j)
        for i, gpu in enumerate(plan.gpus)
        for j, target in enumerate(free)
        if gpu.id in own and target.board.name == gpu.model
    )
    targets: dict[int, int] = {}
    for _, i, j in pairs:
        if i not in targets and j not in targets.values():
            targets[i] = j
    named = (replace(gpu, id=free[targets[i]].id) if i in targets else gpu for i, gpu in enumerate(plan.gpus))
    return replace(plan, gpus=tuple(sorted(named, key=lambda gpu: gpu.id)))


def _staying(gpus: tuple[PlannedGpu, ...], running: Plan | None) -> int:
    """Returns the number of slices that stay in place with their models."""
    before = {gpu.id: gpu for gpu in running.gpus} if running is not None else {}
    return sum(_common(gpu, before.get(gpu.id)) for gpu in gpus)


def _common(gpu: PlannedGpu, other: PlannedGpu | None) -> int:
    return len(_slices(gpu) & _slices(other)) if other is not None else 0


def _slices(gpu: PlannedGpu) -> set[tuple[Placement, tuple[PlacedModel, ...]]]:
    """Returns the slices with the models that serve; remembered plans have no standby variants yet."""
    return {(placed.placement, placed.models) for placed in gpu.layout}
