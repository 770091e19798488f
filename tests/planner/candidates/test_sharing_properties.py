"""Tests of shared slices on random problems, against exhaustive search among others."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.bounds.bounds import least_slices
from jigsaw_triton.planner.candidates.configurations import TaskConfigurations, available
from jigsaw_triton.planner.candidates.filters import worthwhile
from jigsaw_triton.planner.candidates.sharing import with_shared
from jigsaw_triton.planner.domain.problem import SHARED_LOAD, Options, Problem
from jigsaw_triton.planner.formulation.model import allocation
from jigsaw_triton.planner.formulation.supply import supply
from jigsaw_triton.planner.search.solve import SolverFactory, allot, make_plan
from jigsaw_triton.planner.solver.solver import SolverProcess
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable
from tests.examples import costly
from tests.fakes.graphs import chain, fan_out
from tests.fakes.problems import cluster, grid, row
from tests.planner.candidates.shared import CPU, QUEUE, SHARE, several, together
from tests.planner.ideal import fewest_slices


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


# --- properties of any plan ---------------------------------------------------------------------------------------


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
@costly(8)
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

    least = sum(b.least for b in bounds)
    assert least <= fewest_slices(made, None, highs) + 1e-3
    others = least - next(b.least for b in bounds if one in b.using(1e9))
    assert (
        others + next(b.using(1e9)[one] for b in bounds if one in b.using(1e9))
        <= fewest_slices(made, one, highs) + 1e-3
    )
