from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.errors import UnplacedError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Cluster, Placement
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice
from jigsaw_triton.planner.placement.greedy import everything_placed, greedy
from tests.fakes.problems import cluster

MIXED = Cluster(cluster(2).gpus + cluster(1, of="A30-24GB", node="b").gpus)


def configuration(kind: str, *, of: str = "cpu", task: str = "t0") -> Configuration:
    slices = board(of).profiles[kind].compute_slices
    return Configuration("app", task, "v0", of, kind, 1, 1, slices, 10.0, 100.0, 0.0)


def replicas(counts: Mapping[str, int]) -> dict[Configuration, int]:
    return {configuration(kind): n for kind, n in counts.items()}


def test_replicas_are_placed_first_fit_largest_first() -> None:
    found = greedy(cluster(2), replicas({"1g": 4, "4g": 1, "2g": 2}))
    assert found.unplaced == {}
    assert [Counter(s.placement.slice for s in gpu.layout) for gpu in found.gpus] == [
        {"4g": 1, "2g": 1, "1g": 1},
        {"2g": 1, "1g": 3},
    ]


def test_unplaced_replicas_are_counted() -> None:
    found = greedy(cluster(1), replicas({"3g": 2, "1g": 1}))
    assert (found.unplaced, found.unplaced_slices) == ({configuration("1g"): 1}, 1)
    with pytest.raises(UnplacedError, match="no place for 1 of 3 replicas, 1 compute slices: 1 of app/t0 v0 on 1g"):
        everything_placed(cluster(1), replicas({"3g": 2, "1g": 1}))


def test_foreign_instances_are_left_alone() -> None:
    (gpu,) = cluster(1).gpus
    found = greedy(Cluster((replace(gpu, foreign=(Placement(2, "2g"),)),)), replicas({"3g": 2, "1g": 3}))
    (planned,) = found.gpus
    assert [str(s.placement) for s in planned.layout] == ["1g@0", "1g@1", "3g@4"]
    assert found.unplaced == {configuration("3g"): 1, configuration("1g"): 1}


def test_a_gpu_without_mig_holds_one_whole_slice() -> None:
    uncut, other = cluster(2).gpus
    found = greedy(Cluster((replace(uncut, uncut="MIG is off"), other)), replicas({"7g": 1, "1g": 7}))
    layouts = {gpu.id: [str(s.placement) for s in gpu.layout] for gpu in found.gpus}
    assert found.unplaced == {}
    assert layouts == {uncut.id: ["7g@0"], other.id: [f"1g@{start}" for start in range(7)]}


def test_replicas_stay_on_their_board() -> None:
    there = configuration("2g", of="A30-24GB")
    found = greedy(MIXED, {there: 3})
    assert [(gpu.id.node, len(gpu.layout)) for gpu in found.gpus] == [("b", 2)]
    assert found.unplaced == {there: 1}


@given(
    cpu=st.dictionaries(st.sampled_from(sorted(board("cpu").profiles)), st.integers(1, 5)),
    a30=st.dictionaries(st.sampled_from(sorted(board("A30-24GB").profiles)), st.integers(1, 5)),
)
def test_every_replica_is_placed_or_counted_and_every_layout_is_valid(cpu: dict[str, int], a30: dict[str, int]) -> None:
    counts = replicas(cpu) | {configuration(kind, of="A30-24GB"): n for kind, n in a30.items()}
    found = greedy(MIXED, counts)
    assert all(fits(board(gpu.model), [s.placement for s in gpu.layout]) is None for gpu in found.gpus)
    placed = Counter((gpu.model, s.placement.slice) for gpu in found.gpus for s in gpu.layout)
    unplaced = Counter({(c.board, c.slice): n for c, n in found.unplaced.items()})
    assert placed + unplaced == {(c.board, c.slice): n for c, n in counts.items()}
    whole = {gpu.id for gpu in MIXED.gpus} - {gpu.id for gpu in found.gpus}
    assert not any(gpu.board.name in {c.board for c in found.unplaced} for gpu in MIXED.gpus if gpu.id in whole)


def test_slices_that_stay_keep_their_places_and_their_gpus_fill_first() -> None:
    one, other = cluster(2).gpus
    model = PlacedModel("app", "t0", "v0", 1, 1)
    staying = {other.id: (PlacedSlice(Placement(4, "3g"), (model,)),)}
    found = greedy(cluster(2), replicas({"3g": 2, "1g": 2}), staying)
    layouts = {gpu.id: [str(s.placement) for s in gpu.layout] for gpu in found.gpus}
    assert (found.unplaced, layouts) == ({}, {other.id: ["3g@0", "3g@4"], one.id: ["1g@0", "1g@1", "3g@4"]})
