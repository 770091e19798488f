"""The plan where the cluster cannot carry all demands: who gets how much.

- Each graph gets what it is to get in any case.
- Beyond that, graphs of a higher priority get theirs first: what is left for others never takes from it.
- Among graphs of one priority the part of its demand that each goes short of is in inverse proportion to its weight,
  and the least with which there is a plan. With equal weights all get the same part. Who would get less than in any
  case gets that, and the others share what is missing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import DEFAULTS, SolverFactory, has_plan, largest_demand, make_plan
from jigsaw_triton.planner.solver.solver import SolverProcess

RATION_GAP = 1e-3
"""Absolute, of the parts of demands where weights differ."""


def make_rationed_plan(
    problem: Problem,
    options: Options = DEFAULTS,
    *,
    least_rps: Mapping[str, float],
    solvers: SolverFactory = SolverProcess,
) -> Plan:
    """The plan for the demands, or where there is none for as much of them as the cluster carries.

    Args:
        problem: Graphs with their priorities and weights, and their demands.
        options: How to plan, in the exact formulation. The time limit is of each of several solves: two or three a
            priority, some ten where weights differ.
        least_rps: Graph -> requests a second that it gets in any case, at most its demand.
        solvers: Makes the solver of a name, over and over.

    Raises:
        InputError: The problem or the options make no sense.
        InfeasibleError: There is no plan for what the graphs are to get in any case; the reasons are those of the
            demands.
        JigsawError: None was found within the time limit, or no solver gave a sound answer.
    """
    try:
        return make_plan(problem, options, solvers=solvers)
    except InfeasibleError:
        rationing = _Rationing(problem, options, least_rps, solvers)
        if not rationing.fits(least_rps):
            raise
    return make_plan(rationing.with_demands(rationing.granted()), options, solvers=solvers)


@dataclass(frozen=True, slots=True)
class _Rationing:
    """Of one problem; see `make_rationed_plan`."""

    problem: Problem
    options: Options
    least_rps: Mapping[str, float]
    solvers: SolverFactory

    def with_demands(self, rps: Mapping[str, float]) -> Problem:
        """The problem with other demands."""
        workloads = (replace(w, demand_rps=rps[w.graph.name]) for w in self.problem.workloads)
        return replace(self.problem, workloads=tuple(workloads))

    def fits(self, rps: Mapping[str, float]) -> bool:
        """Whether there is a plan for these demands; what is not known in time is taken for no."""
        return bool(has_plan(self.with_demands(rps), self.options, solvers=self.solvers))

    def granted(self) -> dict[str, float]:
        """Graph -> requests a second."""
        classes: dict[int, list[str]] = {}
        for workload in self.problem.workloads:
            classes.setdefault(workload.graph.priority, []).append(workload.graph.name)
        rps = dict(self.least_rps)
        for _, names in sorted(classes.items(), reverse=True):
            everything = rps | {name: self._demand_rps[name] for name in names}
            # That there is no plan for all demands is known.
            in_full = everything != self._demand_rps and self.fits(everything)
            rps = everything if in_full else rps | self._shared_out(names, rps)
        return rps

    def _shared_out(self, names: Collection[str], rps: Mapping[str, float]) -> dict[str, float]:
        """What the graphs of one priority get.

        Args:
            names: Of the graphs.
            rps: What the others get, and these in any case.
        """
        if len({self._weights[name] for name in names}) > 1:
            return self._by_weight(names, rps)
        return self._evenly(names, rps)

    def _evenly(self, names: Collection[str], rps: Mapping[str, float]) -> dict[str, float]:
        """The same part for each, but no less than in any case: those whom that concerns are left out in turn."""
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
        """The least common shortfall, by halving; a graph of twice the weight goes short of half as great a part."""
        lightest = min(self._weights[name] for name in names)

        def shared(shortfall: float) -> dict[str, float]:
            parts = {name: 1 - shortfall * lightest / self._weights[name] for name in names}
            return {name: max(rps[name], parts[name] * self._demand_rps[name]) for name in names}

        too_small, enough = 0.0, max(self._weights[name] for name in names) / lightest
        while enough - too_small > RATION_GAP:
            middle = (too_small + enough) / 2
            if self.fits({**rps, **shared(middle)}):
                enough = middle
            else:
                too_small = middle
        return shared(enough)

    @property
    def _demand_rps(self) -> dict[str, float]:
        return {w.graph.name: w.demand_rps for w in self.problem.workloads}

    @property
    def _weights(self) -> dict[str, float]:
        return {w.graph.name: w.graph.weight for w in self.problem.workloads}
