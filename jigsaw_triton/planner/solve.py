"""From a problem to its plan."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from jigsaw_triton.errors import InfeasibleError, JigsawError
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner import diagnose
from jigsaw_triton.planner.bounds import least_slices
from jigsaw_triton.planner.configurations import (
    TOLERANCE,
    Configuration,
    TaskConfigurations,
    available,
    worthwhile,
)
from jigsaw_triton.planner.extraction import flows, graph_plan
from jigsaw_triton.planner.model import Allocation, allocation
from jigsaw_triton.planner.placement import placement, running_slices
from jigsaw_triton.planner.plan import Plan, SolverReport
from jigsaw_triton.planner.problem import Options, Problem
from jigsaw_triton.planner.program import Program
from jigsaw_triton.planner.solver import (
    SOLVER_TITLES,
    Outcome,
    Solver,
    SolverFailure,
    SolverName,
    SolverProcess,
    Stage,
    solved,
)
from jigsaw_triton.planner.supply import Supply, supply
from jigsaw_triton.planner.validate import violations
from jigsaw_triton.profiles.table import ProfileTable

_SLACKS = (0.0, 0.001, 0.005, 0.02, 0.1)
"""By how much more than the bound a plan may take, tried in turn until there is one: mostly the bound is met."""

_EXACT_FROM = 0.5
"""Solvers are exact to an absolute tolerance: a scale below this is not, but a good demand to scale from once more."""

_ROUNDS = 4

SolverFactory = Callable[[SolverName], AbstractContextManager[Solver]]

DEFAULTS = Options()

LEAST_S = 1.0
"""Time that the small programs after the plan's own (flows, placement, reasons) get in any case."""


def make_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Plan:
    """The plan of least compute slices.

    Among those of least GPUs; among those of most accuracy; among those the one that keeps most of what runs. The same
    problem gives the same plan, up to `plan.solver.seconds`, unless the time limit cuts the search short. Takes from
    tenths of a second up to the time limit and blocks meanwhile; starts a process and ends it.

    Args:
        problem: Graphs, demands, cluster, profiles.
        options: How to plan.
        solvers: Makes the solver of a name; tests put others in its place.

    Raises:
        InputError: The problem or the options make no sense.
        InfeasibleError: No plan meets the requirements; the reasons say which cannot be met and what could be.
        JigsawError: None was found within the time limit, or no solver gave a sound answer.
    """
    options, problem = options.checked(), problem.prepared()
    everything = _available(problem, options)
    return _first_sound(options, solvers, lambda solver: _Planning(problem, options, everything, solver).plan())


def make_largest_plan(
    problem: Problem,
    options: Options = DEFAULTS,
    *,
    scaled: Collection[str] | None = None,
    solvers: SolverFactory = SolverProcess,
) -> Plan:
    """The plan of the largest demand that the cluster carries, within a part in ten thousand; otherwise as `make_plan`.

    Args:
        problem: Its demands say in what proportion the graphs grow.
        options: How to plan. The time limit is of each of two solves.
        scaled: Graphs that grow, all where None; the others keep their demands.
        solvers: Makes the solver of a name.

    Raises:
        InputError: The problem or the options make no sense.
        InfeasibleError: No plan meets the requirements at any demand.
        JigsawError: None was found within the time limit, or no solver gave a sound answer.
    """
    options, problem = options.checked(), problem.prepared()
    names = {w.graph.name for w in problem.workloads}
    growing = names if scaled is None else names & set(scaled)
    everything = _available(problem, options)

    def attempt(solver: Solver) -> Plan:
        grown = problem
        for _ in range(_ROUNDS):
            scale = _Planning(grown, options, everything, solver).largest_scale(growing)
            grown = _grown(grown, growing, scale)
            if scale > _EXACT_FROM:
                break
        return _Planning(_grown(grown, growing, 1 - TOLERANCE), options, everything, solver).plan()

    return _first_sound(options, solvers, attempt)


