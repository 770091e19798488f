"""Partitions of small clusters: promises, choice of the number of cells, and bad input."""

import itertools
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError, InputError, OverloadedGatewayError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.gateway import GatewayLimits
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement, Survive
from jigsaw_triton.planner.cells.model import Partition, partition_from_json, partition_to_text
from jigsaw_triton.planner.cells.partition import Cells
from jigsaw_triton.planner.cells.subproblem import subproblem
from jigsaw_triton.planner.cells.validation import partition_violations
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan
from jigsaw_triton.planner.search.survivors import lost_capacity
from jigsaw_triton.planner.solver.program import SolverName
from jigsaw_triton.planner.solver.solver import Solver
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import graph, task
from tests.fakes.problems import SOLVE_S, TWO_P95, docread_problem, problem, row

OPTIONS = Options(time_limit_s=SOLVE_S)
FAST = replace(TWO_P95, time_limit_s=SOLVE_S)
USUAL = GatewayLimits()


def nodes(count: int, gpus: int = 1, limits: GatewayLimits = USUAL) -> Cluster:
    made = tuple(Gpu(GpuId(f"n{node:02}", index), board("cpu")) for node in range(count) for index in range(gpus))
    return Cluster(made, gateway_limits=limits)


def on_nodes(demand_rps: float, count: int, gpus: int = 1, limits: GatewayLimits = USUAL) -> Problem:
    return replace(docread_problem(demand_rps), cluster=nodes(count, gpus, limits))


def one_task(demand_rps: float, cluster: Cluster, slice_: str = "1g") -> Problem:
    """A task of which a replica carries 100 requests a second, and is planned with 80 of them."""
    made = graph([task("t", {"X": "inputs.X"})], {"Y": "t.Y"})
    return replace(problem(made, [row("t", "v0", slice_=slice_, rps=100)], demand_rps=demand_rps), cluster=cluster)


def check(partition: Partition, of: Problem, options: Options) -> None:
    """Checks what cells promise together, without the code that makes or validates them."""
    names = [node for cell in partition.cells for node in cell.nodes]
    assert sorted(names) == sorted({gpu.id.node for gpu in of.cluster.gpus})
    for workload in of.workloads:
        name = workload.graph.name
        cells = partition.cells_of(name)
        assert math.fsum(cell.weights[name] for cell in cells) == pytest.approx(1)
        assert sum(cell.plan.graphs[name].capacity_rps for cell in cells) >= workload.demand_rps * (1 - 1e-6)
        for cell in cells:
            planned = cell.plan.graphs[name]
            assert planned.demand_rps == pytest.approx(cell.weights[name] * workload.demand_rps)
            assert planned.latency_ms <= workload.graph.slo.latency_ms * (1 + 1e-6)
            assert planned.accuracy >= workload.graph.slo.accuracy * (1 - 1e-6)
    for cell in partition.cells:
        assert {gpu.id.node for gpu in cell.plan.gpus} <= set(cell.nodes)
        assert cell.gateway.load(of.cluster.gateway_limits) <= 1
    assert partition_violations(partition, of, options) == ()


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(demand=st.floats(1, 60), count=st.integers(1, 5), data=st.data())
def test_a_partition_keeps_its_promises(solvers: SolverFactory, demand: float, count: int, data: st.DataObject) -> None:
    made = on_nodes(demand, count, gpus=data.draw(st.integers(1, 2)))
    number = data.draw(st.integers(1, count))
    try:
        found = Cells(made, OPTIONS, solvers=solvers).divide(number)
    except InfeasibleError:
        return
    assert len(found.cells) == number
    check(found, made, OPTIONS)
    again = Cells(made, OPTIONS, solvers=solvers).divide(number)
    assert [(c.name, c.nodes, c.weights, c.plan.gpus, c.plan.graphs) for c in found.cells] == [
        (c.name, c.nodes, c.weights, c.plan.gpus, c.plan.graphs) for c in again.cells
    ]


