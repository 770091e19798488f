"""The paper's controller over a trace: JigsawServe as far as its authors describe it (arXiv 2603.08797).

- It plans again every 300 s, and never in between. The demand is the mean of the last 300 s, which is an assumption.
- The plan is the paper's: slices without layouts, 2 x p95 without rounds, greedy placement. If no plan carries the
  demand, it takes that of the largest demand.
- It ignores what runs, as no published part of the formulation depends on it.
- A GPU that is cut anew is out of service until all its servers have started. A slice that stays and gets another model
  is out of service until the model is loaded. Everything begins at once.

The paper's multiplicative factors are the means of the last five intervals. Simulated requests make as many rows on
average as the graph says, so these factors are the graph's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.simulator.accounting import (
    NEVER_S,
    Change,
    Curve,
    Replica,
    all_on_time,
)
from jigsaw_triton.evaluation.simulator.curves import MakeCurve, within_processors
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.capacity import Service
from jigsaw_triton.planner.domain.plan import PlacedSlice, Plan, PlannedGpu
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, make_largest_plan, make_plan
from jigsaw_triton.planner.transition.moves import Durations
from jigsaw_triton.profiles.table import ProfileKey

PERIOD_S = 300.0
"""Seconds between two plans."""

LEAST_RPS = 1e-3
"""Smallest demand to plan for: a plan always serves every graph."""

Plans = Callable[[Problem, Options], Plan]
"""Planner of the paper's controller; it raises a JigsawError if there is no plan at any demand."""

PlaceOf = tuple[GpuId, Placement]


def largest_if_short(problem: Problem, options: Options, solvers: SolverFactory) -> Plan:
    """Plans for the demand, or for the largest part of it that the cluster carries."""
    try:
        return make_plan(problem, options, solvers=solvers)
    except InfeasibleError:
        return make_largest_plan(problem, options, solvers=solvers)


def outages_s(before: Plan, after: Plan, durations: Durations) -> dict[PlaceOf, float]:
    """Returns, for each slice of a plan that is not in service at once, the seconds until it is."""
    layouts = {gpu.id: gpu.layout for gpu in before.gpus}
    found: dict[PlaceOf, float] = {}
    for gpu in after.gpus:
        layout = layouts.get(gpu.id, ())
        models = {placed.placement: placed.models for placed in layout}
        if [placed.placement for placed in layout] == [placed.placement for placed in gpu.layout]:
            loading_s = durations.drain_s + durations.load_s + durations.shares_s
            found |= {(gpu.id, p.placement): loading_s for p in gpu.layout if models[p.placement] != p.models}
        else:
            freeing_s = durations.drain_s + durations.destroy_s if layout else 0.0
            starting_s = max(durations.adding_s(placed.models) for placed in gpu.layout)
            found |= {(gpu.id, placed.placement): freeing_s + starting_s for placed in gpu.layout}
    return found


@dataclass(frozen=True, slots=True)
class _Serving:
    """A plan that serves.

    Attributes:
        plan: Plan.
        back_s: Slice that is out of service -> time at which it is back.
    """

    plan: Plan
    back_s: Mapping[PlaceOf, float]

    def in_service(self) -> "tuple[tuple[PlannedGpu, PlacedSlice], ...]":
        """Returns the slices in service with their GPUs."""
        return tuple(
            (gpu, placed)
            for gpu in self.plan.gpus
            for placed in gpu.layout
            if (gpu.id, placed.placement) not in self.back_s
        )

    def at(self, now_s: float) -> "_Serving":
        """Returns what serves at a later time, if the plan stays."""
        return replace(self, back_s={place: back_s for place, back_s in self.back_s.items() if back_s > now_s})