def _grown(problem: Problem, growing: Collection[str], scale: float) -> Problem:
    """The problem with these graphs' demands multiplied."""
    workloads = (
        replace(w, demand_rps=w.demand_rps * scale) if w.graph.name in growing else w for w in problem.workloads
    )
    return replace(problem, workloads=tuple(workloads))


def _first_sound(options: Options, solvers: SolverFactory, attempt: Callable[[Solver], Plan]) -> Plan:
    """What the solver asked for makes of an attempt, or the other one where that fails."""
    failures = []
    order: tuple[SolverName, SolverName] = ("highs", "cbc") if options.solver == "highs" else ("cbc", "highs")
    for name in order:
        try:
            with solvers(name) as solver:
                return attempt(solver)
        except SolverFailure as failure:
            failures.append(str(failure))
    raise JigsawError("no solver gave a sound plan: " + "; ".join(failures), hint="report this with the input files")


def _available(problem: Problem, options: Options) -> dict[str, TaskConfigurations]:
    """Graph name -> task -> configurations, having said what is impossible whatever the solver finds."""
    everything: dict[str, TaskConfigurations] = {}
    reasons: list[str] = []
    for workload in problem.workloads:
        graph = workload.graph
        table = problem.profiles.get(graph.name, ProfileTable(()))
        everything[graph.name] = available(graph, table, problem.boards, options)
        reasons += diagnose.missing_profiles(graph, table, problem.boards, everything[graph.name])
    if reasons:
        raise InfeasibleError(reasons, hint="measure it with `jigsaw-triton profile`")
    for workload in problem.workloads:
        reasons += diagnose.single_limits(workload.graph, everything[workload.graph.name])
    if reasons:
        raise InfeasibleError(reasons, hint="loosen the SLO, or profile faster or more accurate configurations")
    return everything


