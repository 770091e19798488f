"""Tests of fused chains, which are planned as one task each."""

from dataclasses import replace

import pytest

from jigsaw_triton.graph.model import Slo, TaskGraph, Workload
from jigsaw_triton.planner.candidates.configurations import ALONE, Configuration, Turn
from jigsaw_triton.planner.candidates.fused_chains import MOST_COMBINATIONS, apart, with_fused_chains, without
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.allotment import Allotment, better
from jigsaw_triton.planner.search.solve import SolverFactory, make_plan
from jigsaw_triton.planner.solver.solver import Outcome, Stage
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable
from tests.fakes.graphs import chain, diamond, fan_out, variants
from tests.fakes.problems import TWO_P95, cluster, row

SHARE = replace(TWO_P95, share=True, time_limit_s=30.0)


def several(*graphs: TaskGraph, rps: float = 1.0, ms: float = 8.0) -> Problem:
    """A problem whose tasks are identical: batches of one, on 1g slices, every variant equally fast."""
    tables = {
        g.name: ProfileTable(row(t.name, v.name, p95_ms=ms) for t in g.tasks.values() for v in t.variants)
        for g in graphs
    }
    return Problem(tuple(Workload(g, rps) for g in graphs), cluster(1), tables)


def chains(count: int, slo_ms: float, tasks: int = 3) -> Problem:
    return several(*(chain(tasks, name=f"g{number}", slo=Slo(slo_ms)) for number in range(count)))


def models(plan: Plan) -> list[list[str]]:
    """Names of the tasks in each slice."""
    return sorted(sorted(f"{m.graph}.{m.task}" for m in s.models) for gpu in plan.gpus for s in gpu.layout)


def test_a_fused_chain_has_all_combinations_of_variants() -> None:
    whole = with_fused_chains(several(chain(2, variant_count=2)))
    assert whole is not None
    (workload,) = whole.workloads
    (task,) = workload.graph.tasks.values()
    assert {v.name: round(v.accuracy, 6) for v in task.variants} == {
        "v0~v0": 1.0,
        "v0~v1": 0.9,
        "v1~v0": 0.9,
        "v1~v1": 0.81,
    }


def test_the_profile_of_a_fused_chain_follows_from_its_tasks() -> None:
    asked = several(chain(2))
    table = ProfileTable(
        [
            row("t0", "v0", p95_ms=10.0, rps=50.0, memory_mib=300.0),
            row("t0", "v0", batch=2, p95_ms=16.0),
            row("t0", "v0", instances=2, p95_ms=20.0),
            row("t1", "v0", p95_ms=30.0, memory_mib=400.0),
            row("t1", "v0", instances=2, p95_ms=20.0),
        ]
    )
    whole = with_fused_chains(replace(asked, profiles={"chain": table}))
    assert whole is not None
    (made,) = whole.profiles["chain"].rows()
    # The chain has one instance, and only the batch size that both tasks have.
    assert made.key == ProfileKey("cpu", "t0~t1", "v0~v0", "1g", 1, 1)
    assert (made.latency_p50_ms, made.latency_p95_ms, made.latency_p99_ms) == pytest.approx((32.0, 40.0, 44.0))
    # t0 does 50 calls a second, 20 ms each, although its batches take 10 ms.
    assert (made.throughput_rps, made.memory_mib) == pytest.approx((20.0, 700.0))


def test_tasks_outside_chains_keep_their_profiles() -> None:
    whole = with_fused_chains(several(chain(2, name="g0"), fan_out()))
    assert whole is not None
    assert [list(w.graph.tasks) for w in whole.workloads] == [["t0~t1"], ["detect", "classify"]]
    assert {r.key.task for r in whole.profiles["fan_out"].rows()} == {"detect", "classify"}


def test_a_problem_without_chains_to_fuse_is_not_changed() -> None:
    assert with_fused_chains(several(diamond(), fan_out())) is None
    assert with_fused_chains(several(chain(2)), frozenset({("chain", "t0~t1")})) is None
    many = replace(chain(2).tasks["t0"], variants=variants(MOST_COMBINATIONS + 1))
    assert with_fused_chains(several(replace(chain(2), tasks={**chain(2).tasks, "t0": many}))) is None


def test_a_fused_configuration_splits_into_those_of_its_tasks() -> None:
    asked = several(chain(2, variant_count=2))
    table = ProfileTable([row("t0", "v0", p95_ms=10.0), row("t1", "v1", p95_ms=30.0)])
    turn = Turn(100.0, 40.0, 0.4, 0.2, 0.3, rounds=2.0, steps=2)
    whole = Configuration("chain", "t0~t1", "v0~v1", "cpu", "1g", 1, 1, 1, 0.0, 5.0, 0.1, turn=turn)
    parts = apart(whole, replace(asked, profiles={"chain": table}))
    assert [(c.task, c.variant, c.turn.ms, c.turn.steps) for c in parts] == [
        ("t0", "v0", 10.0, 1),
        ("t1", "v1", 30.0, 1),
    ]
    assert [c.turn.load for c in parts] == pytest.approx([0.05, 0.15])
    assert [c.loss for c in parts] == pytest.approx([0.0, 0.1053605])
    other = replace(whole, task="t0", variant="v0")
    assert apart(other, asked) == (other,)


