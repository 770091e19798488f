"""From a problem to a plan that holds, or to why there is none: one attempt with one solver."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from jigsaw_triton.errors import InfeasibleError, JigsawError
from jigsaw_triton.planner.candidates.chains import links
from jigsaw_triton.planner.candidates.configurations import Configuration, available, by_load, merged
from jigsaw_triton.planner.candidates.fused_chains import Apart, apart, in_shared_slices, with_fused_chains, without
from jigsaw_triton.planner.candidates.sharing import SharedSlice, fitting
from jigsaw_triton.planner.domain.plan import Plan, PlannedGpu, SolverReport
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Options, Problem, with_demand_scaled
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.extraction import flows, graph_plan
from jigsaw_triton.planner.formulation.model import allocation
from jigsaw_triton.planner.placement.greedy import everything_placed
from jigsaw_triton.planner.placement.placement import placement
from jigsaw_triton.planner.search import diagnose
from jigsaw_triton.planner.search.choices import (
    Candidates,
    bounds_of,
    complete,
    least_together,
    replicas,
    replicas_among,
    supplies,
    with_room,
    within_cluster,
    worth_trying,
)
from jigsaw_triton.planner.search.price import cheapest_change
from jigsaw_triton.planner.search.search import WITNESS_SHARE, Solution, fewest_slices
from jigsaw_triton.planner.solver.deadline import LEAST_S, Deadline
from jigsaw_triton.planner.solver.program import Program
from jigsaw_triton.planner.solver.solver import SOLVER_TITLES, Outcome, Solver, SolverFailure, solved
from jigsaw_triton.planner.validation.validate import violations

_ANY_GAP = 1e9
"""At which any solution counts as optimal."""

_LOSS_DIGITS = 6

_SCALES = 8
"""The part of the time limit that a single scale of demands may take is one of so many, where halving finds it."""

_ROUNDS = 4

_NEAR = 0.98
"""A scale by the bounds that is so near to the cluster's slices is near enough to begin with."""

_PARTS = (0.99, 0.95, 0.85, 0.6)
"""Of the scale by the bounds, tried in turn."""

_SURELY = 0.999
"""Of a scale that is carried, less by what solvers may miss it by."""

_IDLE = 1e-6
"""Of the largest demand, or requests a second if that is less: as good as none."""

_FEWER = 16
"""By which the demand is divided until the cluster carries it."""

