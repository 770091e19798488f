"""The search for the fewest slices: the program, solved with few configurations first.

Slices count by their cost (`planner.domain.costs`): one for each compute slice if all count alike. Lower bounds
(`planner.bounds`) show which configurations a plan of up to a limit of slices may use. The search starts with a limit
at the lower bound, where few configurations are left, and raises it until the program has a plan.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from jigsaw_triton.planner.bounds.bounds import Bounds
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.candidates.pools import Cut
from jigsaw_triton.planner.candidates.sharing import evenly_shared
from jigsaw_triton.planner.domain.costs import cluster_cost
from jigsaw_triton.planner.domain.problem import Options, Problem, on_floors
from jigsaw_triton.planner.domain.processors import processor_limit
from jigsaw_triton.planner.formulation.graph_rows import Goal
from jigsaw_triton.planner.formulation.model import Allocation, allocation
from jigsaw_triton.planner.formulation.refinement import Refinement
from jigsaw_triton.planner.search.choices import (
    Candidates,
    bounds_of,
    complete,
    every,
    filtered,
    least_together,
    numerous,
    replicas_among,
    supplies,
    with_these,
    within_slices,
)
from jigsaw_triton.planner.search.incumbent import Known, Solution
from jigsaw_triton.planner.search.losses import after_losses
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.solver import Outcome, Solver, SolverHung, Stage, solved

WITNESS_SHARE = 0.1
"""Share of the time limit for each solve that looks for a first incumbent."""

_FLOORS_SHARE = 0.2
"""Share of the time limit for an incumbent that keeps a mean accuracy with each request."""

_ALONE_SHARE = 0.5
"""Share of the time limit for solving several graphs one by one, all of them together."""

_TIES_SHARE = 0.2
"""Share of the time limit for the objectives after slices, where slices are shared."""

_LIKELY = (0.0, 0.0005, 0.02)
"""Largest relative distance of a configuration's lower bound from its graph's, in the successive solves that look for a
first incumbent. The fewest configurations often have a plan; more follow only if its slices are not near the bound."""

_NEAR = 0.005
"""Relative gap at which the first incumbent is good enough; so is one of a single slice."""

_SLACKS = (0.0, 0.001, 0.005, 0.02, 0.1)
"""Limits of the successive solves, relative to the lower bound: slices by which a plan may exceed it. Most optima meet
the bound itself."""

_SHARED_SLACKS = (0.3, 0.6, 1.0)
"""Further limits where slices are shared: the bound then counts fractions of slices and is further from the optimum."""

_FAR = 0.01
"""Relative distance from the current limit to the incumbent beyond which the next limit lies between the two."""

_STEP = 0.25
"""Fraction of that distance by which the limit then grows."""

_SHARED_START_GAP = 0.1
"""Relative gap at which the solver stops looking for a first incumbent with shared slices."""


def fewest_slices(
    problem: Problem,
    candidates: Candidates,
    options: Options,
    solver: Solver,
    time: Deadline,
    goal: Goal = "least",
    *,
    ties: bool = True,
) -> Solution | None:
    """Solves the program of the fewest slices; returns None if lower bounds show that there is no plan.

    Args:
        problem: Problem to plan for.
        candidates: Configurations to choose from, at least one for each task.
        options: Options of planning.
        solver: Solver to use.
        time: Deadline of the search.
        goal: Goal of the program, `least` or `ideal`.
        ties: True if the objectives after slices matter.
    """
    candidates = numerous(problem.workloads, candidates)
    if not complete(candidates):
        return None
    bounds = bounds_of(problem.workloads, candidates)
    least = least_together(b.least for b in bounds.values())
    if math.isinf(least) or (goal == "least" and least > cluster_cost(problem.cluster)):
        return None
    return _Search(problem, candidates, bounds, options, solver, time, goal, ties).best()


@dataclass(frozen=True, slots=True)
class _Search:
    """Search of `fewest_slices`, whose arguments these are; `bounds` are those of the candidates, all finite."""

    problem: Problem
    candidates: Candidates
    bounds: Mapping[str, Bounds]
    options: Options
    solver: Solver
    time: Deadline
    goal: Goal
    ties: bool
    cuts: list[Cut] = field(default_factory=list)

    def best(self) -> Solution:
        """Solves the program with the configurations that an optimum may use.

        Each solve leaves out the configurations whose lower bound exceeds its limit on slices: no plan within the limit
        uses them. If the best plan found exceeds the limit, its slices are the next limit; if there is none, the next
        larger limit follows, and the last is the size of the cluster. The slices of the first incumbent need never be
        exceeded.
        """
        known = self._first_known()
        least = known.least
        if known.incumbent is not None and known.best <= least and not self.ties and not self._sharing:
            return known.incumbent
        if (enough := self._good_enough(known, least)) is not None:
            return enough
        slacks = (*_SLACKS, *_SHARED_SLACKS) if self._sharing else _SLACKS
        last = cluster_cost(self.problem.cluster) if self.goal == "least" else math.inf
        steps = (least + math.ceil(slack * least) for slack in slacks)
        limits = sorted({min(last, limit) for limit in (known.start_slices, last, *steps)})
        proven = least
        while True:
            limit = limits.pop(0)
            try:
                model, outcome = self._within(limit, self.candidates, proven, known)
            except SolverHung:
                if (incumbent := known.bounded_incumbent(proven)) is None:
                    raise
                return incumbent
            first = outcome.stages[0] if outcome.stages else None
            worse = first is not None and first.value > known.best
            if outcome.status == "unknown" or (worse and limit >= known.best):
                # Time ran out before a plan as good as the incumbent was found.
                return known.bounded_incumbent(proven) or (model, outcome)
            if limit >= last or (first is not None and first.value <= limit):
                return model, outcome
            if first is None or first.proven:
                # These configurations have no plan within the limit, and no plan within it needs any other.
                proven = limit + 1
            if first is not None and not worse:
                known = known.with_incumbent(model, outcome)
            if (enough := self._good_enough(known, proven)) is not None:
                return enough
            if self.time.over:
                return known.bounded_incumbent(proven) or (model, replace(outcome, status="unknown"))
            if first is not None:
                # An incumbent far above the limit may admit most configurations; a limit in between admits few.
                far = known.best - limit > _FAR * limit
                between = limit + math.ceil(_STEP * (known.best - limit)) if far else known.best
                limits = sorted({*limits, between, known.best})

    def _good_enough(self, known: Known, proven: float) -> Solution | None:
        """Returns a plan within the allowed gap, its ties decided among the configurations of the first incumbent."""
        if not (
            known.start_slices < math.inf and 0 < known.start_slices * self.options.gap >= known.start_slices - proven
        ):
            return None
        among = with_these(self._likely(), known.start)
        model, outcome = self._within(known.start_slices, among, proven, known)
        if outcome.stages:
            # The solver's bound holds for these configurations alone.
            first, *rest = outcome.stages
            stage = Stage(first.value, min(proven, first.value), proven=proven >= first.value)
            return model, replace(outcome, status="feasible", stages=(stage, *rest))
        return known.bounded_incumbent(proven)

    def _within(self, limit: float, candidates: Candidates, proven: float, known: Known) -> Solution:
        """Solves the program with the candidates that plans of up to `limit` slices may use."""
        kept = within_slices(limit, self.bounds, candidates, known.leasts)
        offered, running = supplies(self.problem, kept, self.options), replicas_among(self.problem, kept)

        def model(cuts: Sequence[Cut]) -> Allocation:
            return allocation(
                self.problem.workloads,
                kept,
                offered,
                self.goal,
                running=running,
                least=proven,
                enough=limit if self.ties else -math.inf,
                gap=self.options.gap,
                start=known.start,
                cuts=cuts,
                pooled=known.start_pools,
                survive=self.problem.survive,
                limit=processor_limit(self.problem),
            )

        refined = Refinement(model, self.cuts, self.solver)
        found, outcome = refined.best(self.time.left_s, _TIES_SHARE * self.options.time_limit_s)
        return found, _bounded(outcome, proven)

    @property
    def _sharing(self) -> bool:
        return any(c.shares for c in every(self.candidates))

    def _likely(self, more: float = _LIKELY[-1]) -> Candidates:
        return {name: self.bounds[name].likely(more, tasks) for name, tasks in self.candidates.items()}

    def _first_known(self) -> Known:
        """Looks for a first incumbent, for a small part of the time limit."""
        leasts = {name: b.least for name, b in self.bounds.items()}
        if not self._sharing and not self.problem.survive and len(self.problem.workloads) > 1:
            known = self._one_by_one()
            return replace(known, incumbent=self._together(known)) if self.problem.averages else known
        if self.problem.survive:
            return self._surviving(leasts)
        found = [self._sharing_evenly()] if self._sharing else [self._likely_plan(leasts), self._on_floors()]
        plans = [plan for plan in found if plan is not None]
        if not plans:
            return Known(leasts)
        return Known(leasts).with_incumbent(*min(plans, key=lambda plan: plan[1].stages[0].value))

    def _likely_plan(self, leasts: Mapping[str, float]) -> Solution | None:
        """Returns a plan of few slices, near the lower bound if such a plan is found soon."""
        best: Solution | None = None
        tried: Candidates | None = None
        for more in _LIKELY:
            likely = self._likely(more)
            if likely == tried:
                continue
            tried, plan = likely, self._witness(likely, leasts)
            if plan is not None and (best is None or plan[1].stages[0].value < best[1].stages[0].value):
                best = plan
            if best is not None:
                slices = best[1].stages[0].value
                if slices - least_together(leasts.values()) <= max(1, max(_NEAR, self.options.gap) * slices):
                    break
        return best

    def _surviving(self, leasts: Mapping[str, float]) -> Known:
        """Looks for a plan that survives the loss of any failure domain."""
        after = after_losses(self.problem, self.candidates, self._likely(_LIKELY[0]))
        known = Known(leasts, surviving=after.least)
        for plan in (self._likely_plan(leasts), *(self._witness(among, leasts) for among in after.likely)):
            if plan is not None and plan[1].stages[0].value < known.best:
                known = known.with_incumbent(*plan)
        return known

    def _witness(self, among: Candidates, leasts: Mapping[str, float]) -> Solution | None:
        """Returns a plan of few slices with these configurations."""
        offered, least = supplies(self.problem, among, self.options), sum(leasts.values())
        model = allocation(
            self.problem.workloads,
            among,
            offered,
            self.goal,
            least=least,
            enough=-math.inf,
            survive=self.problem.survive,
            limit=processor_limit(self.problem),
        )
        outcome = solved(self.solver, model.program, WITNESS_SHARE * self.options.time_limit_s)
        return (model, outcome) if outcome.stages else None

    def _together(self, known: Known) -> Solution | None:
        """Returns a plan with the configurations that the graphs use one by one, or else one on floors."""
        few = filtered(self.candidates, lambda c: c in known.start)
        plan = self._witness(few, known.leasts) if known.start else None
        return plan or self._on_floors()

    def _on_floors(self) -> Solution | None:
        """Returns a plan that keeps each mean accuracy with each request: such a plan is found far sooner."""
        if not self.problem.averages:
            return None
        soon = Deadline(min(self.time.left_s, _FLOORS_SHARE * self.options.time_limit_s))
        return self._plan_without_ties(on_floors(self.problem), self.candidates, soon)

    def _sharing_evenly(self) -> Solution | None:
        """Returns a plan of few shared slices, or else one without sharing."""
        even = {w.graph.name: evenly_shared(w.graph, self.candidates[w.graph.name]) for w in self.problem.workloads}
        offered = supplies(self.problem, even, self.options)

        def model(cuts: Sequence[Cut]) -> Allocation:
            made = allocation(
                self.problem.workloads,
                even,
                offered,
                self.goal,
                enough=-math.inf,
                gap=_SHARED_START_GAP,
                cuts=cuts,
                limit=processor_limit(self.problem),
            )
            return replace(made, program=replace(made.program, objectives=made.program.objectives[:1]))

        soon_s = WITNESS_SHARE * self.options.time_limit_s
        made, outcome = Refinement(model, self.cuts, self.solver).first(soon_s)
        return (made, outcome) if outcome.stages else self._sharing_none()

    def _sharing_none(self) -> Solution | None:
        alone = filtered(self.candidates, lambda c: not c.shares)
        return self._plan_without_ties(self.problem, alone, self.time) if complete(alone) else None

    def _plan_without_ties(self, problem: Problem, candidates: Candidates, time: Deadline) -> Solution | None:
        found = fewest_slices(problem, candidates, self.options, self.solver, time, self.goal, ties=False)
        return found if found is not None and found[1].stages else None

    def _one_by_one(self) -> Known:
        """Solves each graph alone on unlimited GPUs: improves its lower bound, and starts from all of their replicas.

        There is no start if one of the graphs has no solution in time.
        """
        leasts, together = {name: b.least for name, b in self.bounds.items()}, dict[Configuration, int]()
        all_found, each_s = True, _ALONE_SHARE * self.options.time_limit_s / len(self.problem.workloads)
        for workload in self.problem.workloads:
            name = workload.graph.name
            alone = replace(
                self,
                problem=replace(self.problem, workloads=(workload,)),
                candidates={name: self.candidates[name]},
                bounds={name: self.bounds[name]},
                time=Deadline(min(self.time.left_s, each_s)),
                goal="ideal",
                ties=False,
            )
            model, outcome = alone.best()
            all_found = all_found and bool(outcome.stages)
            if outcome.stages:
                first = outcome.stages[0]
                leasts[name] = max(leasts[name], first.value if first.proven else first.bound)
                together |= model.counts(outcome.values)
        if not all_found:
            return Known(leasts)
        return Known(leasts, together, sum(n * c.cost for c, n in together.items()))


def _bounded(outcome: Outcome, proven: float) -> Outcome:
    """Returns the outcome with a first bound of at least `proven` slices."""
    if not outcome.stages or outcome.stages[0].bound >= proven:
        return outcome
    first, *rest = outcome.stages
    return replace(outcome, stages=(replace(first, bound=min(proven, first.value)), *rest))