@dataclass(frozen=True, slots=True)
class _Planning:
    """One attempt with one solver."""

    problem: Problem
    options: Options
    everything: Mapping[str, TaskConfigurations]
    solver: Solver

    def plan(self) -> Plan:
        """The validated plan."""
        started = time.monotonic()
        workloads, candidates = self.problem.workloads, self._candidates()
        if _complete(candidates):
            model, outcome = self._allocated(workloads, candidates, started)
            if outcome.status == "unknown":
                raise _out_of_time(self.options)
            if outcome.status != "infeasible":
                return self._sound(self._assembled(model, outcome, started))
        raise self._infeasible(candidates)

    def _allocated(
        self, workloads: Sequence[Workload], candidates: Mapping[str, TaskConfigurations], started: float
    ) -> tuple[Allocation, Outcome]:
        """The program solved with the configurations that may be part of an optimum.

        Those whose bound is above a limit are left out: no plan within the limit needs them. Where the best plan found
        is above it, its own slices are the next limit. Where there is none, a greater limit is tried, at last none.
        """
        bounds = {w.graph.name: least_slices(w, candidates[w.graph.name]) for w in workloads}
        least = sum(b.least for b in bounds.values())
        if least == math.inf:
            raise self._infeasible(candidates)
        limits = [*(least + math.ceil(slack * least) for slack in _SLACKS), math.inf]
        while True:
            limit = limits.pop(0)
            kept = {name: bounds[name].within(limit - least, tasks) for name, tasks in candidates.items()}
            supplies, running = _supplies(self.problem, kept), self._running(kept)
            model = allocation(workloads, kept, supplies, running=running, least=least, enough=limit)
            outcome = solved(self.solver, model.program, self._left(started))
            if limit == math.inf or outcome.status == "unknown":
                return model, outcome
            late = time.monotonic() - started > self.options.time_limit_s
            if outcome.stages:
                first = outcome.stages[0]
                if first.value <= limit:
                    return model, outcome
                if late:
                    unproven = Stage(first.value, min(first.bound, least), proven=False)
                    return model, replace(outcome, status="feasible", stages=(unproven,))
                limits.insert(0, first.value)
            elif late:
                return model, replace(outcome, status="unknown")

    def largest_scale(self, scaled: Collection[str]) -> float:
        """By what the demands of these graphs can be multiplied at most."""
        workloads, candidates = self.problem.workloads, self._candidates()
        if _complete(candidates):
            supplies = _supplies(self.problem, candidates)
            model = allocation(workloads, candidates, supplies, "most", scaled=scaled)
            outcome = solved(self.solver, model.program, self.options.time_limit_s)
            scale = outcome.values[model.scale or 0] if outcome.stages else 0.0
            if scale > 0:
                return scale
            if outcome.status == "unknown":
                raise _out_of_time(self.options)
        raise self._infeasible(candidates)

    def _candidates(self) -> dict[str, TaskConfigurations]:
        return {w.graph.name: worthwhile(w.graph, self.everything[w.graph.name]) for w in self.problem.workloads}

    def _assembled(self, model: Allocation, outcome: Outcome, started: float) -> Plan:
        problem, options = self.problem, self.options
        counts = model.counts(outcome.values)
        flow = flows(problem.workloads, counts)
        rates = flow.calls(self._values(flow.program, started))
        where = placement(problem.cluster, counts, model.gpus(outcome.values), problem.running)
        gpus = where.placed(self._values(where.program, started))
        return Plan(
            graphs={w.graph.name: graph_plan(w, counts, rates) for w in problem.workloads},
            gpus=gpus,
            slices_used=sum(n * c.compute_slices for c, n in counts.items()),
            slices_total=problem.cluster.compute_slices,
            gpus_used=len(gpus),
            features=options.features,
            formulation=options.formulation,
            latency_model=options.latency_model,
            solver=SolverReport(
                name=SOLVER_TITLES[self.solver.name],
                status=outcome.status,
                seconds=round(time.monotonic() - started, 3),
                gap=outcome.stages[0].gap,
            ),
        )

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

    def _running(self, candidates: Mapping[str, TaskConfigurations]) -> dict[Configuration, int]:
        """Replicas that run now, of the configurations that may be chosen."""
        known = {
            (c.graph, c.task, c.variant, c.board, c.slice, c.instances, c.batch): c
            for tasks in candidates.values()
            for of in tasks.values()
            for c in of
        }
        boards = {gpu.id: gpu.board.name for gpu in self.problem.cluster.gpus}
        counts: dict[Configuration, int] = {}
        for gpu, slices in running_slices(self.problem.cluster, self.problem.running).items():
            for place, models in slices.items():
                for m in models:
                    key = (m.graph, m.task, m.variant, boards[gpu], place.slice, m.instances, m.batch)
                    if (c := known.get(key)) is not None:
                        counts[c] = counts.get(c, 0) + 1
        return counts

    def _infeasible(self, candidates: Mapping[str, TaskConfigurations]) -> InfeasibleError:
        workloads, limit = self.problem.workloads, max(LEAST_S, self.options.time_limit_s)
        found = [
            conflict
            for w in workloads
            if (conflict := diagnose.both_limits(w.graph, self.everything[w.graph.name], self.solver, limit))
        ]
        if not found:
            supplies = _supplies(self.problem, candidates)
            found = [diagnose.demand(workloads, candidates, supplies, self.problem.cluster, self.solver, limit)]
        return InfeasibleError([reason for reason, _ in found], hint="; ".join(hint for _, hint in found))


def _complete(candidates: Mapping[str, TaskConfigurations]) -> bool:
    """Whether each task has a configuration at least."""
    return all(all(of.values()) for of in candidates.values())


def _out_of_time(options: Options) -> JigsawError:
    return JigsawError(
        f"no plan was found within {options.time_limit_s:g} s, nor that there is none",
        hint="allow more time with --time-limit",
    )


def _supplies(problem: Problem, candidates: Mapping[str, TaskConfigurations]) -> list[Supply]:
    kinds: dict[str, set[str]] = {}
    for tasks in candidates.values():
        for of in tasks.values():
            for c in of:
                kinds.setdefault(c.board, set()).add(c.slice)
    return [supply(problem.cluster, b, kinds[b.name]) for b in problem.boards if b.name in kinds]