@settings(deadline=None, max_examples=15)
@given(replicas=st.floats(0.1, 40), count=st.integers(1, 6), data=st.data())
def test_each_cell_has_the_fewest_replicas_for_its_share(
    solvers: SolverFactory, replicas: float, count: int, data: st.DataObject
) -> None:
    made = one_task(80 * replicas, nodes(count))
    try:
        found = Cells(made, TWO_P95, solvers=solvers).divide(data.draw(st.integers(1, count)))
    except InfeasibleError:
        # Nodes have seven slices each. Cells of like nodes carry what one pool carries.
        assert replicas > 7 * count * (1 - 1e-4)
        return
    shares = [cell.weights["app"] * replicas for cell in found.cells]
    # A solver's tolerance decides if a share is a whole number of replicas.
    least, most = (sum(math.ceil(share * (1 + error)) for share in shares) for error in (-1e-4, 1e-4))
    assert least <= found.slices_used <= most
    assert found.pool_bound <= found.pool_slices <= found.slices_used


class Counting:
    """Solvers that count how often one is asked for: once a plan."""

    def __init__(self, solvers: SolverFactory) -> None:
        self.solvers, self.count = solvers, 0

    def __call__(self, name: SolverName) -> AbstractContextManager[Solver]:
        self.count += 1
        return self.solvers(name)


@pytest.mark.parametrize(("cells", "kinds"), [(2, 1), (3, 1), (4, 2), (6, 1)])
def test_cells_that_are_alike_are_planned_once(solvers: SolverFactory, cells: int, kinds: int) -> None:
    counting = Counting(solvers)
    found = Cells(on_nodes(30, 6), OPTIONS, solvers=counting)
    assert counting.count == 1
    partition = found.divide(cells)
    assert counting.count == 1 + kinds
    layouts = {tuple((gpu.id.index, gpu.layout) for gpu in cell.plan.gpus) for cell in partition.cells}
    assert len(layouts) <= kinds


def test_one_cell_is_the_plan_of_one_pool(solvers: SolverFactory) -> None:
    counting = Counting(solvers)
    found = Cells(on_nodes(30, 3), OPTIONS, solvers=counting).divide(1)
    assert (counting.count, found.price, found.slices_used) == (1, 0, found.pool_slices)


