"""The search for the plan of least slices: one attempt with one solver."""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.errors import InfeasibleError, JigsawError
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner import diagnose
from jigsaw_triton.planner.bounds import Bounds, least_slices
from jigsaw_triton.planner.configurations import (
    Configuration,
    Replica,
    TaskConfigurations,
    by_load,
    worthwhile,
)
from jigsaw_triton.planner.extraction import flows, graph_plan
from jigsaw_triton.planner.greedy import everything_placed
from jigsaw_triton.planner.model import SCALE_GAP, Allocation, Goal, allocation
from jigsaw_triton.planner.placement import placement, running_slices
from jigsaw_triton.planner.plan import Plan, PlannedGpu, SolverReport
from jigsaw_triton.planner.price import cheapest_change
from jigsaw_triton.planner.problem import MAX_DEMAND_RPS, Options, Problem
from jigsaw_triton.planner.program import Draft, Program
from jigsaw_triton.planner.sharing import Cut, Pool, SharedSlice, evenly_shared, fitting, with_shared
from jigsaw_triton.planner.solver import (
    SOLVER_TITLES,
    Outcome,
    Solver,
    SolverFailure,
    Stage,
    solved,
)
from jigsaw_triton.planner.supply import Supply, supply
from jigsaw_triton.planner.validate import violations

_LIKELY = 0.02
"""Configurations whose bound is above that of their graph by more are not looked at for a plan to begin with."""

_WITNESS_SHARE = 0.1
"""Of the time limit."""

_SLACKS = (0.0, 0.001, 0.005, 0.02, 0.1)
"""By how much more than the bound a plan may take, tried in turn until there is one: mostly the bound is met."""

_SHARED_SLACKS = (0.3, 0.6, 1.0)
"""Likewise where slices are shared: the bound, of parts of slices, is farther from what fits them."""

_ROUNDING = 1e-3
"""Of a slice, that sums of parts of slices may be off by."""

_MOST_CUTS = 40
"""Times that a program is solved again because what shares slices does not fit them one by one."""

_BEGINNING_GAP = 0.1
"""Relative, of the plan to begin with where slices are shared."""

_FIRST_PART = 0.7
"""Of the time that is left, for one solution where slices are shared: it may have to be looked for once more."""

_MOST_TIES = 4
"""Likewise to decide ties."""

_TIES_SHARE = 0.2
"""Of the time limit, to decide ties where slices are shared."""

_ROOM_GAP = 0.01

_SLICES_AND_GPUS = 2
"""The first objectives."""

_ANY_GAP = 1e9
"""At which any solution counts as optimal."""

_ROUNDS = 4

_NEAR = 0.98
"""A scale by the bounds that is so near to the cluster's slices is near enough to begin with."""

_PARTS = (0.99, 0.95, 0.85, 0.6)
"""Of the scale by the bounds, tried in turn."""

_SURELY = 0.999
"""Of a scale that is carried, less by what solvers may miss it by."""

_SCALES = 8
"""The part of the time limit that a single scale of demands may take is one of so many, where halving finds it."""

_SOMEWHAT = 1.02
"""How much larger than what floors allow for a demand is tried first where the mean accuracy counts."""

_MOST_SCALE = 1e6

_LEAST_SCALE = 1e-3
"""Of demands: where a cluster carries less than that, it has no room for the tasks."""

_PLACING_ROUNDS = 8
"""Of halving the demand's range where the paper's greedy placement fails."""

LEAST_S = 1.0
"""Time that the small programs after the plan's own (flows, placement, reasons) get in any case."""


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