class PaperDeployment:
    """A simulated deployment under the paper's controller, which serves from the start.

    Args:
        wanted: Deployment input, with the paper's formulation.
        plan: Planner.
        durations: Durations of operations.
        solve_s: Seconds that planning takes.
        make_curve: Function that returns the curve of what a plan's servers answer on time.

    Raises:
        JigsawError: No plan is feasible at any demand.
    """

    def __init__(
        self, wanted: Wanted, plan: Plans, durations: Durations, solve_s: float, make_curve: MakeCurve
    ) -> None:
        self._wanted, self._make, self._durations, self._solve_s = wanted, plan, durations, solve_s
        self._make_curve = make_curve
        self.now_s = 0.0
        self._number = 1
        self._serving = _Serving(self._plan(wanted.demand_rps), {})
        self._solved: tuple[float, Plan, str] | None = None
        self._plan_at_s = PERIOD_S
        self._counts = dict.fromkeys(wanted.graphs, 0.0)
        self._changes: list[Change] = []
        self._curves = self._measured()

    @property
    def next_s(self) -> float:
        """Time of the next event; infinite if none is due."""
        solved_s = self._solved[0] if self._solved is not None else NEVER_S
        return min(solved_s, *self._serving.back_s.values(), NEVER_S)

    def advance(self, to_s: float) -> None:
        """Moves the time on and handles all events that are due."""
        due = self.next_s <= to_s
        self.now_s = to_s
        if due:
            self._serving = self._serving.at(to_s)
            if self._solved is not None and self._solved[0] <= to_s:
                _, plan, reason = self._solved
                self._solved = None
                self._adopt(plan, reason)
            self._curves = self._measured()

    def begin_second(self, rates_rps: Mapping[str, float]) -> None:
        """Does nothing: this controller looks at its counters every five minutes."""

    def tick(self, rates_rps: Mapping[str, float]) -> None:
        """Handles the arrivals of the last second."""
        for name, rate in rates_rps.items():
            self._counts[name] += rate
        if self.now_s >= self._plan_at_s:
            demand_rps = {name: max(LEAST_RPS, count / PERIOD_S) for name, count in self._counts.items()}
            self._counts = dict.fromkeys(self._counts, 0.0)
            self._plan_at_s += PERIOD_S
            reason = ", ".join(f"{name} received {rps:.3g}/s" for name, rps in demand_rps.items())
            self._solved = (self.now_s + self._solve_s, self._plan(demand_rps), reason)

    def curves(self) -> Mapping[str, Curve]:
        """Returns the curve of the servers that serve each graph now."""
        return self._curves

    def replicas(self) -> frozenset[Replica]:
        """Returns the replicas in service."""
        return frozenset(
            Replica(place, m.graph, ProfileKey(gpu.model, m.task, m.variant, kind, m.instances, m.batch))
            for gpu, placed in self._serving.in_service()
            for place, kind in ((f"{gpu.id}/{placed.placement}", placed.placement.slice),)
            for m in placed.models
        )

    def slices(self) -> int:
        """Returns the compute slices of all MIG instances."""
        return self._serving.plan.slices_used

    def accuracy(self, graph: str) -> float:
        """Returns the accuracy of the running plan."""
        return self._serving.plan.graphs[graph].accuracy

    def changes(self) -> Sequence[Change]:
        """Returns the changes so far, with times on the system's clock."""
        return self._changes

    def _plan(self, demand_rps: Mapping[str, float]) -> Plan:
        wanted = self._wanted
        workloads = tuple(Workload(graph, demand_rps[name]) for name, graph in sorted(wanted.graphs.items()))
        return self._make(Problem(workloads, wanted.cluster, wanted.profiles), wanted.options)

    def _adopt(self, plan: Plan, reason: str) -> None:
        before = self._serving.plan
        outages = outages_s(before, plan, self._durations)
        self._serving = _Serving(plan, {place: self.now_s + seconds for place, seconds in outages.items()})
        if plan.gpus != before.gpus:
            self._number += 1
            taken_s = self._solve_s + max(outages.values(), default=0.0)
            begun_s = self.now_s - self._solve_s
            self._changes.append(Change(begun_s, taken_s, self._number, reason, plan.slices_used))

    def _measured(self) -> dict[str, Curve]:
        wanted, plan = self._wanted, self._serving.plan
        workloads = tuple(Workload(graph, plan.graphs[name].demand_rps) for name, graph in wanted.graphs.items())
        problem = Problem(workloads, wanted.cluster, wanted.profiles)
        service = Service(problem.prepared(), plan, wanted.options)
        serving = 0 * service.start
        for gpu, placed in self._serving.in_service():
            serving = serving + service.rates(placed.models, gpu.model, placed.placement.slice)
        now = service.capacities(serving)
        curves = {}
        for name, graph in wanted.graphs.items():
            whole_rps = service.after_rps[name]
            curve = self._make_curve(graph, plan.gpus, wanted.profiles[name], whole_rps)
            curves[name] = curve.scaled(now[name] / whole_rps) if whole_rps > 0 else all_on_time(0.0)
        return within_processors(curves, plan, problem)
