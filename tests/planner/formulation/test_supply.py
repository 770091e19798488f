from collections import Counter
from dataclasses import replace

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Placement
from jigsaw_triton.planner.formulation.supply import SupplyUnit, supply, useful_multisets
from tests.fakes.problems import cluster

CPU = board("cpu")


def multisets(*kinds: str) -> list[dict[SupplyUnit, int]]:
    return sorted((dict(m) for m in useful_multisets(CPU, kinds)), key=str)


def test_cuts_that_another_contains_are_dropped() -> None:
    # 3g at 0 leaves room for three 1g slices, 3g at 4 for four.
    assert multisets("1g", "3g") == [{"1g": 4, "3g": 1}, {"1g": 7}, {"3g": 2}]


def test_one_kind_fills_the_gpu() -> None:
    assert multisets("3g") == [{"3g": 2}]
    assert multisets("7g") == [{"7g": 1}]


def test_cuts_of_all_kinds_do_not_contain_each_other() -> None:
    every = useful_multisets(CPU, CPU.profiles)
    assert Counter({"1g": 1, "2g": 3}) in every
    assert not any(a < b for a in every for b in every)


def test_the_cluster_has_a_largest_number_of_slices_of_each_kind() -> None:
    given = supply(cluster(3), CPU, ("1g", "2g", "4g"))
    assert [given.most(kind) for kind in ("1g", "2g", "4g", "7g")] == [21, 9, 3, 0]


def test_gpus_are_grouped_by_foreign_instances() -> None:
    free = cluster(3)
    foreign = (Placement(0, "2g"),)
    some = Cluster((*free.gpus[:2], replace(free.gpus[2], foreign=foreign)))
    given = supply(some, CPU, ("1g", "3g", "7g"))
    assert [group.gpus for group in given.groups] == [2, 1]
    assert [given.most(kind) for kind in ("1g", "3g", "7g")] == [19, 5, 2]
    assert given.whole == supply(free, CPU, ("1g", "3g", "7g")).groups[0].multisets
    assert [supply(some, CPU, ("1g", "3g"), ideal=True).most(kind) for kind in ("1g", "3g")] == [19, 6]


def test_a_gpu_without_mig_supplies_its_whole_slice() -> None:
    free = cluster(3)
    some = Cluster((*free.gpus[:2], replace(free.gpus[2], uncut="MIG is off")))
    given = supply(some, CPU, ("1g", "3g", "7g"))
    assert [group.gpus for group in given.groups] == [2, 1]
    assert [given.most(kind) for kind in ("1g", "3g", "7g")] == [14, 4, 3]
    assert supply(some, CPU, ("1g", "3g")).groups[1].multisets == ()


def test_ideal_packing_counts_only_compute_slices() -> None:
    given = supply(cluster(3), CPU, ("1g", "3g"), ideal=True)
    assert [given.most(kind) for kind in ("1g", "2g", "3g", "4g", "7g")] == [21, 10, 7, 5, 3]
    assert given.takes("3g")[1] == 3
    assert given.takes("3g")[0] == given.takes("1g")[0]
