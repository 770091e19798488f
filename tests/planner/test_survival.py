"""Plans that survive the loss of a node or a rack."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError, InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.gpus.model import Board, Cluster, Gpu, GpuId, Survive
from jigsaw_triton.graph.model import Slo, Variant
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.survival import MOST_DOMAINS, domains, failure_domains
from jigsaw_triton.planner.explain.conflict import SHARE_GAP, find_conflict
from jigsaw_triton.planner.explain.requirement import Requirement, varied
from jigsaw_triton.planner.search.solve import (
    SolverFactory,
    find_plan,
    make_first_plan,
    make_largest_plan,
    make_plan,
)
from jigsaw_triton.planner.search.survivors import left_rps, lost_capacity
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow
from tests.fakes.graphs import VECTORS, graph, task
from tests.fakes.problems import TWO_P95, docread_problem, problem, row
from tests.fakes.replicas import replica_counts, within
from tests.planner.test_brute_force import Uses, least_loss, loss_if_carried, uses_by, within_slo

SMALL = board("A30-24GB")
LARGE = board("A100-40GB")


def nodes(number: int, *, gpus: int = 1, of: Board = SMALL, survive: Survive | None = None, racks: int = 0) -> Cluster:
    """Returns a cluster of nodes of equal GPUs, in racks if there are any."""
    names = [f"n{i:02}" for i in range(number)]
    return Cluster(
        tuple(Gpu(GpuId(name, i), of) for name in names for i in range(gpus)),
        topology={name: {"rack": f"r{i % racks}"} for i, name in enumerate(names)} if racks else {},
        survive=survive,
    )


def single(demand: float, cluster: Cluster) -> Problem:
    """Returns the problem of a task of which a 1g slice serves 100 requests/s, 80 of them planned."""
    g = graph([task("t", {"X": "inputs.X"})], {"Y": "t.Y"}, slo=Slo(1000.0))
    rows = [row("t", "v0", gpu=of, rps=100.0) for of in (SMALL.name, LARGE.name)]
    return replace(problem(g, rows, demand_rps=demand), cluster=cluster)


def by_node(plan: Plan) -> Counter[str]:
    return Counter(gpu.id.node for gpu in plan.gpus for _ in gpu.layout)


def test_replicas_are_spread_over_nodes_where_that_costs_no_slice(solvers: SolverFactory) -> None:
    p = single(160.0, nodes(2, survive=Survive("node", 0.5)))
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert by_node(plan) == {"n00": 1, "n01": 1}
    assert plan.survival is not None
    assert plan.survival.more_slices == 0
    assert plan.survival.left_rps["app"] == pytest.approx(80.0)


@pytest.mark.parametrize(
    ("share", "number", "slices"), [(0.5, 2, 4), (0.6, 2, 6), (0.5, 4, 4), (0.7, 4, 4), (0.8, 4, 6), (1.0, 4, 6)]
)
def test_slices_are_added_until_the_loss_of_any_node_leaves_the_share(
    share: float, number: int, slices: int, solvers: SolverFactory
) -> None:
    """Four slices carry the demand. The rest after a loss are as many as the share needs."""
    p = single(320.0, nodes(number, survive=Survive("node", share)))
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert plan.slices_used == slices
    assert plan.survival is not None
    assert plan.survival.more_slices == slices - 4
    assert plan.solver.status == "optimal"
    lost = max(by_node(plan).values())
    assert 80.0 * (slices - lost) >= share * 320.0 * (1 - 1e-5)


def test_replicas_are_spread_over_racks(solvers: SolverFactory) -> None:
    p = single(160.0, nodes(4, survive=Survive("rack", 0.5), racks=2))
    plan = make_plan(p, TWO_P95, solvers=solvers)
    of = failure_domains(p.cluster)
    assert {of[gpu.id] for gpu in plan.gpus} == {"r0", "r1"}


def test_no_plan_survives_the_loss_of_the_only_node(solvers: SolverFactory) -> None:
    p = single(80.0, nodes(1, gpus=4, survive=Survive()))
    with pytest.raises(InfeasibleError) as caught:
        make_plan(p, TWO_P95, solvers=solvers)
    assert "the loss of a node" in str(caught.value.reasons)
    assert "node" in (caught.value.hint or "")


def test_a_loss_that_leaves_too_little_is_the_reason_and_the_hint_says_what_is_carried(solvers: SolverFactory) -> None:
    """Two nodes carry 640 requests/s, one of them 320, which is half of them and not eight tenths."""
    p = single(600.0, nodes(2, survive=Survive("node", 0.8)))
    with pytest.raises(InfeasibleError) as caught:
        make_plan(p, TWO_P95, solvers=solvers)
    (reason,) = caught.value.reasons
    assert "the loss of a node must leave 80%" in reason
    assert "at most app 400 of 600 requests/s" in reason
    assert "12 compute slices on 4 GPUs would suffice" in reason
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("lower the demand to 66.66% of it, or give the cluster 4 GPUs")


def test_the_largest_demand_leaves_its_share(solvers: SolverFactory) -> None:
    p = single(1.0, nodes(4, survive=Survive("node", 0.9)))
    plan = make_largest_plan(p, TWO_P95, solvers=solvers)
    # Three of four nodes carry 12 * 80 requests/s.
    assert plan.graphs["app"].demand_rps == pytest.approx(12 * 80 / 0.9, rel=1e-3)


def test_what_runs_is_kept_where_it_survives(solvers: SolverFactory) -> None:
    p = single(160.0, nodes(3, survive=Survive("node", 0.5)))
    before = make_plan(p, TWO_P95, solvers=solvers)
    # The running plan is on the last two nodes; a new one would begin with the first.
    moved = {"n00": "n02", "n01": "n01", "n02": "n00"}
    running = replace(
        before, gpus=tuple(replace(gpu, id=GpuId(moved[gpu.id.node], 0)) for gpu in reversed(before.gpus))
    )
    for price in (0.0, 0.5):
        plan = make_plan(replace(p, running=running), replace(TWO_P95, change_price=price), solvers=solvers)
        assert by_node(plan).keys() == by_node(running).keys()


def test_many_nodes_are_merged_and_the_plan_says_how_far_it_may_be_from_the_optimum(solvers: SolverFactory) -> None:
    p = single(80.0 * 10, nodes(3 * MOST_DOMAINS, survive=Survive("node", 1.0)))
    assert domains(p.cluster).merged and domains(p.cluster).number == MOST_DOMAINS
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert left_rps(plan, p, TWO_P95)["app"] >= 800.0 * (1 - 1e-5)
    assert plan.solver.status == "feasible"
    # Without survival ten slices suffice, and eleven are the optimum with it.
    assert plan.slices_used * (1 - plan.solver.gap) <= 11


def test_the_largest_demand_of_many_nodes_has_the_gap_to_that_without_survival(solvers: SolverFactory) -> None:
    p = single(1.0, nodes(2 * MOST_DOMAINS, survive=Survive("node", 1.0)))
    plan = make_largest_plan(p, TWO_P95, solvers=solvers)
    # In groups of two nodes, 14 of 16 nodes carry the demand. Without survival, all 16 would.
    assert plan.graphs["app"].demand_rps == pytest.approx(14 * 4 * 80, rel=1e-3)
    assert plan.solver.status == "feasible"
    assert plan.solver.gap == pytest.approx(16 / 14 - 1, rel=1e-2)


def test_nodes_of_different_boards_survive_each_other(solvers: SolverFactory) -> None:
    """Each node must carry half of the demand alone, so the four cheapest slices, all of one model, do not do."""
    gpus = (Gpu(GpuId("a", 0), LARGE, cost=7.0), Gpu(GpuId("b", 0), SMALL, cost=0.4))
    p = single(320.0, Cluster(gpus, survive=Survive()))
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert by_node(plan) == {"a": 2, "b": 2}
    assert plan.solver.status == "optimal"
    assert plan.cost is not None and plan.survival is not None
    assert plan.cost.used == pytest.approx(2 * 1.0 + 2 * 0.1)
    assert plan.survival.more_cost == pytest.approx(2 * 0.9)


def test_several_graphs_survive(solvers: SolverFactory) -> None:
    one = single(160.0, nodes(3, survive=Survive()))
    (workload,), (table,) = one.workloads, one.profiles.values()
    twin = replace(workload, graph=replace(workload.graph, name="twin"))
    p = replace(one, workloads=(workload, twin), profiles={"app": table, "twin": table})
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert plan.slices_used == 4
    assert min(left_rps(plan, p, TWO_P95).values()) >= 80.0 * (1 - 1e-5)


def test_explanations_and_conflicts_name_the_share(solvers: SolverFactory) -> None:
    p = single(600.0, nodes(2, survive=Survive("node", 0.8)))
    conflict = find_conflict(p, TWO_P95, solvers=solvers, clock=lambda: 0.0)
    assert conflict is not None
    share = Requirement("node", "survive")
    assert share in conflict.requirements
    nearest = conflict.nearest[share]
    # One node carries 320 of 600 requests/s.
    assert nearest is not None and 320 / 600 - SHARE_GAP <= nearest <= 320 / 600


def test_additional_gpus_are_on_nodes_as_large_as_the_present_ones(solvers: SolverFactory) -> None:
    """Any two of three nodes carry 640 requests/s. No number of GPUs on one other node would suffice."""
    p = single(600.0, nodes(1, survive=Survive("node", 1.0)))
    gpus = Requirement(SMALL.name, "gpus")
    conflict = find_conflict(p, TWO_P95, solvers=solvers, clock=lambda: 0.0)
    assert conflict is not None and conflict.nearest[gpus] == 3
    larger = varied(single(600.0, nodes(2, gpus=2)), gpus, 9).cluster
    assert sorted(Counter(gpu.id.node for gpu in larger.gpus).values()) == [1, 2, 2, 2, 2]


def test_models_that_share_a_slice_cannot_survive(solvers: SolverFactory) -> None:
    p = replace(docread_problem(), cluster=replace(docread_problem().cluster, survive=Survive()))
    with pytest.raises(InputError, match="one replica"):
        make_plan(p, Options(share=True), solvers=solvers)


def test_shares_of_variants_with_a_mean_accuracy_are_those_that_the_rest_can_keep(solvers: SolverFactory) -> None:
    """More accurate shares would suit all replicas, but not those that the loss of a node leaves."""
    of = [Variant("good", 1.0, "emulated"), Variant("light", 0.9, "emulated")]
    g = graph(
        [task("t", {"X": "inputs.X"}, of=of)],
        {"Y": "t.Y"},
        slo=Slo(90.0, accuracy=0.93, accuracy_mode="mean"),
    )
    rows = [row("t", "good", slice_="2g", rps=200, gpu=SMALL.name), row("t", "light", rps=250, gpu=SMALL.name)]
    p = replace(problem(g, rows, demand_rps=350), cluster=nodes(3, survive=Survive("node", 0.8)))
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert plan.slices_used == 6
    assert left_rps(plan, p, TWO_P95)["app"] >= 0.8 * 350 * (1 - 1e-5)


def test_the_rest_may_use_the_variants_that_make_fewer_rows(solvers: SolverFactory) -> None:
    boxes = TensorType("FP32", (-1, 8))
    of = [Variant("good", 1.0, "emulated", yields={"Y": 4.0}), Variant("light", 0.9, "emulated", yields={"Y": 1.0})]
    first = task("first", {"X": "inputs.X"}, outputs={"Y": boxes}, of=of)
    second = task("second", {"Z": "first.Y"}, for_each="first.Y")
    g = graph([first, second], {"Y": "second.Y"}, slo=Slo(164.0, accuracy=0.85))
    rows = [
        row("first", "good", rps=80, gpu=SMALL.name),
        row("first", "light", rps=50, gpu=SMALL.name),
        row("second", "v0", slice_="2g", rps=200, gpu=SMALL.name),
    ]
    p = replace(problem(g, rows, demand_rps=113), cluster=nodes(2, gpus=2, survive=Survive("node", 0.8)))
    plan = make_plan(p, TWO_P95, solvers=solvers)
    assert left_rps(plan, p, TWO_P95)["app"] >= 0.8 * 113 * (1 - 1e-5)


def on_processors(share: float, demand: float = 300.0) -> Problem:
    """Returns the problem of a task of 10 ms of processor time, on two nodes of two processors."""
    g = graph([task("t", {"X": "inputs.X"}, of=[Variant("v0", 1.0, "python")])], {"Y": "t.Y"})
    measured = replace(row("t", "v0", rps=100.0), source="measured", processor_ms=10.0)
    found = replace(nodes(2, of=board("cpu"), survive=Survive("node", share)), processors=2.0)
    return replace(problem(g, [measured], demand_rps=demand), cluster=found)


def test_the_processors_of_the_rest_carry_the_share_too(solvers: SolverFactory) -> None:
    half, all_of_it = on_processors(0.5), on_processors(1.0)
    plan = make_plan(half, TWO_P95, solvers=solvers)
    assert plan.survival is not None and plan.survival.left_rps["app"] == pytest.approx(160.0)
    with pytest.raises(InfeasibleError) as caught:
        make_plan(all_of_it, TWO_P95, solvers=solvers)
    assert "carry at most app 19" in str(caught.value.reasons)
    assert "the loss of a node must leave 100%" in str(caught.value.reasons)
    largest = make_largest_plan(all_of_it, TWO_P95, solvers=solvers)
    assert largest.survival is not None
    assert 190 < largest.survival.left_rps["app"] < 200
    assert largest.graphs["app"].demand_rps <= largest.survival.left_rps["app"] * (1 + 1e-6)


def test_the_program_of_plans_that_survive_knows_the_processors(solvers: SolverFactory) -> None:
    plan = make_largest_plan(on_processors(0.5), TWO_P95, solvers=solvers)
    assert 380 < plan.graphs["app"].demand_rps < 400
    assert plan.solver.gap < 0.05


def test_slices_of_processors_are_spread_so_that_each_loss_leaves_what_it_must(solvers: SolverFactory) -> None:
    """Three nodes carry 195 requests/s each, if each of them has a third of the slices."""
    two = on_processors(0.5)
    three = replace(two, cluster=replace(two.cluster, gpus=nodes(3, of=board("cpu")).gpus))
    plan = make_largest_plan(three, TWO_P95, solvers=solvers)
    assert plan.survival is not None and 560 < plan.graphs["app"].demand_rps < 600
    assert len(set(by_node(plan).values())) == 1 and len(plan.gpus) == 3
    rest = replace(three.cluster, gpus=three.cluster.gpus[:2], survive=None)
    left = make_largest_plan(replace(three, cluster=rest, running=plan), TWO_P95, solvers=solvers)
    assert left.graphs["app"].demand_rps > 0.99 * plan.survival.left_rps["app"]


def test_a_plan_without_a_solver_says_what_it_survives() -> None:
    p = single(160.0, nodes(2, survive=Survive("node", 0.5)))
    plan = make_plan(p, TWO_P95)
    assert plan.survival is not None
    first = make_first_plan(replace(p, running=plan), TWO_P95)
    assert first is not None and first.solver.constructed
    assert first.survival == replace(plan.survival, more_slices=None)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Draws one task or a chain of two, on two or three nodes of one small GPU, and a share that a loss must leave."""
    light = draw(st.sampled_from([0.7, 0.95]))
    first = task(
        "first",
        {"X": "inputs.X"},
        outputs={"Y": VECTORS},
        of=[Variant("good", 1.0, "emulated"), Variant("light", light, "emulated")],
    )
    second = task("second", {"X": "first.Y"}, of=[Variant("good", 80.0, "emulated")])
    tasks = [first, second][: draw(st.integers(1, 2))]
    g = graph(tasks, {"Y": f"{tasks[-1].name}.Y"}, slo=Slo(draw(st.integers(30, 200)), accuracy=0.64))
    rows = [
        row(
            name,
            variant.name,
            slice_=draw(st.sampled_from(["1g", "2g"])),
            p95_ms=draw(st.integers(2, 40)),
            rps=draw(st.integers(40, 200)),
            gpu=SMALL.name,
        )
        for name, t in g.tasks.items()
        for variant in t.variants
    ]
    p = problem(g, rows, demand_rps=draw(st.integers(5, 400)))
    number = draw(st.integers(2, 3))
    share = draw(st.sampled_from([0.3, 0.5, 0.8, 1.0]))
    return replace(p, cluster=nodes(number, survive=Survive("node", share)))