@dataclass(frozen=True, slots=True)
class Planning:
    """One attempt with one solver; `told`: where there is no plan, the reasons are looked for."""

    problem: Problem
    options: Options
    everything: Mapping[str, TaskConfigurations]
    solver: Solver
    told: bool = True

    def plan(self) -> Plan:
        """The validated plan."""
        started = time.monotonic()
        return self._sound(self._assembled(self._allotted(started), started))

    def allotment(self) -> Allotment:
        """What the plan takes."""
        return self._allotted(time.monotonic())

    def exists(self) -> bool | None:
        """Whether there is a plan; None where that is not known in time."""
        workloads, candidates = self.problem.workloads, self._with_room(self._candidates())
        if not _complete(candidates):
            return False
        bounds = _bounds(workloads, candidates)
        least = _whole(b.least for b in bounds.values())
        if least > self.problem.cluster.compute_slices:
            return False
        kept = self._within_cluster(bounds, candidates)
        supplies = _supplies(self.problem, kept, ideal=self._ideal)

        def first(cuts: Sequence[Cut]) -> Allocation:
            model = allocation(workloads, kept, supplies, least=least, cuts=cuts)
            # The slices guide the search, which ends at the first plan.
            slices = replace(model.program.objectives[0], gap=_ANY_GAP, relative_gap=_ANY_GAP, integral=False)
            return replace(model, program=replace(model.program, objectives=(slices,)))

        _, outcome = self._fitting(first, [], time.monotonic() + self.options.time_limit_s)
        return None if outcome.status == "unknown" else bool(outcome.stages)

    def _allotted(self, started: float) -> Allotment:
        workloads, candidates = self.problem.workloads, self._candidates()
        roomy = self._with_room(candidates)
        if _complete(roomy):
            staying = self._running(roomy) if self.options.change_price else {}
            model, outcome = self._allocated(workloads, roomy, started, ties=not staying)
            if staying and outcome.stages:
                model, outcome = cheapest_change(
                    self.problem,
                    roomy,
                    staying,
                    self.options.change_price,
                    model=model,
                    outcome=outcome,
                    gap=self.options.gap,
                    solver=self.solver,
                    left_s=lambda: self._left(started),
                )
            if outcome.status == "unknown":
                raise _out_of_time(self.options)
            if outcome.status != "infeasible":
                counts = model.counts(outcome.values)
                shared = fitting(counts, model.shared(outcome.values)).slices
                alone = {c: n for c, n in counts.items() if not c.shares}
                return Allotment(alone, shared, model.gpus(outcome.values), outcome)
        raise self._infeasible(candidates)

    def _allocated(
        self,
        workloads: Sequence[Workload],
        candidates: Mapping[str, TaskConfigurations],
        started: float,
        goal: Goal = "least",
        *,
        bounds: Mapping[str, Bounds] | None = None,
        ties: bool = True,
    ) -> tuple[Allocation, Outcome]:
        """The program solved with the configurations that may be part of an optimum.

        Those whose bound is above a limit are left out: no plan within the limit needs them. Where the best plan found
        is above it, its own slices are the next limit. Where there is none, a greater limit is tried, at last none.
        A plan to begin with is looked for first: more slices than it no limit needs to allow.

        Args:
            workloads: Graphs and demands.
            candidates: Their configurations.
            started: When the time that there is began.
            goal: Of the program.
            bounds: Where they are known.
            ties: Whether the objectives after the slices count.
        """
        bounds = bounds or _bounds(workloads, candidates)
        leasts = {name: b.least for name, b in bounds.items()}
        if math.inf in leasts.values():
            raise self._infeasible(candidates)
        sharing = any(c.shares for tasks in candidates.values() for of in tasks.values() for c in of)
        likely = {name: bounds[name].likely(_LIKELY, of) for name, of in candidates.items()}
        cuts: list[Cut] = []
        first_found: tuple[Allocation, Outcome] | None = None
        pooled: dict[Pool, int] = {}
        begun: tuple[Allocation, Outcome] | None = None
        if sharing:
            begun = self._beginning(workloads, candidates, cuts, started, goal)
            start = begun[0].counts(begun[1].values) if begun else {}
            pooled = begun[0].shared(begun[1].values) if begun else {}
        elif len(workloads) > 1:
            leasts, start = self._one_by_one(workloads, candidates, bounds, started)
        else:
            model, outcome = first_found = self._witness(likely, leasts, goal)
            start = model.counts(outcome.values) if outcome.stages else {}
        least, others = _whole(leasts.values()), sum(leasts.values())
        most = sum(n * c.compute_slices for c, n in start.items()) or math.inf
        if begun:
            most = begun[1].stages[0].value
        if most <= least and not ties and len(workloads) == 1 and not sharing:
            return model, outcome

        def solved_within(
            limit: float, of: Mapping[str, TaskConfigurations], proven: float
        ) -> tuple[Allocation, Outcome]:
            kept = {name: bounds[name].within(limit - others + leasts[name], tasks) for name, tasks in of.items()}
            supplies, running = _supplies(self.problem, kept, ideal=self._ideal), self._running(kept)

            def model(cuts: Sequence[Cut]) -> Allocation:
                return allocation(
                    workloads,
                    kept,
                    supplies,
                    goal,
                    running=running,
                    least=proven,
                    enough=limit if ties else -math.inf,
                    gap=self.options.gap,
                    start=start,
                    cuts=cuts,
                    pooled=pooled,
                )

            found, outcome = self._fitting(model, cuts, time.monotonic() + self._left(started))
            return found, _bounded(outcome, proven)

        if most < math.inf and 0 < most * self.options.gap >= most - least:
            # Good enough; the ties are decided among what made it so.
            model, outcome = solved_within(most, {name: _with(likely[name], start, name) for name in likely}, least)
            return model, replace(outcome, status="feasible") if outcome.stages else outcome
        slacks = (*_SLACKS, *_SHARED_SLACKS) if sharing else _SLACKS
        limits = sorted({most, math.inf, *(least + math.ceil(slack * least) for slack in slacks)})
        proven = least
        while True:
            limit = limits.pop(0)
            model, outcome = solved_within(limit, candidates, proven)
            worse = limit >= most and bool(outcome.stages) and outcome.stages[0].value > most
            if begun and (worse or outcome.status == "unknown"):
                # Time ran out before as good a plan was found as the one to begin with.
                stage = Stage(most, min(proven, most), proven=proven >= most)
                return begun[0], replace(begun[1], status="feasible", stages=(stage,))
            if outcome.status == "unknown" and first_found is not None and first_found[1].stages:
                # Not proven, but a plan.
                return first_found[0], replace(_bounded(first_found[1], proven), status="feasible")
            if limit == math.inf or outcome.status == "unknown":
                return model, outcome
            late = time.monotonic() - started > self.options.time_limit_s
            first = outcome.stages[0] if outcome.stages else None
            if first is not None and first.value <= limit:
                return model, outcome
            if first is None or first.proven:
                # With these configurations there is no plan within the limit, and others no such plan needs.
                proven = limit + 1
            if late and first is not None:
                return model, replace(outcome, status="feasible", stages=(Stage(first.value, proven, proven=False),))
            if late and begun:
                return begun[0], replace(begun[1], status="feasible", stages=(Stage(most, proven, proven=False),))
            if late:
                return model, replace(outcome, status="unknown")
            if first is not None:
                limits.insert(0, min(first.value, most) if begun else first.value)

    def _beginning(
        self,
        workloads: Sequence[Workload],
        candidates: Mapping[str, TaskConfigurations],
        cuts: list[Cut],
        started: float,
        goal: Goal,
    ) -> tuple[Allocation, Outcome] | None:
        """A plan of few slices that are shared, or of none; None where neither is found soon."""
        even = {w.graph.name: evenly_shared(w.graph, candidates[w.graph.name]) for w in workloads}
        supplies = _supplies(self.problem, even, ideal=False)

        def model(known: Sequence[Cut]) -> Allocation:
            made = allocation(workloads, even, supplies, goal, enough=-math.inf, gap=_BEGINNING_GAP, cuts=known)
            return replace(made, program=replace(made.program, objectives=made.program.objectives[:1]))

        soon = time.monotonic() + _WITNESS_SHARE * self.options.time_limit_s
        made, outcome = self._fitted(model, cuts, soon, _MOST_CUTS)
        if not outcome.stages:
            alone = {
                name: {task: tuple(c for c in of if not c.shares) for task, of in tasks.items()}
                for name, tasks in candidates.items()
            }
            made, outcome = self._allocated(workloads, alone, started, goal, ties=False)
        return (made, outcome) if outcome.stages else None

    def _fitting(
        self, model: Callable[[Sequence[Cut]], Allocation], cuts: list[Cut], deadline: float
    ) -> tuple[Allocation, Outcome]:
        """A program solved so that all that shares slices fits them one by one.

        The slices first, then the GPUs, and then as little as can be in those that are shared; what the objectives
        after that can still gain in these slices comes last, if it fits them as well.

        Args:
            model: Makes the program with what is known of slices that are shared.
            cuts: What is known; more is added.
            deadline: By `time.monotonic`.
        """
        whole = model(cuts)
        if not whole.pools:
            return whole, solved(self.solver, whole.program, max(LEAST_S, deadline - time.monotonic()))
        made, outcome = self._fitted(lambda known: _roomy(model(known)), cuts, deadline, _MOST_CUTS)
        if outcome.stages and all(stage.proven for stage in outcome.stages[:_SLICES_AND_GPUS]):
            outcome = replace(outcome, status="optimal")
        later = whole.program.objectives[_SLICES_AND_GPUS:]
        if not later or len(outcome.stages) < _SLICES_AND_GPUS or outcome.status == "unknown":
            return made, outcome
        if not whole.program.objectives[0].suffices(outcome.stages[0].value):
            return made, outcome
        soon = min(deadline, time.monotonic() + _TIES_SHARE * self.options.time_limit_s)
        for _ in range(_MOST_TIES):
            better = _settled(model(cuts), made, outcome)
            ties = solved(self.solver, better.program, max(LEAST_S, soon - time.monotonic()))
            if not ties.stages:
                break
            fits = fitting(better.counts(ties.values), better.shared(ties.values))
            if not fits.needed:
                return better, replace(outcome, values=ties.values)
            if not fits.cuts or time.monotonic() > soon:
                break
            cuts += fits.cuts
        return made, outcome

    def _fitted(
        self, model: Callable[[Sequence[Cut]], Allocation], cuts: list[Cut], deadline: float, most: int
    ) -> tuple[Allocation, Outcome]:
        """Arguments as above, and how often the program is solved; then what does not fit gets more slices."""
        for _ in range(most):
            made = model(cuts)
            outcome = solved(self.solver, made.program, max(LEAST_S, _FIRST_PART * (deadline - time.monotonic())))
            if not outcome.stages:
                return made, outcome
            fits = fitting(made.counts(outcome.values), made.shared(outcome.values))
            if not fits.needed:
                return made, outcome
            cuts += fits.cuts
            if not fits.cuts or time.monotonic() > deadline:
                break
        return self._enlarged(made, outcome, fits.needed, max(LEAST_S, deadline - time.monotonic()))

    def _enlarged(
        self, made: Allocation, outcome: Outcome, needed: Mapping[Pool, int], limit_s: float
    ) -> tuple[Allocation, Outcome]:
        """The solution with as many slices in each pool as what is in it takes; unknown where the GPUs have no more."""
        columns = list(made.program.columns)
        for c, column in made.count.items():
            if c.shares:
                columns[column] = replace(columns[column], lower=(x := round(outcome.values[column])), upper=x)
        for pool, number in needed.items():
            columns[made.pools[pool]] = replace(columns[made.pools[pool]], lower=float(number))
        made = replace(made, program=replace(made.program, columns=tuple(columns)))
        larger = solved(self.solver, made.program, limit_s)
        if not larger.stages:
            return made, Outcome("unknown", (), ())
        first = larger.stages[0]
        bound = Stage(first.value, min(first.value, outcome.stages[0].bound), proven=False)
        return made, replace(larger, status="feasible", stages=(bound, *larger.stages[1:]))

    def _one_by_one(
        self,
        workloads: Sequence[Workload],
        candidates: Mapping[str, TaskConfigurations],
        bounds: Mapping[str, Bounds],
        started: float,
    ) -> tuple[dict[str, float], dict[Configuration, int]]:
        """Each graph's least slices on GPUs without end, and the replicas that all of them have then together.

        The second is empty where one of them was not found.
        """
        found, together = {name: b.least for name, b in bounds.items()}, dict[Configuration, int]()
        complete = True
        for workload in workloads:
            name = workload.graph.name
            alone = replace(self, problem=replace(self.problem, workloads=(workload,)))
            model, outcome = alone._allocated(
                (workload,), {name: candidates[name]}, started, "ideal", bounds={name: bounds[name]}, ties=False
            )
            complete = complete and bool(outcome.stages)
            if outcome.stages:
                first = outcome.stages[0]
                found[name] = max(found[name], first.value if first.proven else first.bound)
                together |= model.counts(outcome.values)
        return found, together if complete else {}

    def _witness(
        self, kept: Mapping[str, TaskConfigurations], leasts: Mapping[str, float], goal: Goal
    ) -> tuple[Allocation, Outcome]:
        """A plan of few slices with these configurations; none where none is found soon."""
        supplies, least = _supplies(self.problem, kept, ideal=self._ideal), sum(leasts.values())
        model = allocation(self.problem.workloads, kept, supplies, goal, least=least, enough=-math.inf)
        return model, solved(self.solver, model.program, _WITNESS_SHARE * self.options.time_limit_s)

    @property
    def _ideal(self) -> bool:
        """Whether packing is taken to be ideal."""
        return self.options.formulation == "paper"

    @property
    def by_halving(self) -> bool:
        """Whether the largest demand has to be found by planning for one after the other.

        Where slices are shared, what a configuration takes hangs on the demand; where the mean accuracy counts, what is
        linear at a demand is not in the demand.
        """
        mean = any(w.graph.slo.accuracy_mode == "mean" for w in self.problem.workloads)
        return self.options.share or mean

    def largest_scale(self, scaled: Collection[str]) -> tuple[float, float]:
        """By what the demands of these graphs can be multiplied at most, and the gap of that.

        Configurations that no plan can use at a scale near the largest are left out: they take more slices at any
        greater one.
        """
        candidates = self._candidates()
        roomy = self._with_room(candidates)
        if _complete(roomy):
            near = self._scale_near(scaled, roomy)
            workloads = grown(self.problem, scaled, near or 1.0).workloads
            kept = self._within_cluster(_bounds(workloads, roomy), roomy) if near else roomy
            supplies = _supplies(self.problem, kept, ideal=self._ideal)
            least = _SURELY if near else 0.0
            model = allocation(workloads, kept, supplies, "most", scaled=scaled, least=least)
            outcome = solved(self.solver, model.program, self.options.time_limit_s)
            scale = outcome.values[model.scale or 0] if outcome.stages else 0.0
            if scale > 0:
                return scale * (near or 1.0), outcome.stages[0].gap
            if outcome.status == "unknown":
                raise _out_of_time(self.options)
        raise self._infeasible(candidates)

    def _scale_near(self, scaled: Collection[str], candidates: Mapping[str, TaskConfigurations]) -> float:
        """A scale that there is a plan for, near the largest; 0 where none was found soon."""
        scale = 1.0
        for _ in range(_ROUNDS):
            workloads = grown(self.problem, scaled, scale).workloads
            bounds = _bounds(workloads, candidates)
            growing = sum(b.least for name, b in bounds.items() if name in scaled)
            room = self.problem.cluster.compute_slices - sum(b.least for b in bounds.values()) + growing
            if growing == math.inf or not room > 0:
                return 0.0
            scale *= room / growing
            if _NEAR < room / growing < 1 / _NEAR:
                break
        options = replace(self.options, time_limit_s=_WITNESS_SHARE * self.options.time_limit_s)
        for part in _PARTS:
            larger = grown(self.problem, scaled, part * scale)
            if replace(self, problem=larger, options=options).exists():
                return part * scale
        return 0.0

    def _within_cluster(
        self, bounds: Mapping[str, Bounds], candidates: Mapping[str, TaskConfigurations]
    ) -> dict[str, dict[str, tuple[Configuration, ...]]]:
        """The configurations that plans may use for which the cluster has the slices."""
        over = self.problem.cluster.compute_slices - sum(b.least for b in bounds.values())
        return {name: bounds[name].within(over + bounds[name].least, tasks) for name, tasks in candidates.items()}

    def largest_scale_by_halving(self, scaled: Collection[str]) -> tuple[float, float]:
        """As `largest_scale`, by doubling and halving; see `by_halving`."""
        low = self._scale_of_floors(scaled)
        growth = _SOMEWHAT if low else 2.0
        high = low * growth or 1.0
        while (carries := self._carries(scaled, high)) and high < _MOST_SCALE:
            low, high, growth = high, high * growth, min(2.0, growth**2)
        unsure = carries is None
        while high - low > SCALE_GAP * high:
            if high < _LEAST_SCALE:
                raise self._infeasible(self._candidates())
            middle = (low + high) / 2
            carries = self._carries(scaled, middle)
            unsure = unsure or carries is None
            low, high = (middle, high) if carries else (low, middle)
        return low, (high - low) / low if unsure else 0.0

    def _scale_of_floors(self, scaled: Collection[str]) -> float:
        """A scale to begin with, of plans that keep the mean accuracy with each request; 0 where none is found soon."""
        if self.options.share:
            return 0.0
        floors = replace(self.problem, workloads=tuple(map(_on_floor, self.problem.workloads)))
        try:
            scale, _ = replace(self, problem=floors, told=False).largest_scale(scaled)
        except JigsawError:
            return 0.0
        return scale if self._carries(scaled, scale) else 0.0

    def _carries(self, scaled: Collection[str], scale: float) -> bool | None:
        """Whether there is a plan for the demands of these graphs multiplied; None where that is not known in time."""
        problem = grown(self.problem, scaled, scale)
        if max(w.demand_rps for w in problem.workloads) > MAX_DEMAND_RPS:
            return False
        options = replace(self.options, time_limit_s=max(LEAST_S, self.options.time_limit_s / _SCALES))
        return replace(self, problem=problem, options=options).exists()

    def _candidates(self) -> Mapping[str, TaskConfigurations]:
        problem, options = self.problem, self.options
        staying = self._replicas() if options.change_price else ()
        alone = {w.graph.name: worthwhile(w.graph, self.everything[w.graph.name], staying) for w in problem.workloads}
        if not options.share:
            return alone
        return with_shared(problem.workloads, alone, problem.profiles, problem.boards, options)

    def _with_room(self, candidates: Mapping[str, TaskConfigurations]) -> dict[str, TaskConfigurations]:
        """Those on slices that a GPU of the cluster has room for, beside what others have there."""
        supplies = {s.board.name: s for s in _supplies(self.problem, candidates, ideal=self._ideal)}
        return {
            name: {task: tuple(c for c in of if supplies[c.board].most(c.slice) > 0) for task, of in tasks.items()}
            for name, tasks in candidates.items()
        }

    def _assembled(self, allotment: Allotment, started: float) -> Plan:
        problem, options, counts = self.problem, self.options, allotment.counts
        flow = flows(problem.workloads, counts)
        rates = flow.calls(self._values(flow.program, started))
        gpus = self._placed(allotment, started)
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
                seconds=round(time.monotonic() - started, 3),
                gap=allotment.outcome.stages[0].gap,
            ),
        )

    def _placed(self, allotment: Allotment, started: float) -> tuple[PlannedGpu, ...]:
        cluster = self.problem.cluster
        if self._ideal:
            return everything_placed(cluster, allotment.counts)
        where = placement(cluster, allotment.alone, allotment.gpus, self.problem.running, allotment.shared)
        return where.placed(self._values(where.program, started))

    def _values(self, program: Program, started: float) -> tuple[float, ...]:
        """The solution of a program that has one."""
        outcome = solved(self.solver, program, self._left(started))
        if not outcome.stages:
            raise SolverFailure(f"{SOLVER_TITLES[self.solver.name]} called {outcome.status} what has a solution")
        return outcome.values

    def _left(self, started: float) -> float:
        return max(LEAST_S, self.options.time_limit_s - (time.monotonic() - started))

    def _sound(self, plan: Plan) -> Plan:
        wrong = violations(plan, self.problem, self.options)
        if wrong:
            raise SolverFailure(f"{SOLVER_TITLES[self.solver.name]} gave a plan that does not hold: {'; '.join(wrong)}")
        return plan

    def _running(self, candidates: Mapping[str, TaskConfigurations]) -> Counter[Replica]:
        """Replicas that run now, of the configurations that may be chosen."""
        known = {c.replica for tasks in candidates.values() for of in tasks.values() for c in of}
        return Counter({replica: n for replica, n in self._replicas().items() if replica in known})

    def _replicas(self) -> Counter[Replica]:
        """All replicas that run now."""
        boards = {gpu.id: gpu.board.name for gpu in self.problem.cluster.gpus}
        return Counter(
            (m.graph, m.task, m.variant, boards[gpu], place.slice, m.instances, m.batch)
            for gpu, slices in running_slices(self.problem.cluster, self.problem.running).items()
            for place, models in slices.items()
            for m in models
        )

    def _infeasible(self, candidates: Mapping[str, TaskConfigurations]) -> InfeasibleError:
        if not self.told:
            return InfeasibleError(())
        workloads, limit = self.problem.workloads, max(LEAST_S, self.options.time_limit_s)
        found = [
            conflict
            for w in workloads
            if (conflict := diagnose.both_limits(w.graph, self.everything[w.graph.name], self.solver, limit))
        ]
        if not found:
            supplies = _supplies(self.problem, candidates, ideal=self._ideal)
            cluster, solver = self.problem.cluster, self.solver

            def needed() -> tuple[int, int]:
                return self._needed(candidates)

            if self.by_halving:
                found = [diagnose.too_small(workloads, cluster, self._part_carried(), needed())]
            else:
                found = [diagnose.demand(workloads, candidates, supplies, cluster, solver, limit, needed)]
        return InfeasibleError([reason for reason, _ in found], hint="; ".join(hint for _, hint in found))

    def _part_carried(self) -> float | None:
        """The part of the demand that the cluster carries, by halving, as far as is found in time."""
        every, low, high = {w.graph.name for w in self.problem.workloads}, 0.0, 1.0
        for _ in range(_PLACING_ROUNDS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._carries(every, middle) else (low, middle)
        return low or None

    def _needed(self, candidates: Mapping[str, TaskConfigurations]) -> tuple[int, int]:
        """Compute slices and GPUs that would do, were there GPUs without end."""
        model, outcome = self._allocated(self.problem.workloads, candidates, time.monotonic(), "ideal")
        if not outcome.stages:
            raise SolverFailure(f"finding what is needed came out {outcome.status}")
        return round(outcome.stages[0].value), model.gpus(outcome.values)


def _bounded(outcome: Outcome, proven: float) -> Outcome:
    """What a solver found, of which at least so many slices are known to be needed."""
    if not outcome.stages or outcome.stages[0].bound >= proven:
        return outcome
    first, *rest = outcome.stages
    return replace(outcome, stages=(replace(first, bound=min(proven, first.value)), *rest))


def _bounds(workloads: Sequence[Workload], candidates: Mapping[str, TaskConfigurations]) -> dict[str, Bounds]:
    return {w.graph.name: least_slices(w, candidates[w.graph.name]) for w in workloads}


def _complete(candidates: Mapping[str, TaskConfigurations]) -> bool:
    """Whether each task has a configuration at least."""
    return all(all(of.values()) for of in candidates.values())


def _on_floor(workload: Workload) -> Workload:
    """Held to its accuracy with each request."""
    graph = workload.graph
    return replace(workload, graph=replace(graph, slo=replace(graph.slo, accuracy_mode="floor")))


def _with(found: TaskConfigurations, these: Collection[Configuration], graph: str) -> TaskConfigurations:
    """These configurations too, as far as they are of the graph."""
    own = [c for c in these if c.graph == graph]
    return {task: tuple(sorted({*of, *(c for c in own if c.task == task)})) for task, of in found.items()}


def _roomy(made: Allocation) -> Allocation:
    """With as little as can be in slices that are shared in place of the objectives after slices and GPUs."""
    columns = [(column, c.turn.cycle) for c, column in made.count.items() if c.shares]
    draft = Draft(list(made.program.columns), list(made.program.rows), list(made.program.objectives[:_SLICES_AND_GPUS]))
    draft.minimise(columns, gap=_ROOM_GAP, relative_gap=_ROOM_GAP, nodes=1)
    return replace(made, program=replace(draft.program(), start=made.program.start))


def _settled(made: Allocation, before: Allocation, outcome: Outcome) -> Allocation:
    """With the slices that are shared as they came out before, and no more of others; the later objectives alone."""
    number = before.shared(outcome.values)
    columns, objectives = list(made.program.columns), made.program.objectives
    for pool, column in made.pools.items():
        columns[column] = replace(columns[column], lower=float(number.get(pool, 0)), upper=float(number.get(pool, 0)))
    draft = Draft(columns, list(made.program.rows), list(objectives[_SLICES_AND_GPUS:]))
    for objective, stage in zip(objectives, outcome.stages[:_SLICES_AND_GPUS], strict=False):
        draft.at_most(round(stage.value), objective.terms)
    return replace(made, program=draft.program())


def _whole(leasts: Iterable[float]) -> int | float:
    """Whole slices for what shares of them add up to, less by what sums of such shares may be off by."""
    total = sum(leasts)
    return total if math.isinf(total) else math.ceil(total - _ROUNDING * max(1.0, 1e-3 * total))


def _out_of_time(options: Options) -> JigsawError:
    return JigsawError(
        f"no plan was found within {options.time_limit_s:g} s, nor that there is none",
        hint="allow more time with --time-limit",
    )


def _supplies(problem: Problem, candidates: Mapping[str, TaskConfigurations], *, ideal: bool) -> list[Supply]:
    kinds: dict[str, set[str]] = {}
    for tasks in candidates.values():
        for of in tasks.values():
            for c in of:
                kinds.setdefault(c.board, set()).add(c.slice)
    return [supply(problem.cluster, b, kinds[b.name], ideal=ideal) for b in problem.boards if b.name in kinds]


def grown(problem: Problem, growing: Collection[str], scale: float) -> Problem:
    """The problem with these graphs' demands multiplied."""
    workloads = (
        replace(w, demand_rps=w.demand_rps * scale) if w.graph.name in growing else w for w in problem.workloads
    )
    return replace(problem, workloads=tuple(workloads))
