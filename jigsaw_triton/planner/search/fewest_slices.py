"""The search for the least slices: a program solved with the configurations that can matter."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from jigsaw_triton.planner.bounds.bounds import Bounds
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.candidates.sharing import Cut, Pool, evenly_shared
from jigsaw_triton.planner.domain.problem import Options, Problem, on_floors
from jigsaw_triton.planner.formulation.model import Allocation, Goal, allocation
from jigsaw_triton.planner.formulation.refinement import Refinement
from jigsaw_triton.planner.search.choices import (
    Candidates,
    bounds_of,
    complete,
    least_together,
    numerous,
    replicas_among,
    supplies,
    with_these,
)
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.solver import Outcome, Solver, SolverHung, Stage, solved

WITNESS_SHARE = 0.1
"""Of the time limit, for a plan to begin with."""

_FLOORS_SHARE = 0.2
"""Likewise for one that keeps a mean accuracy with each request."""

_ALONE_SHARE = 0.5
"""Likewise for the graphs one by one."""

_LIKELY = (0.0, 0.0005, 0.02)
"""Configurations whose bound is above that of their graph by more are not looked at for a plan to begin with; the few
first, of which there often is one, the more where there is none."""

_NEAR = 0.005
"""A plan that takes more than the bound by no more, relative, or by one slice is good enough to begin with."""

_SLACKS = (0.0, 0.001, 0.005, 0.02, 0.1)
"""By how much more than the bound a plan may take, tried in turn until there is one: mostly the bound is met."""

_FAR = 0.01
"""Relative: a plan of so many more slices than a limit without one is far from it."""

_STEP = 0.25
"""Of the way there, what the next limit is."""

_SHARED_SLACKS = (0.3, 0.6, 1.0)
"""Likewise where slices are shared: the bound, of parts of slices, is farther from what fits them."""

_BEGINNING_GAP = 0.1
"""Relative, of the plan to begin with where slices are shared."""

_TIES_SHARE = 0.2
"""Of the time limit, to decide ties where slices are shared."""

Solution = tuple[Allocation, Outcome]
"""A program and what came of it."""


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
    """The program of all candidates, solved; None where their bounds alone say that there is no plan.

    Args:
        problem: What is to be planned.
        candidates: At least one a task.
        options: How to plan.
        solver: To ask.
        time: That there is.
        goal: Of the program.
        ties: Whether the objectives after the slices count.
    """
    candidates = numerous(problem.workloads, candidates)
    if not complete(candidates):
        return None
    bounds = bounds_of(problem.workloads, candidates)
    least = least_together(b.least for b in bounds.values())
    if math.isinf(least) or (goal == "least" and least > problem.cluster.compute_slices):
        return None
    return _Search(problem, candidates, bounds, options, solver, time, goal, ties).best()


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a search begins with, or goes on with.

    Attributes:
        leasts: Graph -> compute slices that it takes at least.
        start: Replicas that may be a good plan.
        most: Compute slices that these take; infinite where there are none.
        pooled: Slices of each pool that belong to `start`.
        plan: The best that is known; None where it is not known whether the cluster has room for those replicas.
    """

    leasts: Mapping[str, float]
    start: Mapping[Configuration, int] = field(default_factory=dict)
    most: float = math.inf
    pooled: Mapping[Pool, int] = field(default_factory=dict)
    plan: Solution | None = None

    @property
    def least(self) -> float:
        """Compute slices that all graphs take at least."""
        return least_together(self.leasts.values())

    @property
    def best(self) -> float:
        """Compute slices of the plan; infinite where there is none."""
        return math.inf if self.plan is None else self.plan[1].stages[0].value

    def with_plan(self, model: Allocation, outcome: Outcome) -> "_Beginning":
        """This plan in place of what it has."""
        start, pooled, most = model.counts(outcome.values), model.shared(outcome.values), outcome.stages[0].value
        return replace(self, start=start, most=most, pooled=pooled, plan=(model, outcome))

    def unproven(self, proven: float) -> Solution | None:
        """The plan, of which at least so many slices are known to be needed."""
        if self.plan is None:
            return None
        model, outcome = self.plan
        stage = Stage(self.best, min(proven, self.best), proven=proven >= self.best)
        return model, replace(outcome, status="feasible", stages=(stage,))


