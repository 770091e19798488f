from collections.abc import Mapping
from dataclasses import replace

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Cluster, GpuId, Placement
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu, SolverReport
from jigsaw_triton.planner.placement.placement import placement
from jigsaw_triton.planner.solver.solver import SolverProcess
from tests.fakes.problems import cluster

CPU = board("cpu")


def configuration(task: str, slice_: str, variant: str = "v0", board_name: str = "cpu") -> Configuration:
    slices = CPU.profiles[slice_].compute_slices
    return Configuration("g", task, variant, board_name, slice_, 1, 1, slices, 10.0, 100.0, 0.0)


def running(layouts: Mapping[int, Mapping[str, str]], *, node: str = "a", model: str = "cpu") -> Plan:
    """A plan of placements only: GPU index -> `slice@start` -> task."""
    gpus = []
    for index, layout in layouts.items():
        placed = []
        for place, task in layout.items():
            kind, start = place.split("@")
            placed.append(PlacedSlice(Placement(int(start), kind), (PlacedModel("g", task, "v0", 1, 1),)))
        gpus.append(PlannedGpu(GpuId(node, index), model, tuple(sorted(placed, key=lambda p: p.placement))))
    return Plan({}, tuple(gpus), 0, 0, len(gpus), "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.0, 0.0))


def placed(
    highs: SolverProcess,
    counts: Mapping[Configuration, int],
    *,
    gpus: int,
    on: Cluster | None = None,
    before: Plan | None = None,
) -> dict[int, dict[str, str]]:
    program = placement(on or cluster(4), counts, gpus, before)
    outcome = highs.solve(program.program, 10)
    planned = program.placed(outcome.values)
    for gpu in planned:
        assert fits(CPU, [s.placement for s in gpu.layout]) is None
    return {g.id.index: {str(s.placement): s.models[0].task for s in g.layout} for g in planned}


def test_a_first_plan_fills_the_first_gpus(highs: SolverProcess) -> None:
    got = placed(highs, {configuration("a", "3g"): 3, configuration("b", "1g"): 2}, gpus=2)
    assert sorted(got) == [0, 1]
    everything = [(place.split("@")[0], task) for gpu in got.values() for place, task in gpu.items()]
    assert sorted(everything) == [("1g", "b"), ("1g", "b"), ("3g", "a"), ("3g", "a"), ("3g", "a")]


def test_running_replicas_stay_in_place(highs: SolverProcess) -> None:
    before = running({1: {"3g@4": "a", "1g@1": "b"}, 3: {"2g@2": "c"}})
    counts = {configuration("a", "3g"): 1, configuration("b", "1g"): 1, configuration("c", "2g"): 1}
    assert placed(highs, counts, gpus=2, before=before) == {1: {"1g@1": "b", "3g@4": "a"}, 3: {"2g@2": "c"}}


def test_replicas_move_together_if_fewer_gpus_suffice(highs: SolverProcess) -> None:
    before = running({1: {"3g@4": "a", "1g@1": "b"}, 3: {"2g@2": "c"}})
    counts = {configuration("a", "3g"): 1, configuration("b", "1g"): 1, configuration("c", "2g"): 1}
    got = placed(highs, counts, gpus=1, before=before)
    assert list(got) == [1]
    assert got[1].items() >= {"1g@1": "b", "3g@4": "a"}.items()


def test_the_gpu_with_most_running_replicas_is_kept(highs: SolverProcess) -> None:
    before = running({0: {"1g@0": "b"}, 2: {"1g@6": "a", "1g@5": "a", "1g@4": "b"}})
    got = placed(highs, {configuration("a", "1g"): 2, configuration("b", "1g"): 2}, gpus=1, before=before)
    assert list(got) == [2]
    assert got[2].items() >= {"1g@6": "a", "1g@5": "a", "1g@4": "b"}.items()
    assert sorted(got[2].values()) == ["a", "a", "b", "b"]


def test_of_equal_multisets_the_layout_that_fits_running_replicas_is_used(highs: SolverProcess) -> None:
    # Without running replicas, the first layout of 2g and 1g would place 2g at 0.
    before = running({0: {"2g@4": "a", "1g@3": "b"}})
    counts = {configuration("a", "2g"): 2, configuration("b", "1g"): 3}
    got = placed(highs, counts, gpus=1, before=before)
    assert got[0].items() >= {"2g@4": "a", "1g@3": "b"}.items()


def test_existing_instances_are_used_before_new_ones(highs: SolverProcess) -> None:
    before = running({0: {"1g@5": "gone", "1g@2": "a"}})
    got = placed(highs, {configuration("a", "1g"): 1, configuration("new", "1g"): 1}, gpus=1, before=before)
    assert got == {0: {"1g@2": "a", "1g@5": "new"}}


def test_gpus_that_are_gone_or_replaced_keep_nothing(highs: SolverProcess) -> None:
    counts = {configuration("a", "1g"): 1}
    fresh = placed(highs, counts, gpus=1)
    for before in (running({9: {"1g@3": "a"}}), running({1: {"1g@3": "a"}}, model="A100-80GB")):
        assert placed(highs, counts, gpus=1, before=before) == fresh == {0: {"1g@0": "a"}}


def test_foreign_instances_are_left_alone_whatever_ran_there(highs: SolverProcess) -> None:
    on = cluster(2)
    taken = (Placement(0, "1g"), Placement(4, "3g"))
    on = replace(on, gpus=(replace(on.gpus[0], foreign=taken), on.gpus[1]))
    before = running({0: {"2g@2": "a", "1g@0": "b"}})
    counts = {configuration("a", "2g"): 1, configuration("b", "1g"): 1}
    assert placed(highs, counts, gpus=1, on=on, before=before) == {0: {"1g@1": "b", "2g@2": "a"}}
    counts = {configuration("a", "3g"): 2, configuration("b", "1g"): 3}
    got = placed(highs, counts, gpus=2, on=on)
    assert sorted(got[1]) == ["3g@0", "3g@4"]
    assert sorted(got[0]) == ["1g@1", "1g@2", "1g@3"]


def test_a_gpu_without_mig_holds_one_whole_slice_whatever_ran_there(highs: SolverProcess) -> None:
    on = cluster(2)
    on = replace(on, gpus=(replace(on.gpus[0], uncut="MIG is off"), on.gpus[1]))
    before = running({0: {"2g@2": "a", "1g@0": "b"}})
    counts = {configuration("a", "7g"): 1, configuration("b", "1g"): 2}
    got = placed(highs, counts, gpus=2, on=on, before=before)
    assert got[0] == {"7g@0": "a"}
    assert sorted(got[1].values()) == ["b", "b"]


def test_replicas_are_placed_on_their_own_board(highs: SolverProcess) -> None:
    other = replace(CPU, name="other")
    both = Cluster(cluster(1).gpus + cluster(1, of=other, node="b").gpus)
    counts = {configuration("a", "7g"): 1, configuration("b", "7g", board_name="other"): 1}
    program = placement(both, counts, 2, None)
    planned = program.placed(highs.solve(program.program, 10).values)
    assert [(str(g.id), g.model, g.layout[0].models[0].task) for g in planned] == [
        ("a/0", "cpu", "a"),
        ("b/0", "other", "b"),
    ]