def spreads(rows: Sequence[ProfileRow], number: int) -> Iterator[tuple[Mapping[ProfileRow, int], ...]]:
    """Yields all sets of replicas of each node, which are alike, in one order."""
    cuts = [Counter(m) for m in maximal_multisets(SMALL)]
    one = [dict(zip(rows, counts, strict=True)) for counts in replica_counts(rows, within(cuts))]
    yield from itertools.combinations_with_replacement(one, number)


def least_slices(p: Problem, options: Options) -> int | None:
    """Returns the fewest slices with which the demand is carried, and its share after the loss of any node."""
    (workload,), (table,), survive = p.workloads, p.profiles.values(), p.cluster.survive
    assert survive is not None
    graph_, allowed = workload.graph, uses_by(options.latency_model, p)
    best: int | None = None
    for spread in spreads(table.rows(), len(p.cluster.gpus)):
        whole = sum(map(Counter, spread), Counter[ProfileRow]())
        slices = sum(n * SMALL.profiles[r.key.slice].compute_slices for r, n in whole.items())
        if (best is not None and slices >= best) or {r.key.task for r in whole} != graph_.tasks.keys():
            continue
        if least_loss(graph_, workload.demand_rps, whole, allowed) is None:
            continue
        if survives(p, whole, spread, allowed):
            best = slices
    return best