@dataclass(frozen=True, slots=True)
class _Search:
    """See `fewest_slices`; `bounds` are those of the candidates, finite."""

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
        """The program solved with the configurations that may be part of an optimum.

        Those whose bound is above a limit are left out: no plan within the limit needs them. Where the best plan found
        is above it, its own slices are the next limit. Where there is none, a greater limit is tried, at last none.
        A plan to begin with is looked for first: more slices than it no limit needs to allow.
        """
        begun = self._begun()
        most, least = begun.most, begun.least
        if begun.plan is not None and begun.best <= least and not self.ties and not self._sharing:
            return begun.plan
        if (enough := self._good_enough(begun, least)) is not None:
            return enough
        slacks = (*_SLACKS, *_SHARED_SLACKS) if self._sharing else _SLACKS
        # No plan takes more than there are.
        last = self.problem.cluster.compute_slices if self.goal == "least" else math.inf
        limits = sorted({min(last, limit) for limit in (most, last, *(least + math.ceil(s * least) for s in slacks))})
        proven = least
        while True:
            limit = limits.pop(0)
            try:
                model, outcome = self._within(limit, self.candidates, proven, begun)
            except SolverHung:
                if (known := begun.unproven(proven)) is None:
                    raise
                return known
            first = outcome.stages[0] if outcome.stages else None
            worse = first is not None and first.value > begun.best
            if outcome.status == "unknown" or (worse and limit >= begun.best):
                # Time ran out before as good a plan was found as is known.
                return begun.unproven(proven) or (model, outcome)
            if limit >= last or (first is not None and first.value <= limit):
                return model, outcome
            if first is None or first.proven:
                # With these configurations there is no plan within the limit, and others no such plan needs.
                proven = limit + 1
            if first is not None and not worse:
                begun = begun.with_plan(model, outcome)
            if (enough := self._good_enough(begun, proven)) is not None:
                return enough
            if self.time.over:
                return begun.unproven(proven) or (model, replace(outcome, status="unknown"))
            if first is not None:
                # Where that is far, most configurations may matter, and on the way there few enough to be quick.
                far = begun.best - limit > _FAR * limit
                between = limit + math.ceil(_STEP * (begun.best - limit)) if far else begun.best
                limits = sorted({*limits, between, begun.best})

    def _good_enough(self, begun: _Beginning, proven: float) -> Solution | None:
        """What is known if it is within the gap that is allowed; the ties are decided among what made it so."""
        if not (begun.most < math.inf and 0 < begun.most * self.options.gap >= begun.most - proven):
            return None
        model, outcome = self._within(begun.most, with_these(self._likely(), begun.start), proven, begun)
        if outcome.stages:
            # What is proven there is so of these configurations alone.
            first, *rest = outcome.stages
            known = Stage(first.value, min(proven, first.value), proven=proven >= first.value)
            return model, replace(outcome, status="feasible", stages=(known, *rest))
        return begun.unproven(proven)

    def _within(self, limit: float, of: Candidates, proven: float, begun: _Beginning) -> Solution:
        """The program solved with those of the configurations that plans of so many slices may use."""
        others = sum(begun.leasts.values())
        kept = {name: self.bounds[name].within(limit - others + begun.leasts[name], of[name]) for name in of}
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
                start=begun.start,
                cuts=cuts,
                pooled=begun.pooled,
            )

        refined = Refinement(model, self.cuts, self.solver)
        found, outcome = refined.best(self.time.left_s, _TIES_SHARE * self.options.time_limit_s)
        return found, _bounded(outcome, proven)

    @property
    def _sharing(self) -> bool:
        return any(c.shares for tasks in self.candidates.values() for of in tasks.values() for c in of)

    def _likely(self, more: float = _LIKELY[-1]) -> Candidates:
        return {name: self.bounds[name].likely(more, of) for name, of in self.candidates.items()}

    def _begun(self) -> _Beginning:
        """A plan to begin with, if one is found soon."""
        leasts = {name: b.least for name, b in self.bounds.items()}
        if not self._sharing and len(self.problem.workloads) > 1:
            begun = self._one_by_one()
            return replace(begun, plan=self._together(begun)) if self.problem.averages else begun
        found = [self._sharing_evenly()] if self._sharing else [self._likely_plan(leasts), self._on_floors()]
        plans = [plan for plan in found if plan is not None]
        if not plans:
            return _Beginning(leasts)
        return _Beginning(leasts).with_plan(*min(plans, key=lambda plan: plan[1].stages[0].value))

    def _likely_plan(self, leasts: Mapping[str, float]) -> Solution | None:
        """A plan of few slices, near the bound if there soon is one."""
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

    def _witness(self, among: Candidates, leasts: Mapping[str, float]) -> Solution | None:
        """A plan of few slices with these configurations."""
        offered, least = supplies(self.problem, among, self.options), sum(leasts.values())
        model = allocation(self.problem.workloads, among, offered, self.goal, least=least, enough=-math.inf)
        outcome = solved(self.solver, model.program, WITNESS_SHARE * self.options.time_limit_s)
        return (model, outcome) if outcome.stages else None

    def _together(self, begun: _Beginning) -> Solution | None:
        """A plan with what the graphs come to one by one; where none is found, one on floors."""
        few = {
            name: {task: tuple(c for c in of if c in begun.start) for task, of in tasks.items()}
            for name, tasks in self.candidates.items()
        }
        plan = self._witness(few, begun.leasts) if begun.start else None
        return plan or self._on_floors()

    def _on_floors(self) -> Solution | None:
        """Where the mean accuracy counts, a plan that keeps it with each request; such plans are found far sooner."""
        if not self.problem.averages:
            return None
        soon = Deadline(min(self.time.left_s, _FLOORS_SHARE * self.options.time_limit_s))
        return self._plan_without_ties(on_floors(self.problem), self.candidates, soon)

    def _sharing_evenly(self) -> Solution | None:
        """A plan of few slices that are shared, or of none."""
        even = {w.graph.name: evenly_shared(w.graph, self.candidates[w.graph.name]) for w in self.problem.workloads}
        offered = supplies(self.problem, even, self.options)

        def model(known: Sequence[Cut]) -> Allocation:
            made = allocation(
                self.problem.workloads, even, offered, self.goal, enough=-math.inf, gap=_BEGINNING_GAP, cuts=known
            )
            return replace(made, program=replace(made.program, objectives=made.program.objectives[:1]))

        soon_s = WITNESS_SHARE * self.options.time_limit_s
        made, outcome = Refinement(model, self.cuts, self.solver).first(soon_s)
        return (made, outcome) if outcome.stages else self._sharing_none()

    def _sharing_none(self) -> Solution | None:
        alone = {
            name: {task: tuple(c for c in of if not c.shares) for task, of in tasks.items()}
            for name, tasks in self.candidates.items()
        }
        return self._plan_without_ties(self.problem, alone, self.time) if complete(alone) else None

    def _plan_without_ties(self, problem: Problem, candidates: Candidates, time: Deadline) -> Solution | None:
        found = fewest_slices(problem, candidates, self.options, self.solver, time, self.goal, ties=False)
        return found if found is not None and found[1].stages else None

    def _one_by_one(self) -> _Beginning:
        """Each graph's least slices on GPUs without end, and the replicas that all of them have then together.

        There are none where one graph's were not found.
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
            return _Beginning(leasts)
        return _Beginning(leasts, together, sum(n * c.compute_slices for c, n in together.items()))


def _bounded(outcome: Outcome, proven: float) -> Outcome:
    """What a solver found, of which at least so many slices are known to be needed."""
    if not outcome.stages or outcome.stages[0].bound >= proven:
        return outcome
    first, *rest = outcome.stages
    return replace(outcome, stages=(replace(first, bound=min(proven, first.value)), *rest))
