"""A plan for part of the demand, if the cluster cannot carry all of it.

- Each graph gets its guaranteed rate.
- Beyond it, graphs of a higher priority come first: no graph of a lower priority takes from their demand.
- Among graphs of one priority, the share of demand that is shed is in inverse proportion to the graph's weight, and the
  smallest for which there is a plan. With equal weights it is the same for all. A graph that would get less than its
  guaranteed rate gets that rate, and the others shed the difference.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.bisection import bisect
from jigsaw_triton.planner.search.solve import DEFAULTS, SolverFactory, has_plan, largest_demand, make_plan
from jigsaw_triton.planner.solver.solver import SolverProcess

SHED_GAP = 1e-3
"""Absolute error of the shed share of demand where weights differ."""


def make_shedding_plan(
    problem: Problem,
    options: Options = DEFAULTS,
    *,
    least_rps: Mapping[str, float],
    solvers: SolverFactory = SolverProcess,
) -> Plan:
    """Plans for all of the demand, or for as much of it as the cluster carries.

    Args:
        problem: Graphs with their priorities, weights and demands.
        options: Options of planning; the formulation must be exact. The time limit holds for each of several solves:
            two or three a priority, about ten where weights differ.
        least_rps: Graph -> guaranteed requests a second, at most its demand.
        solvers: Factory of solvers by name; it is called repeatedly.

    Raises:
        InputError: The problem or the options are invalid.
        InfeasibleError: There is no plan for the guaranteed rates; the reasons given are those of the full demand.
        JigsawError: No plan was found within the time limit, or no solver gave a valid answer.
    """
    try:
        return make_plan(problem, options, solvers=solvers)
    except InfeasibleError:
        shedding = _Shedding(problem, options, least_rps, solvers)
        if not shedding.fits(least_rps):
            raise
    return make_plan(shedding.with_demands(shedding.granted()), options, solvers=solvers)


@dataclass(frozen=True, slots=True)
class _Shedding:
    """Shares of demand to serve in one problem; see `make_shedding_plan`."""

    problem: Problem
    options: Options
    least_rps: Mapping[str, float]
    solvers: SolverFactory

    def with_demands(self, rps: Mapping[str, float]) -> Problem:
        """Returns the problem with these demands, in requests a second."""
        workloads = (replace(w, demand_rps=rps[w.graph.name]) for w in self.problem.workloads)
        return replace(self.problem, workloads=tuple(workloads))

    def fits(self, rps: Mapping[str, float]) -> bool:
        """Returns True if there is a plan for these demands; False also if the time limit comes first."""
        return bool(has_plan(self.with_demands(rps), self.options, solvers=self.solvers))

    def granted(self) -> dict[str, float]:
        """Returns graph -> requests a second to plan for."""
        classes: dict[int, list[str]] = {}
        for workload in self.problem.workloads:
            classes.setdefault(workload.graph.priority, []).append(workload.graph.name)
        rps = dict(self.least_rps)
        for _, names in sorted(classes.items(), reverse=True):
            everything = rps | {name: self._demand_rps[name] for name in names}
            # All demands together are known to have no plan.
            in_full = everything != self._demand_rps and self.fits(everything)
            rps = everything if in_full else rps | self._shared_out(names, rps)
        return rps

    def _shared_out(self, names: Collection[str], rps: Mapping[str, float]) -> dict[str, float]:
        """Requests a second of the graphs of one priority.

        Args:
            names: Names of the graphs.
            rps: Requests a second of the other graphs, and guaranteed rates of these.
        """
        if len({self._weights[name] for name in names}) > 1:
            return self._by_weight(names, rps)
        return self._evenly(names, rps)

    def _evenly(self, names: Collection[str], rps: Mapping[str, float]) -> dict[str, float]:
        """Grants each graph an equal share of its demand, but at least its guaranteed rate."""
        shared, left = {name: rps[name] for name in names}, set(names)
        while left:
            wanted = {**rps, **shared, **{name: self._demand_rps[name] for name in left}}
            try:
                problem = self.with_demands(wanted)
                largest = largest_demand(problem, self.options, scaled=left, solvers=self.solvers).rps
            except InfeasibleError:
                break
            enough = {name for name in left if largest[name] > rps[name]}
            if enough == left:
                return shared | {name: min(largest[name], self._demand_rps[name]) for name in left}
            left = enough
        return shared

    def _by_weight(self, names: Collection[str], rps: Mapping[str, float]) -> dict[str, float]:
        """Returns the smallest common shortfall, by bisection; a graph of twice the weight sheds half the share."""
        lightest = min(self._weights[name] for name in names)

        def shared(shortfall: float) -> dict[str, float]:
            parts = {name: 1 - shortfall * lightest / self._weights[name] for name in names}
            return {name: max(rps[name], parts[name] * self._demand_rps[name]) for name in names}

        largest = max(self._weights[name] for name in names) / lightest
        shortfall, _ = bisect(lambda part: self.fits({**rps, **shared(part)}), largest, 0.0, abs_tol=SHED_GAP)
        return shared(shortfall)

    @property
    def _demand_rps(self) -> dict[str, float]:
        return {w.graph.name: w.demand_rps for w in self.problem.workloads}

    @property
    def _weights(self) -> dict[str, float]:
        return {w.graph.name: w.graph.weight for w in self.problem.workloads}