_HALVINGS = 8
"""Then, of the part of the demand that it carries."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """What the program takes, before any of it is placed. The exact formulation's can always be placed.

    Attributes:
        alone: Replicas in use that have a slice to themselves.
        shared: Slices that others share.
        gpus: That they take, by ideal packing in the paper's formulation.
        outcome: Of the solver.
    """

    alone: Mapping[Configuration, int]
    shared: tuple[SharedSlice, ...]
    gpus: int
    outcome: Outcome

    @property
    def counts(self) -> dict[Configuration, int]:
        """All replicas in use."""
        return {**self.alone, **{c: 1 for of in self.shared for c in of.configurations}}

    @property
    def slices(self) -> int:
        """Compute slices in use."""
        return sum(n * c.compute_slices for c, n in self.alone.items()) + sum(of.compute_slices for of in self.shared)

    @property
    def loss(self) -> float:
        """Of accuracy, over all tasks, each replica taking what it can."""
        total = 0.0
        for key in {(c.graph, c.task) for c in self.counts}:
            of = {c: n * c.throughput_rps for c, n in self.counts.items() if (c.graph, c.task) == key}
            total += sum(c.loss * rps for c, rps in of.items()) / sum(of.values())
        return total

    def known_above(self, slices: float) -> "Allotment":
        """The same where other plans may take as little as so many slices."""
        first, *rest = self.outcome.stages
        if first.proven and slices >= first.value:
            return self
        bound = replace(first, bound=min(first.bound, slices), proven=False)
        return replace(self, outcome=replace(self.outcome, status="feasible", stages=(bound, *rest)))


def better(one: Allotment, other: Allotment) -> Allotment:
    """The one of fewer slices, then GPUs, then more accuracy; the first of equals. What both prove is proven of it."""

    def cost(of: Allotment) -> tuple[int, int, float]:
        return of.slices, of.gpus, round(of.loss, _LOSS_DIGITS)

    chosen, left = (other, one) if cost(other) < cost(one) else (one, other)
    if left.outcome.status == "optimal":
        return chosen
    return chosen.known_above(left.outcome.stages[0].bound)


@dataclass(frozen=True, slots=True)
class Planning:
    """One attempt with one solver.

    Attributes:
        problem: Prepared.
        options: Checked.
        everything: Graph name -> task -> all configurations that there are.
        solver: To ask.
        told: Whether the reasons are looked for where there is no plan.
        single: Where chains are one task each in the problem, the problem with each task on its own.
    """

    problem: Problem
    options: Options
    everything: Candidates
    solver: Solver
    told: bool = True
    single: Problem | None = None

    def plan(self) -> Plan:
        """The validated plan."""
        time = Deadline(self.options.time_limit_s)
        return self._sound(self._assembled(self._best(time), time))

    def allotment(self) -> Allotment:
        """What the plan takes."""
        return self._best(Deadline(self.options.time_limit_s))

    def exists(self) -> bool | None:
        """Whether there is a plan; None where that is not known in time."""
        fused = self._fused()
        found = [attempt._exists() for attempt in ((self,) if fused is None else (fused, self))]
        return True if True in found else None if None in found else False

    def _exists(self) -> bool | None:
        candidates = with_room(self.problem, self.candidates(), self.options)
        if not complete(candidates):
            return False
        soon = replace(self.options, gap=_ANY_GAP)
        time = Deadline(self.options.time_limit_s)
        found = fewest_slices(self.problem, candidates, soon, self.solver, time, ties=False)
        if found is None or found[1].status == "infeasible":
            return False
        return bool(found[1].stages) or None

    def candidates(self) -> Candidates:
        """The configurations that are worth trying, whether or not the cluster has room for them."""
        found = worth_trying(self.problem, self.everything, self.options)
        return found if self.single is None else in_shared_slices(found)

    def _fused(self) -> "Planning | None":
        """The attempt with chains as one task each, as far as they fit a slice; None where that is no other attempt."""
        if not self.options.share or "T" not in self.options.features:
            return None
        left_out: Apart = frozenset()
        while (problem := with_fused_chains(self.problem, left_out)) is not None:
            everything = {
                w.graph.name: available(
                    w.graph, problem.profiles[w.graph.name], problem.boards, self.options, replicas(problem)
                )
                for w in problem.workloads
            }
            attempt = replace(self, problem=problem, everything=everything, told=False, single=self.problem)
            unfit = without(everything) or without(attempt.candidates())
            if not unfit:
                return attempt
            left_out |= unfit
        return None

    def _best(self, time: Deadline) -> Allotment:
        """What takes the least: by whole chains, for half of the time at most, or by each task on its own."""
        fused = self._fused()
        if fused is None:
            return self._allotted(time)
        try:
            first = fused._allotted(Deadline(time.left_s / 2))
        except JigsawError:
            return self._allotted(time)
        try:
            second = replace(self, told=False)._allotted(time)
        except InfeasibleError:
            return first
        except JigsawError:
            return first.known_above(self._least())
        return better(first, second)

    def _least(self) -> float:
        """Compute slices that any plan takes with each task on its own."""
        return least_together(b.least for b in bounds_of(self.problem.workloads, self.candidates()).values())

    def _allotted(self, time: Deadline) -> Allotment:
        candidates = self.candidates()
        found = self._solved(with_room(self.problem, candidates, self.options), time)
        if found is not None:
            model, outcome = found
            if outcome.status == "unknown":
                raise self.out_of_time()
            if outcome.status != "infeasible":
                counts = merged(model.counts(outcome.values))
                single = self.single or self.problem
                known = links(single.workloads)
                shared = fitting(counts, model.shared(outcome.values), known, partial(apart, problem=single)).slices
                alone = {c: n for c, n in counts.items() if not c.shares}
                return Allotment(alone, shared, model.gpus(outcome.values), outcome)
        raise self.infeasible(candidates)

    def _solved(self, candidates: Candidates, time: Deadline) -> Solution | None:
        """The program solved; None where it is plain that there is no plan."""
        if not complete(candidates):
            return None
        staying = replicas_among(self.problem, candidates) if self.options.change_price else {}
        found = fewest_slices(self.problem, candidates, self.options, self.solver, time, ties=not staying)
        if found is None or not staying or not found[1].stages:
            return found
        return cheapest_change(
            self.problem,
            candidates,
            staying,
            self.options.change_price,
            model=found[0],
            outcome=found[1],
            gap=self.options.gap,
            solver=self.solver,
            left_s=lambda: time.left_s,
        )

    def _assembled(self, allotment: Allotment, time: Deadline) -> Plan:
        problem, options, counts = self.problem, self.options, allotment.counts
        flow = flows(problem.workloads, counts)
        rates = flow.calls(self._values(flow.program, time))
        gpus = self._placed(allotment, time)
        loads, even = by_load(self.everything), "T" not in options.features
        return Plan(
            graphs={w.graph.name: graph_plan(w, counts, rates, loads=loads, even=even) for w in problem.workloads},
            gpus=gpus,
            slices_used=allotment.slices,
            slices_total=problem.cluster.compute_slices,
            gpus_used=len(gpus),
            features=options.features,
            formulation=options.formulation,
            latency_model=options.latency_model,
            solver=SolverReport(
                name=SOLVER_TITLES[self.solver.name],
                status=allotment.outcome.status,
                seconds=round(time.spent_s, 3),
                gap=allotment.outcome.stages[0].gap,
            ),
        )

    def _placed(self, allotment: Allotment, time: Deadline) -> tuple[PlannedGpu, ...]:
        cluster = self.problem.cluster
        if self.options.ideal_packing:
            return everything_placed(cluster, allotment.counts)
        where = placement(cluster, allotment.alone, allotment.gpus, self.problem.running, allotment.shared)
        return where.placed(self._values(where.program, time))

    def _values(self, program: Program, time: Deadline) -> tuple[float, ...]:
        """The solution of a program that has one."""
        outcome = solved(self.solver, program, time.left_s)
        if not outcome.stages:
            raise SolverFailure(f"{SOLVER_TITLES[self.solver.name]} called {outcome.status} what has a solution")
        return outcome.values

    def _sound(self, plan: Plan) -> Plan:
        wrong = violations(plan, self.problem, self.options)
        if wrong:
            raise SolverFailure(f"{SOLVER_TITLES[self.solver.name]} gave a plan that does not hold: {'; '.join(wrong)}")
        return plan

    def out_of_time(self) -> JigsawError:
        """That nothing is known."""
        return JigsawError(
            f"no plan was found within {self.options.time_limit_s:g} s, nor that there is none",
            hint="allow more time with --time-limit",
        )

    def infeasible(self, candidates: Candidates) -> InfeasibleError:
        """Why there is no plan with these candidates."""
        if not self.told:
            return InfeasibleError(())
        workloads, limit_s = self.problem.workloads, max(LEAST_S, self.options.time_limit_s)
        found = [
            conflict
            for w in workloads
            if (conflict := diagnose.both_limits(w.graph, self.everything[w.graph.name], self.solver, limit_s))
        ]
        if not found:
            found = [self._too_small(candidates, limit_s)]
        return InfeasibleError([reason for reason, _ in found], hint="; ".join(hint for _, hint in found))

    def _too_small(self, candidates: Candidates, limit_s: float) -> tuple[str, str]:
        """The reason and hint where the cluster is."""
        scale, proven = (self._part_carried(), False) if self.by_halving else self._largest_part(candidates, limit_s)
        needed = self._needed(candidates, 1.0 if scale is not None else self._idle(self.names))
        return diagnose.too_small(self.problem.workloads, self.problem.cluster, scale, needed, proven=proven)

    def _largest_part(self, candidates: Candidates, limit_s: float) -> tuple[float | None, bool]:
        """The part of the demand that the cluster carries, and whether that is proven; see `diagnose.too_small`."""
        roomy, every = with_room(self.problem, candidates, self.options), self.names
        near = self.scale_near(every, roomy) if complete(roomy) else 0.0
        if not near and (not complete(roomy) or self.has_no_room(every, roomy)):
            return None, True
        scale, outcome = self.largest_scale(every, roomy, near, limit_s)
        if outcome.status == "infeasible" and not near:
            return None, True
        if not outcome.stages:
            return near, False
        if scale >= 1 + 10 * TOLERANCE:
            raise SolverFailure(f"a plan was called infeasible that carries {scale} times the demand")
        return scale, outcome.status == "optimal"

    def largest_scale(
        self, scaled: Collection[str], candidates: Candidates, near: float, limit_s: float
    ) -> tuple[float, Outcome]:
        """The largest scale of these graphs' demands, 0 where none was found, and what the solver made of it.

        Configurations that no plan can use at a scale near the largest are left out: they take more slices at any
        greater one. It is looked for from there, since solvers are exact to an absolute tolerance.

        Args:
            scaled: Names of the graphs.
            candidates: At least one a task.
            near: A scale that is carried, near the largest; 0 where none is known.
            limit_s: For solving.
        """
        at = with_demand_scaled(self.problem, scaled, near or 1.0)
        kept = within_cluster(at, bounds_of(at.workloads, candidates), candidates) if near else candidates
        offered = supplies(at, kept, self.options)
        model = allocation(at.workloads, kept, offered, "most", scaled=scaled, least=_SURELY if near else 0.0)
        outcome = solved(self.solver, model.program, limit_s)
        scale = outcome.values[model.scale or 0] if outcome.stages else 0.0
        return scale * (near or 1.0), outcome

    @property
    def names(self) -> set[str]:
        """Of all graphs."""
        return {w.graph.name for w in self.problem.workloads}

    def has_no_room(self, scaled: Collection[str], candidates: Candidates) -> bool:
        """Whether the bounds alone tell that the cluster has too few slices for these graphs at any demand."""
        bounds = bounds_of(with_demand_scaled(self.problem, scaled, self._idle(scaled)).workloads, candidates)
        return least_together(b.least for b in bounds.values()) > self.problem.cluster.compute_slices

    def _idle(self, scaled: Collection[str]) -> float:
        """A scale of these graphs' demands at which they are as good as none."""
        return _IDLE / max([1.0, *(w.demand_rps for w in self.problem.workloads if w.graph.name in scaled)])

    def scale_near(self, scaled: Collection[str], candidates: Candidates) -> float:
        """A scale of these graphs' demands that there is a plan for, near the largest; 0 where none was found soon."""
        scale = 1.0
        for _ in range(_ROUNDS):
            bounds = bounds_of(with_demand_scaled(self.problem, scaled, scale).workloads, candidates)
            growing = sum(b.least for name, b in bounds.items() if name in scaled)
            room = self.problem.cluster.compute_slices - sum(b.least for b in bounds.values()) + growing
            if math.isinf(growing) or not room > 0:
                return 0.0
            scale *= room / growing
            if _NEAR < room / growing < 1 / _NEAR:
                break
        options = replace(self.options, time_limit_s=WITNESS_SHARE * self.options.time_limit_s)
        for part in _PARTS:
            larger = with_demand_scaled(self.problem, scaled, part * scale)
            if replace(self, problem=larger, options=options).exists():
                return part * scale
        return 0.0

    @property
    def by_halving(self) -> bool:
        """Whether the largest demand has to be found by planning for one after the other.

        Where slices are shared, what a configuration takes hangs on the demand; where the mean accuracy counts, what is
        linear at a demand is not in the demand.
        """
        return self.options.share or self.problem.averages

    def carries(self, scaled: Collection[str], scale: float) -> bool | None:
        """Whether there is a plan for the demands of these graphs multiplied; None where that is not known in time."""
        problem = with_demand_scaled(self.problem, scaled, scale)
        if max(w.demand_rps for w in problem.workloads) > MAX_DEMAND_RPS:
            return False
        options = replace(self.options, time_limit_s=max(LEAST_S, self.options.time_limit_s / _SCALES))
        return replace(self, problem=problem, options=options).exists()

    def _part_carried(self) -> float | None:
        """The part of the demand that the cluster carries, by halving, as far as is found in time.

        0 where none is found; None where it carries none, however small.
        """
        high, idle = 1.0, self._idle(self.names)
        while not (carries := self.carries(self.names, high / _FEWER)):
            high /= _FEWER
            if high < idle:
                return None if carries is False else 0.0
        low = high / _FEWER
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.carries(self.names, middle) else (low, middle)
        return low

    def _needed(self, candidates: Candidates, scale: float) -> tuple[int, int] | None:
        """Compute slices and GPUs that would do for a part of the demand, were there GPUs without end."""
        time = Deadline(self.options.time_limit_s)
        problem = with_demand_scaled(self.problem, self.names, scale)
        found = fewest_slices(problem, candidates, self.options, self.solver, time, "ideal")
        if found is None or not found[1].stages:
            return None
        model, outcome = found
        return round(outcome.stages[0].value), model.gpus(outcome.values)
