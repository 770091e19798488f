"""Tests of shared slices, against exhaustive search among others."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError, InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.bounds.bounds import least_slices
from jigsaw_triton.planner.candidates.configurations import Configuration, TaskConfigurations, available
from jigsaw_triton.planner.candidates.filters import worthwhile
from jigsaw_triton.planner.candidates.sharing import shared_load, with_shared
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import SHARED_LOAD, Options, Problem
from jigsaw_triton.planner.formulation.model import allocation
from jigsaw_triton.planner.formulation.supply import supply
from jigsaw_triton.planner.search.solve import SolverFactory, allot, largest_demand, make_largest_plan, make_plan
from jigsaw_triton.planner.solver.solver import SolverProcess
from jigsaw_triton.planner.transition.transition import DURATIONS, transition
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.examples import costly
from tests.fakes.graphs import chain, fan_out
from tests.fakes.problems import SOLVE_S, cluster, grid, problem, row

CPU = board("cpu")
SHARE = Options(share=True, latency_model="2p95", time_limit_s=30.0)
QUEUE = replace(SHARE, latency_model="queue")


def several(
    *graphs: tuple[int, float, float], rows: dict[str, list[ProfileRow]] | None = None, gpus: int = 1, ms: float = 8.0
) -> Problem:
    """A problem of chains g0, g1, ..., each given by its number of tasks, SLO in ms, and requests a second."""
    workloads, tables = [], {}
    for number, (tasks, slo_ms, rps) in enumerate(graphs):
        g = replace(chain(tasks, slo=Slo(slo_ms)), name=f"g{number}")
        own = rows[g.name] if rows else [r for t in g.tasks for r in grid(t, "v0", ms, instances=[1])]
        workloads.append(Workload(g, rps))
        tables[g.name] = ProfileTable(own)
    return Problem(tuple(workloads), cluster(gpus), tables)


def together(plan: Plan) -> list[list[str]]:
    """Names of the tasks in each slice."""
    return sorted(sorted(f"{m.graph}.{m.task}" for m in p.models) for gpu in plan.gpus for p in gpu.layout)


def test_rarely_called_tasks_share_a_slice(solvers: SolverFactory) -> None:
    p = several((3, 300.0, 1.0), (2, 300.0, 1.0))
    assert make_plan(p, replace(SHARE, share=False), solvers=solvers).slices_used == 5
    plan = make_plan(p, SHARE, solvers=solvers)
    assert (plan.slices_used, plan.solver.status) == (1, "optimal")
    assert together(plan) == [["g0.t0", "g0.t1", "g0.t2", "g1.t0", "g1.t1"]]
    # The three tasks are called as one: their batch, and for each of them a turn of both other models; twice.
    assert plan.graphs["g0"].latency_ms == pytest.approx(2 * (3 * 8.0 + 3 * 2 * 8.0))
    assert plan.graphs["g0"].capacity_rps == pytest.approx(SHARED_LOAD / 0.040)


def test_the_load_of_a_shared_slice_is_limited(solvers: SolverFactory) -> None:
    # At 8 ms a call and 20 calls a second, each task takes 0.8 of the allowed load.
    rows = {"g0": [row(task, "v0", p95_ms=8.0) for task in ("t0", "t1")]}
    assert together(make_plan(several((2, 300.0, 20.0), rows=rows), SHARE, solvers=solvers)) == [["g0.t0"], ["g0.t1"]]
    assert together(make_plan(several((2, 300.0, 12.5), rows=rows), SHARE, solvers=solvers)) == [["g0.t0", "g0.t1"]]


def test_memory_of_models_in_a_slice_adds_up(solvers: SolverFactory) -> None:
    room = CPU.profiles["1g"].memory_mib
    assert room is not None
    for part, slices in ((0.5, 1), (0.51, 2)):
        rows = [row(t, "v0", memory_mib=part * room) for t in ("t0", "t1")]
        plan = make_plan(several((2, 300.0, 1.0), rows={"g0": rows}), SHARE, solvers=solvers)
        assert plan.slices_used == slices


def test_tasks_that_follow_each_other_share_a_slice(solvers: SolverFactory) -> None:
    room = CPU.profiles["1g"].memory_mib
    assert room is not None
    # Packing the largest first would put 0.6 and 0.4 into one slice.
    parts = {"g0": (0.6, 0.3), "g1": (0.5, 0.4)}
    rows = {
        g: [row(f"t{i}", "v0", memory_mib=part * room) for i, part in enumerate(shares)] for g, shares in parts.items()
    }
    plan = make_plan(several((2, 300.0, 1.0), (2, 300.0, 1.0), rows=rows), SHARE, solvers=solvers)
    assert together(plan) == [["g0.t0", "g0.t1"], ["g1.t0", "g1.t1"]]


def test_a_task_of_many_rows_waits_for_the_others_in_every_round(solvers: SolverFactory) -> None:
    g = fan_out(slo=Slo(1000.0))
    p = problem(g, [row(t, "v0", batch=1, p95_ms=5.0) for t in g.tasks], demand_rps=0.5)
    plan = make_plan(p, SHARE, solvers=solvers)
    (names,) = together(plan)
    rounds = {
        t.name: 1.0 if t.for_each is None else math.ceil(g.tasks["detect"].variants[0].yields["CROPS"])
        for t in g.tasks.values()
    }
    worst = sum(1 + rounds[t] for t in ("detect", next(t.name for t in g.tasks.values() if t.for_each)))
    assert plan.graphs[g.name].latency_ms >= worst * 5.0 * len(names) - 1e-6


def test_stricter_percentiles_lower_the_load_of_shared_slices() -> None:
    p = several((3, 300.0, 1.0))
    assert shared_load(p.workloads, SHARE) == SHARED_LOAD
    loads = []
    for percentile in (90.0, 99.0, 99.9):
        (w,) = p.workloads
        slo = replace(w.graph.slo, percentile=percentile)
        loads.append(shared_load([replace(w, graph=replace(w.graph, slo=slo))], QUEUE))
    assert SHARED_LOAD == loads[0] > loads[1] > loads[2] > 0


def test_the_papers_formulation_shares_nothing() -> None:
    with pytest.raises(InputError, match="gives each model its own slice"):
        make_plan(several((1, 300.0, 1.0)), Options(share=True, formulation="paper", latency_model="2p95"))


def test_a_problem_that_needs_more_slices_is_infeasible(solvers: SolverFactory) -> None:
    # Each chain needs at least one slice.
    rows = {f"g{i}": [row(f"t{t}", "v0", p95_ms=8.0) for t in range(3)] for i in range(8)}
    p = several(*[(3, 60.0, 1.0)] * 8, rows=rows)
    with pytest.raises(InfeasibleError, match="would suffice") as error:
        make_plan(p, SHARE, solvers=solvers)
    assert error.value.hint


@pytest.mark.slow
def test_sharing_raises_the_largest_demand(solvers: SolverFactory) -> None:
    # Eight tasks on a GPU with seven slices.
    rows = {f"g{i}": [row(f"t{t}", "v0", p95_ms=8.0) for t in range(2)] for i in range(4)}
    p = several(*[(2, 300.0, 1.0)] * 4, rows=rows)
    with pytest.raises(InfeasibleError):
        largest_demand(p, replace(SHARE, share=False), solvers=solvers)
    most = largest_demand(p, SHARE, solvers=solvers).rps
    plan = make_largest_plan(p, SHARE, solvers=solvers)
    assert plan.graphs["g0"].demand_rps == pytest.approx(most["g0"], rel=1e-3) and most["g0"] > 1.0
    more = replace(p, workloads=tuple(replace(w, demand_rps=1.02 * most["g0"]) for w in p.workloads))
    with pytest.raises(InfeasibleError):
        make_plan(more, SHARE, solvers=solvers)


def test_a_shared_slice_stays_in_place(solvers: SolverFactory) -> None:
    p = several((2, 120.0, 1.0), (2, 120.0, 1.0), gpus=2)
    plan = make_plan(p, SHARE, solvers=solvers)
    assert any(len(models) > 1 for models in together(plan))
    moved = replace(plan, gpus=tuple(replace(gpu, id=replace(gpu.id, index=1)) for gpu in plan.gpus))
    again = make_plan(replace(p, running=moved), SHARE, solvers=solvers)
    assert again.gpus == moved.gpus


@pytest.mark.parametrize("options", [SHARE, QUEUE])
def test_a_shared_slice_carries_its_capacity_during_a_transition(options: Options, solvers: SolverFactory) -> None:
    p = several((2, 300.0, 1.0), (1, 300.0, 4.0))
    shared = make_plan(p, options, solvers=solvers)
    apart = make_plan(p, replace(options, share=False), solvers=solvers)
    way = transition(replace(p, running=shared), apart, options)
    assert way.before_rps == pytest.approx({name: graph.capacity_rps for name, graph in shared.graphs.items()})
    back = transition(replace(p, running=apart), shared, options)
    assert back.steps[-1].after_rps == pytest.approx(way.before_rps)
    assert way.shortfalls == back.shortfalls == ()
    # The model that stays is loaded again so that it takes turns.
    (joined,) = (step for step in back.steps if step.kind == "variant")
    assert joined.seconds == pytest.approx(DURATIONS.loading_s(shared.gpus[0].layout[0].models))


def test_the_validator_finds_each_flaw_of_a_shared_slice(solvers: SolverFactory) -> None:
    p = several((2, 300.0, 1.0), (1, 300.0, 1.0))
    plan = make_plan(p, SHARE, solvers=solvers)

    def flaws(plan: Plan, p: Problem, options: Options = SHARE) -> str:
        return "; ".join(violations(plan, p, options))

    def other(**changes: Any) -> Problem:
        tables = {name: ProfileTable(replace(r, **changes) for r in t.rows()) for name, t in p.profiles.items()}
        return replace(p, profiles=tables)

    assert flaws(plan, p) == ""
    assert "holds 3 models, not one" in flaws(plan, p, replace(SHARE, share=False))
    assert "MiB in 8192 MiB" in flaws(plan, other(memory_mib=4000.0))
    assert "g0: the latencies along a path add up to" in flaws(plan, other(latency_p95_ms=45.0))
    assert "is shared and busy for 0.240 of its time, more than 0.200" in flaws(plan, other(latency_p95_ms=80.0))
    (gpu,) = plan.gpus
    (placed,) = gpu.layout
    models = (replace(placed.models[0], instances=2), *placed.models[1:])
    flawed = replace(plan, gpus=(replace(gpu, layout=(replace(placed, models=models),)),))
    assert "has no profile there" in flaws(flawed, p)


# Comparison with all partitions of tasks into slices.


@st.composite
def small(draw: st.DrawFn) -> Problem:
    shape = draw(st.sampled_from([(2,), (3,), (1, 1), (2, 1), (2, 2)]))
    rows = {
        f"g{number}": [
            row(
                f"t{t}",
                "v0",
                slice_=kind,
                p95_ms=draw(st.integers(4, 30)),
                memory_mib=draw(st.sampled_from([900.0, 3000.0, 6000.0])),
            )
            for t in range(tasks)
            for kind in ["1g", *(["2g"] if draw(st.booleans()) else [])]
        ]
        for number, tasks in enumerate(shape)
    }
    graphs = [(tasks, float(draw(st.integers(20, 300))), draw(st.sampled_from([0.5, 2.0, 5.0]))) for tasks in shape]
    return several(*graphs, rows=rows)


def partitions(items: Sequence[tuple[str, str]]) -> Iterator[list[list[tuple[str, str]]]]:
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for i, group in enumerate(rest):
            yield [*rest[:i], [items[0], *group], *rest[i + 1 :]]


def fitting_chains(p: Problem) -> frozenset[str]:
    """Names of the graphs, which are chains, that fit one slice as a fused chain."""
    found = set()
    for w in p.workloads:
        for kind in ("1g", "2g"):
            rows = [r for t in w.graph.tasks for r in p.profiles[w.graph.name].rows(task=t) if r.key.slice == kind]
            own_ms, room = sum(r.latency_p95_ms for r in rows), CPU.profiles[kind].memory_mib
            if (
                len(rows) == len(w.graph.tasks)
                and (room is None or sum(r.memory_mib for r in rows) <= room)
                and w.demand_rps * own_ms / 1000 <= SHARED_LOAD + 1e-9
                and 2 * own_ms <= w.graph.slo.latency_ms + 1e-9
            ):
                found.add(w.graph.name)
    return frozenset(found)


def brute_force(p: Problem, fused: frozenset[str] = frozenset()) -> int | None:
    """The fewest slices over all partitions of the tasks and kinds of slices; one replica suffices for each task.

    Args:
        p: Problem whose graphs are chains.
        fused: Names of the graphs that are fused: all their tasks are in one slice and called as one.
    """
    items = [(w.graph.name, t) for w in p.workloads for t in w.graph.tasks]
    demand = {w.graph.name: w.demand_rps for w in p.workloads}
    cuts = [Counter(m) for m in maximal_multisets(CPU)]
    best: int | None = None

    def cycle_ms(group: Sequence[tuple[str, str]], kind: str) -> float | None:
        rows = [p.profiles[g].rows(task=t) for g, t in group]
        own = [next((r for r in found if r.key.slice == kind), None) for found in rows]
        if any(r is None for r in own):
            return None
        known = [r for r in own if r is not None]
        busy = sum(demand[g] * r.latency_p95_ms / 1000 for (g, _), r in zip(group, known, strict=True))
        room = CPU.profiles[kind].memory_mib
        if len(group) == 1:
            return known[0].latency_p95_ms if busy <= SHARE.utilisation else None
        if (room is not None and sum(r.memory_mib for r in known) > room) or busy > SHARED_LOAD + 1e-9:
            return None
        return sum(r.latency_p95_ms for r in known)

    def filled(groups: Sequence[Sequence[tuple[str, str]]], latency: dict[str, float], taken: list[str]) -> None:
        nonlocal best
        slices = sum(CPU.profiles[kind].compute_slices for kind in taken)
        if best is not None and slices >= best:
            return
        if not any(Counter(taken) <= cut for cut in cuts):
            return
        if any(latency[w.graph.name] > w.graph.slo.latency_ms + 1e-9 for w in p.workloads):
            return
        if not groups:
            best = slices
            return
        for kind in ("1g", "2g"):
            cycle = cycle_ms(groups[0], kind)
            if cycle is not None:
                more = dict(latency)
                for g, t in groups[0]:
                    with_it = [task for name, task in groups[0] if g in fused and name == g and task != t]
                    rows = [r for task in with_it for r in p.profiles[g].rows(task=task) if r.key.slice == kind]
                    more[g] += 2 * (cycle - sum(r.latency_p95_ms for r in rows))
                filled(groups[1:], more, [*taken, kind])

    for groups in partitions(items):
        if any(sum(name in {g for g, _ in group} for group in groups) > 1 for name in fused):
            continue
        filled(groups, dict.fromkeys(demand, 0.0), [])
    return best


@pytest.mark.slow
@given(p=small())
@costly(40)
def test_the_planner_agrees_with_exhaustive_search(p: Problem, solvers: SolverFactory) -> None:
    found = [n for n in (brute_force(p), brute_force(p, fitting_chains(p))) if n is not None]
    best = min(found, default=None)
    event("infeasible" if best is None else "feasible")
    try:
        plan = make_plan(p, SHARE, solvers=solvers)
    except InfeasibleError:
        assert best is None
        return
    event("shared" if any(len(models) > 1 for models in together(plan)) else "not shared")
    assert (plan.slices_used, plan.solver.status) == (best, "optimal")


# Properties of any plan.


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    rng = random.Random(draw(st.integers(0, 10_000)))
    workloads, tables = [], {}
    for number in range(draw(st.integers(1, 3))):
        slo = Slo(draw(st.integers(60, 600)), accuracy=draw(st.sampled_from([0.6, 0.9, 1.0])))
        g = chain(variant_count=2, slo=slo) if draw(st.booleans()) else fan_out(variant_count=2, slo=slo)
        g = replace(g, name=f"g{number}")
        rows = [
            r
            for t in g.tasks
            for v, part in (("v0", 1.0), ("v1", 0.5))
            for r in grid(t, v, part * rng.uniform(2, 20), slices=["1g", "2g"], instances=[1, 2], batches=[1, 4])
        ]
        workloads.append(Workload(g, draw(st.sampled_from([0.1, 1.0, 5.0, 40.0]))))
        tables[g.name] = ProfileTable(rows)
    return Problem(tuple(workloads), cluster(3), tables)


@pytest.mark.slow
@given(p=problems(), options=st.sampled_from([SHARE, QUEUE]))
@costly(12)
def test_sharing_makes_valid_plans_that_are_never_larger(p: Problem, options: Options, solvers: SolverFactory) -> None:
    try:
        alone = allot(p, replace(options, share=False), solvers=solvers).slices
    except InfeasibleError:
        alone = 10**6
    try:
        plan = make_plan(p, options, solvers=solvers)
    except InfeasibleError:
        assert alone == 10**6
        return
    assert violations(plan, p, options) == ()
    assert plan.slices_used <= alone
    for gpu in plan.gpus:
        for placed in gpu.layout:
            assert len(placed.models) == 1 or all(m.instances == 1 for m in placed.models)


def sharing(p: Problem, options: Options) -> dict[str, TaskConfigurations]:
    p = p.prepared()
    alone = {
        w.graph.name: worthwhile(w.graph, available(w.graph, p.profiles[w.graph.name], p.boards, options))
        for w in p.workloads
    }
    return with_shared(p.workloads, alone, p.profiles, p.boards, options)


@pytest.mark.slow
@given(p=problems(), which=st.integers(0, 10**6))
@costly(15)
def test_the_lower_bounds_hold_for_shared_slices(p: Problem, which: int, highs: SolverProcess) -> None:
    found = sharing(p, SHARE)
    assume(all(own for tasks in found.values() for own in tasks.values()))
    kinds = {c.slice for tasks in found.values() for own in tasks.values() for c in own}
    workloads = p.prepared().workloads
    made = allocation(workloads, found, [supply(p.cluster, CPU, kinds)], "ideal")
    bounds = [least_slices(w, found[w.graph.name]) for w in workloads]
    every = sorted(c for tasks in found.values() for own in tasks.values() for c in own)
    one = every[which % len(every)]

    def fewest(using: Configuration | None) -> float:
        columns = list(made.program.columns)
        if using is not None:
            columns[made.count[using]] = replace(columns[made.count[using]], lower=1.0)
        program = replace(made.program, columns=tuple(columns), objectives=made.program.objectives[:1])
        outcome = highs.solve(program, SOLVE_S)
        assume(outcome.status != "unknown")
        return outcome.stages[0].value if outcome.stages else math.inf

    least = sum(b.least for b in bounds)
    assert least <= fewest(None) + 1e-3
    others = least - next(b.least for b in bounds if one in b.using(1e9))
    assert others + next(b.using(1e9)[one] for b in bounds if one in b.using(1e9)) <= fewest(one) + 1e-3


def test_sharing_is_rejected_under_mps() -> None:
    asked = problem(chain(2), ProfileTable(()))
    asked = replace(asked, cluster=replace(asked.cluster, processes="mps"))
    with pytest.raises(InputError, match="cannot share a slice under MPS"):
        make_plan(asked, Options(share=True))