@pytest.mark.parametrize(("workers", "cells"), [(64, 1), (6, 2), (3, 4), (2, 6), (1, 12)])
def test_the_fewest_cells_are_chosen_whose_gateways_carry_the_demand(
    solvers: SolverFactory, workers: int, cells: int
) -> None:
    made = one_task(12 * 80, nodes(12, limits=GatewayLimits(workers=workers)))
    found = Cells(made, TWO_P95, solvers=solvers).choose()
    assert [cell.gateway.workers for cell in found.cells] == [12 // cells] * cells
    assert found.price == 0
    check(found, made, TWO_P95)


def test_the_processors_of_gateways_limit_cells_too(solvers: SolverFactory) -> None:
    # A request keeps a processor busy for 130 us and two tensors of 64 bytes: 0.125 processors for 960 a second.
    made = one_task(12 * 80_000, nodes(12, limits=GatewayLimits(processors=32)))
    faster = replace(made, profiles={"app": ProfileTable([row("t", "v0", slice_="1g", rps=100_000)])})
    found = Cells(faster, TWO_P95, solvers=solvers).choose()
    assert len(found.cells) == 4
    assert 24 < found.cells[0].gateway.processors <= 32


def test_cells_round_up_more_often_than_a_pool(solvers: SolverFactory) -> None:
    found = Cells(one_task(12 * 80, nodes(5)), TWO_P95, solvers=solvers).divide(5)
    assert (found.pool_slices, found.slices_used) == (12, 15)
    assert found.price == pytest.approx(0.25)


def test_a_small_graph_is_in_one_cell(solvers: SolverFactory) -> None:
    small = graph([task("t", {"X": "inputs.X"})], {"Y": "t.Y"}, name="small")
    made = one_task(28 * 80, nodes(8))
    rows = [row("t", "v0", slice_="1g", rps=100)]
    workloads = (*made.workloads, replace(made.workloads[0], graph=small, demand_rps=80.0))
    both = replace(made, workloads=workloads, profiles={**made.profiles, "small": ProfileTable(rows)})
    found = Cells(both, TWO_P95, solvers=solvers).divide(4)
    (cell,) = found.cells_of("small")
    assert cell.weights["small"] == 1
    assert len(found.cells_of("app")) == 4
    assert cell.weights["app"] < min(other.weights["app"] for other in found.cells if other is not cell)
    check(found, both, TWO_P95)


def test_cells_of_unlike_nodes_get_what_they_carry(solvers: SolverFactory) -> None:
    # Two slices 3g fit a GPU; beside somebody else's 1g, with 6 of 7 compute slices left, only one does.
    made = nodes(2)
    gpus = (made.gpus[0], replace(made.gpus[1], foreign=(Placement(1, "1g"),)))
    found = Cells(one_task(3 * 80, replace(made, gpus=gpus), "3g"), TWO_P95, solvers=solvers).divide(2)
    assert [cell.weights["app"] for cell in found.cells] == [
        pytest.approx(2 / 3, rel=1e-3),
        pytest.approx(1 / 3, rel=1e-3),
    ]


def partitions(names: Sequence[str], cells: int) -> list[list[tuple[str, ...]]]:
    """Returns all ways to divide nodes among cells that are not empty."""
    return [
        [tuple(name for name, at in zip(names, owner, strict=True) if at == cell) for cell in range(cells)]
        for owner in itertools.product(range(cells), repeat=len(names))
        if len(set(owner)) == cells
    ]


@pytest.mark.parametrize(("demand", "count", "cells"), [(20, 2, 2), (33, 3, 2), (47, 3, 3), (9, 3, 3)])
def test_no_other_division_is_cheaper_than_the_rounding(
    solvers: SolverFactory, demand: float, count: int, cells: int
) -> None:
    """Compares with all sets of nodes, and weights in steps of a twelfth. A division may be cheaper by its rounding."""
    made = on_nodes(demand, count)
    found = Cells(made, FAST, solvers=solvers).divide(cells)
    known: dict[tuple[int, int], int | None] = {}

    def slices(size: int, twelfths: int) -> int | None:
        if (size, twelfths) not in known:
            own = subproblem(made, [f"n{i:02}" for i in range(size)], {"docread": twelfths / 12})
            plan = find_plan(own, FAST, solvers=solvers)
            known[size, twelfths] = None if plan is None else plan.slices_used
        return known[size, twelfths]

    totals = []
    for owned in partitions([f"n{i:02}" for i in range(count)], cells):
        for shares in itertools.product(range(1, 12), repeat=cells):
            if sum(shares) == 12:
                used = [slices(len(own), share) for own, share in zip(owned, shares, strict=True)]
                if None not in used:
                    totals.append(sum(filter(None, used)))
    assert totals
    tasks = 2
    assert min(totals) - 1 <= found.slices_used <= min(totals) + tasks * (cells - 1)


def test_a_cell_of_the_same_nodes_keeps_what_runs(solvers: SolverFactory) -> None:
    made = on_nodes(40, 4)
    before = Cells(made, OPTIONS, solvers=solvers).divide(2)
    # What runs is not where a new plan would put it.
    swapped = {
        frozenset(cell.nodes): replace(
            cell.plan,
            gpus=tuple(
                replace(gpu, id=GpuId(cell.nodes[1 - cell.nodes.index(gpu.id.node)], 0)) for gpu in cell.plan.gpus
            ),
        )
        for cell in before.cells
    }
    after = Cells(made, OPTIONS, solvers=solvers, running=swapped).divide(2)
    for cell in after.cells:
        running = {gpu.id: gpu.layout for gpu in swapped[frozenset(cell.nodes)].gpus}
        assert {gpu.id: gpu.layout for gpu in cell.plan.gpus} == running
    check(after, made, OPTIONS)


@pytest.mark.parametrize("cells", [0, 4])
def test_more_cells_than_nodes_are_refused(solvers: SolverFactory, cells: int) -> None:
    with pytest.raises(InputError, match=f"a cluster of 3 nodes cannot be divided into {cells} cells; give 1 to 3"):
        Cells(on_nodes(10, 3), OPTIONS, solvers=solvers).divide(cells)


def test_cells_that_a_gateway_does_not_carry_are_refused(solvers: SolverFactory) -> None:
    made = one_task(12 * 80, nodes(12, limits=GatewayLimits(workers=4)))
    with pytest.raises(OverloadedGatewayError) as caught:
        Cells(made, TWO_P95, solvers=solvers).divide(2)
    assert caught.value.reasons == ("cell1 of 2 asks its gateway for 6 workers of a task, of 4",)
    assert caught.value.hint == (
        "choose 3 cells or more, or raise gateway.processors and gateway.workers in cluster.yaml"
    )
    assert caught.value.load == 1.5


def test_a_demand_that_not_even_single_nodes_carry_is_refused(solvers: SolverFactory) -> None:
    made = one_task(2 * 2 * 80, nodes(2, limits=GatewayLimits(workers=1)))
    with pytest.raises(OverloadedGatewayError, match="cell1 of 2 asks its gateway for 2 workers") as caught:
        Cells(made, TWO_P95, solvers=solvers).choose()
    assert caught.value.hint == "raise gateway.processors and gateway.workers in cluster.yaml"


def test_a_demand_that_no_partition_of_that_number_carries_says_what_would(solvers: SolverFactory) -> None:
    # Four replicas of the first task and two of the second one fill three GPUs. A GPU alone has one of each.
    made = graph([task("a", {"X": "inputs.X"}), task("b", {"X": "a.Y"})], {"Y": "b.Y"})
    rows = [row("a", "v0", slice_="3g", rps=100), row("b", "v0", slice_="3g", rps=200)]
    tight = replace(problem(made, rows, demand_rps=4 * 80), cluster=nodes(3))
    with pytest.raises(InfeasibleError) as caught:
        Cells(tight, TWO_P95, solvers=solvers).divide(3)
    assert caught.value.reasons == (
        "no division among 3 cells was found that carries the demand, which one pool carries; they carry 75.0% of that "
        "of app",
    )
    assert caught.value.hint == "add nodes, or plan for less, or choose fewer than 3 cells"


def test_an_infeasible_demand_is_refused_before_cells_are_made(solvers: SolverFactory) -> None:
    with pytest.raises(InfeasibleError):
        Cells(on_nodes(1e6, 2), OPTIONS, solvers=solvers)


def test_the_papers_formulation_knows_no_cells(solvers: SolverFactory) -> None:
    paper = Options(formulation="paper", latency_model="2p95")
    with pytest.raises(InputError, match="the paper's formulation knows no cells"):
        Cells(on_nodes(10, 2), paper, solvers=solvers)


def test_a_larger_number_that_divides_the_nodes_is_chosen_if_it_is_cheaper(solvers: SolverFactory) -> None:
    # Three cells have 4, 3 and 3 of 10 nodes, and round 2, 1.5 and 1.5 replicas up to 6. Five cells have one each.
    found = Cells(one_task(5 * 80, nodes(10, limits=GatewayLimits(workers=2))), TWO_P95, solvers=solvers)
    assert (found.fewest, found.divide(3).slices_used) == (3, 6)
    chosen = found.choose()
    assert (len(chosen.cells), chosen.slices_used) == (5, 5)


def test_other_numbers_of_cells_have_a_price_or_a_reason(solvers: SolverFactory) -> None:
    made = one_task(12 * 80, nodes(5, limits=GatewayLimits(workers=6)))
    found = Cells(made, TWO_P95, solvers=solvers)
    chosen = found.choose()
    others = found.alternatives(len(chosen.cells))
    assert len(chosen.cells) == 3
    assert [(other.cells, other.slices, other.reason) for other in others] == [
        (2, None, "cell1 of 2 asks its gateway for 8 workers of a task, of 6"),
        (4, 14, ""),
    ]


def test_cells_with_racks_of_other_shapes_are_not_alike(solvers: SolverFactory) -> None:
    """The rest of each cell must carry its share, so its plan must be on nodes of two racks."""
    racks = {"a": "r1", "b": "r2", "c": "r3", "d": "r3", "e": "r4", "f": "r5"}
    made = Cluster(
        tuple(Gpu(GpuId(name, 0), board("cpu")) for name in racks),
        topology={name: {"rack": rack} for name, rack in racks.items()},
        survive=Survive("rack", 0.5),
    )
    whole = one_task(480.0, made)
    found = Cells(whole, TWO_P95, solvers=solvers).divide(3)
    check(found, whole, TWO_P95)
    for cell in found.cells:
        own = subproblem(whole, cell.nodes, cell.weights)
        assert [*lost_capacity(cell.plan, own, TWO_P95)] == []


def test_a_cell_that_survives_no_loss_is_a_violation(solvers: SolverFactory) -> None:
    whole = one_task(160.0, nodes(2))
    found = Cells(whole, TWO_P95, solvers=solvers).divide(1)
    asked = replace(whole, cluster=replace(whole.cluster, survive=Survive()))
    (wrong,) = partition_violations(found, asked, TWO_P95)
    assert "the worst loss leaves 0.0 requests/s, not 80.0" in wrong


def mixed(costs: tuple[float, float] | tuple[None, None]) -> Problem:
    """Returns the problem of two nodes with a GPU of seven slices, and of two with one of four."""
    large, small = board("A100-40GB"), board("A30-24GB")
    gpus = [Gpu(GpuId(f"a{i}", 0), large, cost=costs[0]) for i in range(2)]
    gpus += [Gpu(GpuId(f"b{i}", 0), small, cost=costs[1]) for i in range(2)]
    made = graph([task("t", {"X": "inputs.X"})], {"Y": "t.Y"})
    rows = [row("t", "v0", rps=100, gpu=of.name) for of in (large, small)]
    return replace(problem(made, rows, demand_rps=900.0), cluster=Cluster(tuple(gpus)))


@pytest.mark.parametrize("costs", [(7.0, 3.0), (None, None)])
@pytest.mark.parametrize("cells", [2, 4])
def test_the_price_of_cells_with_mixed_boards_is_their_cost(
    solvers: SolverFactory, costs: tuple[float, float] | tuple[None, None], cells: int
) -> None:
    """With four cells, each has GPUs of one model, and yet a cost in the unit of the others."""
    whole = mixed(costs)
    found = Cells(whole, TWO_P95, solvers=solvers).divide(cells)
    check(found, whole, TWO_P95)
    each = [cell.plan.cost for cell in found.cells]
    assert found.cost is not None and found.pool_cost is not None
    assert found.cost.used == pytest.approx(sum(cost.used for cost in each if cost is not None))
    assert {cost.unit for cost in each if cost is not None} == {found.pool_cost.unit}
    assert None not in each
    assert found.price == pytest.approx(found.cost.used / found.pool_cost.used - 1)
    # A proven cost bounds no number of slices.
    assert found.pool_bound == 0
    assert found.pool_cost_bound == pytest.approx(found.pool_cost.used, rel=1e-3)
    assert partition_from_json(json.loads(partition_to_text(found)), where="plan.json") == found


def test_each_node_of_a_cell_has_the_processors_of_a_machine(solvers: SolverFactory) -> None:
    whole = one_task(160.0, replace(nodes(2), processors=4.0))
    assert subproblem(whole, ["n00"], {"app": 0.5}).cluster.processors == 4.0


def test_a_cell_that_carries_nothing_is_the_reason(solvers: SolverFactory) -> None:
    """The second node has no profile."""
    gpus = (Gpu(GpuId("a", 0), board("cpu")), Gpu(GpuId("b", 0), board("A30-24GB")))
    whole = one_task(160.0, Cluster(gpus))
    with pytest.raises(InfeasibleError, match="no division among 2 cells was found that carries the demand"):
        Cells(whole, TWO_P95, solvers=solvers).divide(2)
