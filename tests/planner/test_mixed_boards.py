"""Small problems on GPUs of two models, compared with exhaustive search over all sets of replicas that fit them."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.gpus.model import SLICES, Cluster, Gpu, GpuId
from jigsaw_triton.graph.model import Slo, Variant
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.formulation.objectives import COST_GAP, SCALE_GAP
from jigsaw_triton.planner.search.solve import (
    SolverFactory,
    find_plan,
    largest_demand,
    make_first_plan,
    make_largest_plan,
    make_plan,
)
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.examples import costly
from tests.fakes.graphs import VECTORS, graph, task
from tests.fakes.problems import TWO_P95, problem, row
from tests.fakes.replicas import replica_counts, within
from tests.planner.test_brute_force import least_loss, uses_by

LARGE, SMALL = board("A100-40GB"), board("A30-24GB")
KINDS = {LARGE.name: ("1g", "2g", "3g"), SMALL.name: ("1g", "2g", "4g")}


@st.composite
def profiles(draw: st.DrawFn, tasks: Sequence[str]) -> ProfileTable:
    return ProfileTable(
        row(
            name,
            variant,
            slice_=draw(st.sampled_from(KINDS[gpu])),
            batch=batch,
            p95_ms=draw(st.integers(2, 40)),
            rps=draw(st.integers(20, 200)),
            gpu=gpu,
        )
        for name in tasks
        for gpu in (LARGE.name, SMALL.name)
        for variant, batch in (("good", 1), ("light", 1))
    )


def cluster_of(large: int, small: int, costs: tuple[float, float] | None) -> Cluster:
    large_cost, small_cost = costs or (None, None)
    return Cluster(
        (
            *(Gpu(GpuId("a", i), LARGE, cost=large_cost) for i in range(large)),
            *(Gpu(GpuId("b", i), SMALL, cost=small_cost) for i in range(small)),
        )
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Draws one task or a chain of two, one GPU of each model, and costs or none."""
    light = draw(st.sampled_from([0.7, 0.9, 0.95]))
    first = task(
        "first",
        {"X": "inputs.X"},
        outputs={"Y": VECTORS},
        of=[Variant("good", 1.0, "emulated"), Variant("light", light, "emulated")],
    )
    second = task(
        "second", {"X": "first.Y"}, of=[Variant("good", 80.0, "emulated"), Variant("light", 80 * light, "emulated")]
    )
    tasks = [first, second][: draw(st.integers(1, 2))]
    slo = Slo(draw(st.integers(20, 200)), accuracy=draw(st.sampled_from([0.64, 0.85, 1.0])))
    g = graph(tasks, {"Y": f"{tasks[-1].name}.Y"}, slo=slo)
    p = problem(g, draw(profiles(list(g.tasks))), demand_rps=draw(st.integers(5, 300)))
    costs = draw(st.sampled_from([None, (3.2, 0.9), (7.0, 4.0), (1.0, 1.0), (4.0966, 1.1037)]))
    return replace(p, cluster=cluster_of(1, 1, costs))


def every_set(rows: Sequence[ProfileRow]) -> Iterator[dict[ProfileRow, int]]:
    """Yields all sets of replicas that fit one GPU of each model."""
    by_board = [(of, [r for r in rows if r.key.gpu == of.name]) for of in (LARGE, SMALL)]
    cuts = {of.name: [Counter(m) for m in maximal_multisets(of, SLICES)] for of, _ in by_board}
    for counts in itertools.product(*(replica_counts(own, within(cuts[of.name])) for of, own in by_board)):
        pairs = itertools.chain.from_iterable(
            zip(own, n, strict=True) for (_, own), n in zip(by_board, counts, strict=True)
        )
        yield {r: n for r, n in pairs if n}


def share(r: ProfileRow) -> float:
    of = LARGE if r.key.gpu == LARGE.name else SMALL
    return of.profiles[r.key.slice].compute_slices / of.compute_slices


def cost_by_hand(p: Problem) -> dict[str, float]:
    """Returns the cost of a GPU of each model: the given one, or the geometric mean of the ratios of throughputs."""
    given_costs = {gpu.board.name: gpu.cost for gpu in p.cluster.gpus if gpu.cost is not None}
    if given_costs:
        return given_costs
    (table,) = p.profiles.values()
    ratios: dict[str, list[float]] = {}
    for large in table.rows(gpu=LARGE.name):
        (small,) = table.rows(gpu=SMALL.name, task=large.key.task, variant=large.key.variant)
        rps = [r.throughput_rps * of.profiles[r.key.slice].max_instances for r, of in ((large, LARGE), (small, SMALL))]
        ratios.setdefault(large.key.task, []).append(rps[0] / rps[1])
    by_task = [math.prod(of) ** (1 / len(of)) for of in ratios.values()]
    ratio = math.prod(by_task) ** (1 / len(by_task))
    return {LARGE.name: float(f"{max(ratio, 1.0):.2g}"), SMALL.name: float(f"{max(1 / ratio, 1.0):.2g}")}


def least_cost(p: Problem, options: Options) -> float | None:
    (workload,), (table,) = p.workloads, p.profiles.values()
    allowed, cost = uses_by(options.latency_model, p), cost_by_hand(p)
    best: float | None = None
    for used in every_set(table.rows()):
        amount = sum(n * share(r) * cost[r.key.gpu] for r, n in used.items())
        if (best is not None and amount >= best) or {r.key.task for r in used} != workload.graph.tasks.keys():
            continue
        if least_loss(workload.graph, workload.demand_rps, used, allowed) is not None:
            best = amount
    return best


