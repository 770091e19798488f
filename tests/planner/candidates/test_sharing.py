"""Tests of shared slices."""

import math
from dataclasses import replace
from typing import Any

import pytest

from jigsaw_triton.errors import InfeasibleError, InputError
from jigsaw_triton.graph.model import Slo
from jigsaw_triton.planner.candidates.sharing import shared_load
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import SHARED_LOAD, Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, largest_demand, make_largest_plan, make_plan
from jigsaw_triton.planner.transition.transition import DURATIONS, transition
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain, fan_out
from tests.fakes.problems import problem, row
from tests.planner.candidates.shared import CPU, QUEUE, SHARE, several, together


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


def test_sharing_is_rejected_under_mps() -> None:
    asked = problem(chain(2), ProfileTable(()))
    asked = replace(asked, cluster=replace(asked.cluster, processes="mps"))
    with pytest.raises(InputError, match="cannot share a slice under MPS"):
        make_plan(asked, Options(share=True))
