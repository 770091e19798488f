"""Dealing nodes to cells, and moving a plan to nodes of the same kinds."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from jigsaw_triton.planner.cells.nodes import assigned, kinds_of, matched, moved, nodes_of
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu, SolverReport

BOARDS = ("A100-80GB", "H100-80GB", "cpu")


def cluster(*nodes: tuple[str, ...]) -> Cluster:
    return Cluster(
        tuple(
            Gpu(GpuId(f"n{number:02}", index), board(name))
            for number, names in enumerate(nodes)
            for index, name in enumerate(names)
        )
    )


def plan(*gpus: PlannedGpu) -> Plan:
    return Plan({}, gpus, 0, 0, 0, "ASTMP", "exact", "queue", SolverReport("HiGHS", "optimal", 0.0, 0.0))


@given(nodes=st.lists(st.tuples(st.sampled_from(BOARDS)), min_size=1, max_size=24), data=st.data())
def test_every_node_is_in_one_cell_and_cells_are_nearly_alike(
    nodes: list[tuple[str, ...]], data: st.DataObject
) -> None:
    kinds = kinds_of(nodes_of(cluster(*nodes)))
    cells = data.draw(st.integers(1, len(nodes)))
    found = assigned(kinds, cells)
    assert sorted(name for cell in found for name in cell) == sorted(kinds)
    for kind in {*kinds.values(), None}:
        counts = [sum(kind is None or kinds[name] == kind for name in cell) for cell in found]
        assert max(counts) - min(counts) <= 1
    assert min(map(len, found)) >= 1


def test_neighbours_come_into_one_cell() -> None:
    kinds = kinds_of(nodes_of(cluster(*[("cpu",)] * 5)))
    assert assigned(kinds, 2) == (("n00", "n01", "n02"), ("n03", "n04"))


def test_nodes_differ_by_boards_and_by_what_others_and_this_plan_have_there() -> None:
    made = cluster(("cpu",), ("cpu",), ("A100-80GB",), ("cpu",), ("cpu",))
    gpus = list(made.gpus)
    gpus[3] = replace(gpus[3], foreign=(Placement(0, "1g"),))
    running = plan(PlannedGpu(gpus[4].id, "cpu", (PlacedSlice(Placement(0, "1g"), ()),)))
    kinds = kinds_of(nodes_of(replace(made, gpus=tuple(gpus))), running)
    assert kinds["n00"] == kinds["n01"]
    assert len(set(kinds.values())) == 4


def test_a_plan_moves_to_nodes_of_the_same_kinds() -> None:
    kinds = kinds_of(nodes_of(cluster(("cpu",), ("A100-80GB",), ("A100-80GB",), ("cpu",))))
    names = matched(("n00", "n01"), ("n02", "n03"), kinds)
    assert names == {"n00": "n03", "n01": "n02"}
    model = PlacedModel("g", "t", "v", 1, 1)
    layout = (PlacedSlice(Placement(0, "1g"), (model,)),)
    before = plan(PlannedGpu(GpuId("n00", 0), "cpu", layout), PlannedGpu(GpuId("n01", 0), "A100-80GB", layout))
    after = moved(before, names)
    assert [(str(gpu.id), gpu.model) for gpu in after.gpus] == [("n02/0", "A100-80GB"), ("n03/0", "cpu")]
    assert replace(after, gpus=before.gpus) == before


def test_each_failure_domain_is_dealt_to_all_cells() -> None:
    made = cluster(("A100-80GB",), ("A100-80GB",), ("cpu",), ("cpu",))
    racks = {gpu.id: f"r{number % 2}" for number, gpu in enumerate(made.gpus)}
    kinds = kinds_of(nodes_of(made), domains=racks)
    of = {gpu.node: rack for gpu, rack in racks.items()}
    found = assigned(kinds, 2)
    assert [{of[node] for node in cell} for cell in found] == [{"r0", "r1"}, {"r0", "r1"}]
    assert [{kinds[node][0][1] for node in cell} for cell in found] == [{"A100-80GB", "cpu"}, {"A100-80GB", "cpu"}]