@pytest.mark.slow
@given(p=problems())
@costly(15)
@pytest.mark.parametrize("options", [TWO_P95, Options()], ids=["2p95", "queue"])
def test_plans_on_mixed_boards_agree_with_exhaustive_search(
    p: Problem, options: Options, solvers: SolverFactory
) -> None:
    best, plan = least_cost(p, options), find_plan(p, options, solvers=solvers)
    event("feasible" if best is not None else "infeasible")
    assert (plan is None) == (best is None)
    if plan is None or best is None:
        return
    assert plan.cost is not None
    assert plan.cost.used == pytest.approx(best, rel=2 * COST_GAP)
    assert plan.solver.status == "optimal"
    first = make_first_plan(p, options)
    if first is not None:
        assert first.cost is not None
        assert first.cost.used >= best * (1 - 2 * COST_GAP)
        assert first.cost.used * (1 - first.solver.gap) <= best * (1 + 2 * COST_GAP)


@pytest.mark.slow
@given(p=problems(), data=st.data())
@costly(6)
def test_costs_do_not_change_what_a_cluster_carries(p: Problem, data: st.DataObject, solvers: SolverFactory) -> None:
    other = replace(p, cluster=cluster_of(1, 1, data.draw(st.sampled_from([(9.0, 1.0), (1.0, 9.0)]))))
    if find_plan(p, TWO_P95, solvers=solvers) is None:
        return
    one, two = (largest_demand(of, TWO_P95, solvers=solvers) for of in (p, other))
    assert one.proven and two.proven
    assert one.rps == pytest.approx(two.rps, rel=2 * SCALE_GAP)


def single(costs: tuple[float, float] | None, *, rps: tuple[float, float], demand: float, gpus: int = 2) -> Problem:
    """Returns the problem of a task whose 1g slices serve these rates on the large and on the small board."""
    g = graph([task("t", {"X": "inputs.X"})], {"Y": "t.Y"}, slo=Slo(1000.0))
    rows = [row("t", "v0", gpu=of.name, rps=r) for of, r in zip((LARGE, SMALL), rps, strict=True)]
    return replace(problem(g, rows, demand_rps=demand), cluster=cluster_of(gpus, gpus, costs))


def used(plan: Plan) -> Counter[str]:
    return Counter(gpu.model for gpu in plan.gpus for _ in gpu.layout)


@pytest.mark.parametrize(
    ("costs", "boards"),
    [((7.0, 0.4), {SMALL.name}), ((0.7, 40.0), {LARGE.name})],
    ids=["a slice of the large board is dear", "a slice of the large board is cheap"],
)
def test_the_board_whose_slices_cost_least_for_what_they_carry_serves(
    costs: tuple[float, float], boards: set[str], solvers: SolverFactory
) -> None:
    plan = make_plan(single(costs, rps=(100.0, 60.0), demand=150.0), TWO_P95, solvers=solvers)
    assert used(plan).keys() == boards


def test_slices_of_the_dear_board_serve_where_the_cheap_one_is_full(solvers: SolverFactory) -> None:
    p = single((7.0, 0.4), rps=(100.0, 100.0), demand=80.0 * 9, gpus=2)
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert used(plan) == {SMALL.name: 8, LARGE.name: 1}
    assert plan.cost is not None
    assert plan.cost.used == pytest.approx(8 * 0.1 + 1.0)
    assert plan.cost.total == pytest.approx(2 * 7.0 + 2 * 0.4)


def test_a_first_plan_uses_the_dear_board_where_the_cheap_one_has_no_room() -> None:
    p = single((7.0, 0.4), rps=(100.0, 100.0), demand=80.0 * 12, gpus=2)
    plan = make_first_plan(p, TWO_P95)
    assert plan is not None
    assert violations(plan, p, TWO_P95) == ()


def test_without_costs_a_gpu_costs_its_relative_throughput(solvers: SolverFactory) -> None:
    """A GPU of the large board serves 7 * 100 requests/s, one of the small board 4 * 70: 2.5 times as many."""
    plan = make_plan(single(None, rps=(100.0, 70.0), demand=80.0), TWO_P95, solvers=solvers)
    assert plan.cost is not None
    assert (plan.cost.source, plan.cost.unit) == ("throughput", SMALL.name)
    assert plan.cost.total == pytest.approx(2 * 2.5 + 2 * 1.0)


def test_without_a_variant_on_all_boards_all_slices_count_alike(solvers: SolverFactory) -> None:
    p = single(None, rps=(100.0, 70.0), demand=80.0)
    (table,) = p.profiles.values()
    p = replace(p, profiles={name: ProfileTable(table.rows(gpu=SMALL.name)) for name in p.profiles})
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert (plan.cost, plan.slices_used) == (None, 2)


def test_a_price_of_changes_is_in_slices_of_mean_cost(solvers: SolverFactory) -> None:
    """One slice of the dear board runs. A slice of the cheap one saves 0.9, and a mean slice costs 0.673."""
    p = single((7.0, 0.4), rps=(100.0, 100.0), demand=60.0)
    dear = make_plan(replace(p, cluster=cluster_of(2, 0, (7.0, 0.4))), TWO_P95, solvers=solvers)
    for price, boards in ((0.0, {SMALL.name}), (1.3, {SMALL.name}), (1.4, {LARGE.name})):
        plan = make_plan(replace(p, running=dear), replace(TWO_P95, change_price=price), solvers=solvers)
        assert used(plan).keys() == boards, price


def test_the_largest_plan_uses_all_boards(solvers: SolverFactory) -> None:
    plan = make_largest_plan(single((7.0, 0.4), rps=(100.0, 60.0), demand=1.0), TWO_P95, solvers=solvers)
    (planned,) = plan.graphs.values()
    assert planned.demand_rps == pytest.approx(0.8 * (14 * 100.0 + 8 * 60.0), rel=1e-3)
