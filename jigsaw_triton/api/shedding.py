"""Plans for a deployment that graphs join or leave, and what other graphs have to shed for them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jigsaw_triton.api.planning import make_diagnosed_plan
from jigsaw_triton.api.reporting import Wording
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.demand_shedding import make_shedding_plan
from jigsaw_triton.planner.search.diagnosis import rounded_down
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.planner.standby import with_standby

_LEAST_SHARE = 0.01
"""Share of its demand that a graph keeps, whatever joins: a graph without any would have no plan."""

_SHORTFALL = 1e-3
"""Relative shortfall up to which a plan counts as providing for all requests."""


@dataclass(frozen=True, slots=True)
class Shed:
    """Load that a graph has to shed, so that others fit.

    Attributes:
        graph: Name of the graph.
        priority: Priority of the graph.
        rps: Requests a second that the plan still provides for.
        of_rps: Requests a second that are provided for now, or that the user has asked for.
    """

    graph: str
    priority: int
    rps: float
    of_rps: float

    def __str__(self) -> str:
        rps = f"{rounded_down(self.rps)} instead of {rounded_down(self.of_rps)} requests/s"
        return f"{self.graph} (priority {self.priority}) would be provided for with {rps}"


@dataclass(frozen=True, slots=True)
class Fit:
    """Plan in which the graphs of a deployment fit on the cluster.

    Attributes:
        problem: Problem with the requests a second that the plan provides for.
        plan: The plan.
        sheds: Load that is shed, for each graph that sheds any.
        lowered_rps: Graph -> requests a second that the plan can still guarantee, if that is less than its demand.
    """

    problem: Problem
    plan: Plan
    sheds: tuple[Shed, ...] = ()
    lowered_rps: Mapping[str, float] = field(default_factory=dict)


def fit(
    problem: Problem,
    options: Options,
    *,
    provided_rps: Mapping[str, float],
    joining: Collection[str],
    progress: Callable[[str], None],
) -> Fit:
    """Plans for all graphs of a deployment.

    If not all load fits, what the running plan provides for beyond the demands is shed first. If the demands do not fit
    either, graphs of lower priority than those that join are cut.

    Args:
        problem: Graphs that stay or join, with their demands.
        options: Options of planning.
        provided_rps: Graph -> requests a second that the running plan provides for.
        joining: Names of the graphs that join.
        progress: Function that receives a line when the search for a conflict begins.

    Raises:
        InfeasibleError: No plan meets the requirements, or none without a cut of graphs of the same or a higher
            priority. The error says what would be enough.
    """
    demand_rps = {w.graph.name: w.demand_rps for w in problem.workloads}
    load_rps = {name: max(rps, provided_rps.get(name, 0.0)) for name, rps in demand_rps.items()}
    if options.formulation != "exact":
        # The paper's formulation, a baseline, sheds nothing.
        loaded = _with_rates(problem, load_rps)
        return Fit(loaded, make_diagnosed_plan(loaded, options, progress))
    if (found := _fit(problem, options, load_rps, demand_rps)) is not None:
        return found
    least_rps = {**demand_rps, **_least_rps(problem, joining)}
    if least_rps != demand_rps and (found := _fit(problem, options, demand_rps, least_rps)) is not None:
        return found
    return Fit(problem, make_diagnosed_plan(problem, options, progress))


def _least_rps(problem: Problem, joining: Collection[str]) -> dict[str, float]:
    """Returns the least rate of each graph that has a lower priority than all graphs that join."""
    priorities = [w.graph.priority for w in problem.workloads if w.graph.name in joining]
    if not priorities:
        return {}
    lower = [w for w in problem.workloads if w.graph.name not in joining and w.graph.priority < min(priorities)]
    return {w.graph.name: _LEAST_SHARE * w.demand_rps for w in lower}


def _fit(
    problem: Problem, options: Options, wanted_rps: Mapping[str, float], least_rps: Mapping[str, float]
) -> Fit | None:
    """Plans for rates of which not all may fit. Returns None if not even the least rates do."""
    demands = {w.graph.name: w.demand_rps for w in problem.workloads}
    try:
        with lasting_solvers() as solvers:
            plan = make_shedding_plan(_with_rates(problem, wanted_rps), options, least_rps=least_rps, solvers=solvers)
    except InfeasibleError:
        return None
    granted_rps = {name: graph.demand_rps for name, graph in plan.graphs.items()}
    planned = _with_rates(problem, granted_rps)
    sheds = tuple(
        Shed(w.graph.name, w.graph.priority, rps, wanted_rps[w.graph.name])
        for w in problem.workloads
        if (rps := granted_rps[w.graph.name]) < wanted_rps[w.graph.name] * (1 - _SHORTFALL)
    )
    lowered_rps = {s.graph: float(rounded_down(s.rps)) for s in sheds if s.rps < demands[s.graph] * (1 - _SHORTFALL)}
    return Fit(planned, with_standby(planned, plan, options), sheds, lowered_rps)


def _with_rates(problem: Problem, rps: Mapping[str, float]) -> Problem:
    return replace(problem, workloads=tuple(replace(w, demand_rps=rps[w.graph.name]) for w in problem.workloads))


def shedding_refused(sheds: Sequence[Shed], wording: Wording) -> InfeasibleError:
    """Returns the error that graphs fit only if others shed load, which nobody has accepted.

    Args:
        sheds: Load that would be shed, at least one.
        wording: Form in which the hint names an option.
    """
    accept = "--yes" if wording.flags else "shed=True"
    return InfeasibleError(
        ["the graphs fit only if others shed load", *map(str, sheds)],
        hint=f"accept that with {accept}, lower a demand, or give the cluster more GPUs",
    )