def survives(p: Problem, whole: Counter[ProfileRow], spread: Sequence[Mapping[ProfileRow, int]], allowed: Uses) -> bool:
    """Returns True if budgets exist with which all replicas carry the demand, and the rest its share."""
    (workload,), survive = p.workloads, p.cluster.survive
    assert survive is not None
    share = survive.share * workload.demand_rps
    for usable in within_slo(workload.graph, whole, allowed):
        each = {r: usable[r] / whole[r] for r in whole}
        if loss_if_carried(workload.graph, workload.demand_rps, usable) is None:
            continue
        rests = [{r: (n - node.get(r, 0)) * each[r] for r, n in whole.items()} for node in spread]
        left = [{r: n for r, n in rest.items() if n > 1e-12} for rest in rests]
        if all({r.key.task for r in rest} == workload.graph.tasks.keys() for rest in left) and all(
            loss_if_carried(workload.graph, share, rest) is not None for rest in left
        ):
            return True
    return False


@pytest.mark.slow
@given(p=problems())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_plans_that_survive_agree_with_exhaustive_search(p: Problem, solvers: SolverFactory) -> None:
    best, plan = least_slices(p, TWO_P95), find_plan(p, TWO_P95, solvers=solvers)
    event("feasible" if best is not None else "infeasible")
    assert (plan and plan.slices_used) == best
    if plan is not None:
        assert plan.solver.status == "optimal"
        assert violations(plan, p, TWO_P95) == ()
        assert [*lost_capacity(plan, p, TWO_P95)] == []


@pytest.mark.slow
@given(p=problems())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_plans_with_queues_survive(p: Problem, solvers: SolverFactory) -> None:
    plan = find_plan(p, Options(), solvers=solvers)
    event("feasible" if plan is not None else "infeasible")
    if plan is not None:
        assert [*lost_capacity(plan, p, Options())] == []
        assert plan.survival is not None and (plan.survival.more_slices or 0) >= 0