def test_a_chain_of_the_running_plan_is_fused_too() -> None:
    asked = chains(1, 300.0)
    plan = make_plan(asked, SHARE)
    whole = with_fused_chains(replace(asked, running=plan))
    assert whole is not None
    assert whole.running is not None
    ((placed,),) = (gpu.layout for gpu in whole.running.gpus)
    assert placed.models == (PlacedModel("g0", "t0~t1~t2", "v0~v0~v0", 1, 1),)


def test_chains_without_configurations_are_listed() -> None:
    assert without({"g": {"a~b": (), "c": (), "d~e": (CHEAP,)}}) == {("g", "a~b")}


def test_a_chain_in_its_own_slice_is_as_fast_as_its_tasks_in_one_each(solvers: SolverFactory) -> None:
    # Three tasks of 8 ms each: 48 ms in slices of their own. One by one in one slice it would be 144 ms.
    asked = chains(4, 50.0)
    plan = make_plan(asked, SHARE, solvers=solvers)
    assert (plan.slices_used, plan.solver.status) == (4, "optimal")
    assert models(plan) == [[f"g{g}.t{t}" for t in range(3)] for g in range(4)]
    assert plan.graphs["g0"].latency_ms == pytest.approx(48.0)
    assert violations(plan, asked, SHARE) == ()


def test_a_chain_that_fits_no_slice_does_not_keep_others_from_fusing(solvers: SolverFactory) -> None:
    rare, busy = chain(3, name="rare", slo=Slo(50.0)), chain(2, name="busy", slo=Slo(50.0))
    asked = several(rare, busy)
    asked = replace(asked, workloads=(Workload(busy, 90.0), Workload(rare, 1.0)))
    plan = make_plan(asked, SHARE, solvers=solvers)
    assert models(plan) == [["busy.t0"], ["busy.t1"], ["rare.t0", "rare.t1", "rare.t2"]]


def test_chains_are_split_if_fused_ones_take_more_slices(solvers: SolverFactory) -> None:
    # First each chain fits one slice. Then, with memory of 0.5 + 0.4 and 0.6 + 0.5 slices, only mixed pairs fit.
    asked = chains(2, 300.0, tasks=2)
    room = 8192.0
    parts = {"g0": (0.9, 0.1), "g1": (0.6, 0.3)}
    tables = {
        g: ProfileTable(row(f"t{i}", "v0", p95_ms=8.0, memory_mib=part * room) for i, part in enumerate(shares))
        for g, shares in parts.items()
    }
    plan = make_plan(replace(asked, profiles=tables), SHARE, solvers=solvers)
    assert plan.slices_used == 2
    assert models(plan) == [["g0.t0", "g0.t1"], ["g1.t0", "g1.t1"]]
    tables["g1"] = ProfileTable([*tables["g1"].rows(task="t0"), row("t1", "v0", p95_ms=8.0, memory_mib=0.5 * room)])
    more = make_plan(replace(asked, profiles={**tables, "g0": half(tables["g0"])}), SHARE, solvers=solvers)
    assert (more.slices_used, models(more)) == (2, [["g0.t0", "g1.t1"], ["g0.t1", "g1.t0"]])


def half(table: ProfileTable) -> ProfileTable:
    """The table of a chain whose tasks take 0.5 and 0.4 of a slice's memory."""
    memory = {"t0": 0.5 * 8192, "t1": 0.4 * 8192}
    return ProfileTable(replace(r, memory_mib=memory[r.key.task]) for r in table.rows())


# --- choosing between two allotments ------------------------------------------------------------------------------

CHEAP = Configuration("g", "t", "v0", "cpu", "1g", 1, 1, 1, 10.0, 5.0, 0.0, turn=ALONE)


def allotment(slices: int, *, gpus: int = 1, loss: float = 0.0, bound: float | None = None) -> Allotment:
    """An allotment that is proven optimal, or has this lower bound."""
    stage = Stage(slices, slices if bound is None else bound, proven=bound is None)
    outcome = Outcome("optimal" if bound is None else "feasible", (), (stage, Stage(gpus, gpus, True)))
    return Allotment({replace(CHEAP, loss=loss): slices}, (), gpus, 7 * gpus, outcome)


def test_slices_count_before_gpus_and_gpus_before_accuracy() -> None:
    one, other = allotment(3), allotment(2, gpus=2, loss=0.5)
    assert better(one, other) is better(other, one) is other
    one, other = allotment(2, gpus=2), allotment(2, loss=0.5)
    assert better(one, other) is better(other, one) is other
    one, other = allotment(2, loss=0.5), allotment(2)
    assert better(one, other) is better(other, one) is other
    assert better(one, replace(one)) is one


def test_the_better_allotment_is_proven_only_as_far_as_both_are() -> None:
    found = better(allotment(4), allotment(6, bound=3.0)).outcome
    assert (found.status, found.stages[0].value, found.stages[0].bound) == ("feasible", 4, 3.0)
    found = better(allotment(4), allotment(6, bound=4.0)).outcome
    assert (found.status, found.stages[0].proven) == ("optimal", True)
    found = better(allotment(5, bound=3.0), allotment(6)).outcome
    assert (found.status, found.stages[0].bound) == ("feasible", 3.0)
