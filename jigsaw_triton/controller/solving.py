"""Plans and compiles for the core's action `Solve`. Used by the executor and by the simulator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.review import worth
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.slowness import slowed
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.costs import board_costs
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.attempt import OutOfTimeError
from jigsaw_triton.planner.search.demand_shedding import make_shedding_plan
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan, make_first_plan, make_plan
from jigsaw_triton.planner.solver.solver import SolverProcess
from jigsaw_triton.planner.standby import with_standby

_LEAST_SHARE = 0.01
"""Share of the user's demand for which each graph keeps serving on what lost GPUs leave."""


def planned(problem: Problem, options: Options, action: a.Solve, solvers: SolverFactory = SolverProcess) -> Plan:
    """Returns a plan for the action's demand.

    The first feasible plan suffices if the action says so and one can be constructed. If the plan may fall short, it
    still covers the demand that the user requested for each graph, unless a GPU is lost. The paper's formulation, a
    baseline, cannot do that.
    """
    if action.first:
        # A plan that does not survive a loss is acceptable here, since the review that follows replaces it.
        for asked in (problem, problem.unprotected()) if problem.survive else (problem,):
            if (plan := make_first_plan(asked, options)) is not None:
                return plan
    if not action.may_fall_short or options.formulation != "exact":
        return make_plan(problem, options, solvers=solvers)
    if problem.survive:
        if (found := _surviving(problem, options, solvers)) is not None:
            return found
        # To survive a further loss is worth less than to serve the demand now.
        problem = problem.unprotected()
    share = _LEAST_SHARE if action.lost else 1.0
    least_rps = {name: min(rps, share * action.wanted.demand_rps[name]) for name, rps in action.demand_rps.items()}
    return make_shedding_plan(problem, options, least_rps=least_rps, solvers=solvers)


def _surviving(problem: Problem, options: Options, solvers: SolverFactory) -> Plan | None:
    """Returns a plan that survives a loss; None if there is none, or if none was found in time."""
    try:
        return find_plan(problem, options, solvers=solvers)
    except OutOfTimeError:
        return None


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans and compiles generations.

    Attributes:
        templates: Templates of model repositories, by name.
        backends: Backends of the workers' tritonserver.
        identity: Function that maps an artifact's path to a string that identifies its content.
        solvers: Factory of solvers by name.
        settings: Settings of the control loop.
        plan: Function that makes a plan.
    """

    templates: Mapping[str, Template]
    backends: frozenset[str]
    identity: Callable[[Path], str]
    solvers: SolverFactory = SolverProcess
    settings: Settings = field(default_factory=Settings)
    plan: Callable[[Problem, Options, a.Solve, SolverFactory], Plan] = planned

    def solve(self, action: a.Solve, cluster: Cluster) -> tuple[Plan, Bundle]:
        """Computes a plan, or takes that of an earlier generation, and compiles it.

        A review that does not save enough returns the plan and the bundle that run. With the objective `accuracy`, the
        planner itself prices changes.

        Args:
            action: Action of the core.
            cluster: Cluster with the MIG instances of others.

        Raises:
            InfeasibleError: No plan is feasible.
            InputError: The plan cannot be compiled.
        """
        plan = action.restored.plan if action.restored is not None else self._planned(action, cluster)
        if action.review and action.running is not None:
            running = action.running
            by_slices = action.wanted.objective == "slices"
            costs, price = board_costs(cluster, action.wanted.profiles), action.wanted.change_price
            if by_slices and not worth(running.plan, plan, price, self.settings, costs):
                return running.plan, running.bundle
        return plan, self._compiled(action, plan, cluster)

    def _planned(self, action: a.Solve, cluster: Cluster) -> Plan:
        wanted, running = action.wanted, action.running
        problem = Problem(
            workloads=tuple(Workload(action.graphs[n], action.demand_rps[n]) for n in sorted(action.graphs)),
            cluster=cluster,
            profiles=slowed(wanted.profiles, action.slow),
            running=running.plan if running is not None else None,
            unloaded=wanted.profiles,
            # Slices that are slow now do not make their board cheaper.
            costs=board_costs(cluster, wanted.profiles),
        )
        return with_standby(problem, self.plan(problem, wanted.options, action, self.solvers), wanted.options)

    def _compiled(self, action: a.Solve, plan: Plan, cluster: Cluster) -> Bundle:
        wanted, running = action.wanted, action.running
        return compile_plan(
            plan,
            wanted.graphs,
            cluster,
            wanted.profiles,
            generation=action.generation,
            templates=self.templates,
            backends=self.backends,
            identity=self.identity,
            running=running.bundle if running is not None else None,
            deterministic=wanted.deterministic,
        )
