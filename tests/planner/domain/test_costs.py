from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from jigsaw_triton.planner.domain.costs import RESOLUTION, board_costs, cluster_cost
from jigsaw_triton.planner.domain.plan import PlacedSlice, PlannedGpu
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.problems import docread_problem, row

LARGE, SMALL = board("A100-40GB"), board("A30-24GB")


def cluster(large: float | None, small: float | None) -> Cluster:
    return Cluster((Gpu(GpuId("a", 0), LARGE, cost=large), Gpu(GpuId("b", 0), SMALL, cost=small)))


def test_units_are_the_greatest_common_divisor_of_the_costs_of_slices() -> None:
    costs = board_costs(cluster(7.0, 6.0), {})
    assert {name: of.slice_cost for name, of in costs.boards.items()} == {LARGE.name: 2, SMALL.name: 3}


def test_slices_of_one_board_are_units_whatever_they_cost() -> None:
    of = replace(cluster(3.3, None), gpus=cluster(3.3, None).gpus[:1])
    costs = board_costs(of, {})
    assert costs.boards[LARGE.name].slice_cost == 1
    assert cluster_cost(costs.applied_to(of)) == 7


@given(large=st.floats(0.001, 1e6), small=st.floats(0.001, 1e6))
def test_units_are_as_fine_as_the_resolution(large: float, small: float) -> None:
    costs = board_costs(cluster(large, small), {})
    units = {name: of.slice_cost for name, of in costs.boards.items()}
    exact = {LARGE.name: large / 7, SMALL.name: small / 4}
    dearest = max(exact.values())
    assert max(units.values()) <= max(RESOLUTION, 1)
    for name in units:
        error = abs(units[name] / max(units.values()) - exact[name] / dearest)
        assert error <= 1 / RESOLUTION


def test_a_slice_costs_its_share_of_the_compute_slices_and_a_whole_gpu_all_of_it() -> None:
    of = cluster(7.0, 6.0)
    costs = board_costs(of, {})
    third = PlannedGpu(GpuId("a", 0), LARGE.name, (PlacedSlice(Placement(0, "3g"), ()),))
    whole = PlannedGpu(GpuId("b", 0), SMALL.name, (PlacedSlice(SMALL.whole, ()),))
    cost = costs.of([third, whole], of)
    assert cost is not None
    assert [cost.used, cost.total] == pytest.approx([3.0 + 6.0, 13.0])
    assert cost.words(cost.used) == "9.00 per hour"


def test_instances_of_others_are_not_in_the_total() -> None:
    large, small = cluster(7.0, 6.0).gpus
    cost = board_costs(cluster(7.0, 6.0), {}).of([], Cluster((replace(large, foreign=(Placement(0, "2g"),)), small)))
    assert cost is not None and cost.total == pytest.approx(5.0 + 6.0)


def test_relative_throughput_is_a_mean_over_tasks_of_variants_profiled_on_all_boards() -> None:
    rows = [
        *(row("a", "v0", gpu=LARGE.name, rps=400.0), row("a", "v0", gpu=SMALL.name, rps=175.0)),
        *(row("a", "v1", gpu=LARGE.name, rps=100.0), row("a", "v1", gpu=SMALL.name, rps=175.0)),
        *(row("b", "v0", gpu=LARGE.name, rps=320.0), row("b", "v0", gpu=SMALL.name, rps=140.0)),
        row("b", "only-large", gpu=LARGE.name, rps=1e6),
    ]
    costs = board_costs(cluster(None, None), {"g": ProfileTable(rows)})
    # Task a: 4 and 1 times as many on a GPU, so 2; task b: 4 times as many. The mean is the square root of 8.
    assert costs.gpus == {LARGE.name: 2.8, SMALL.name: 1.0}
    assert costs.source == "throughput"


@pytest.mark.parametrize("costs", [(1.0, None), (None, 1.0)])
def test_costs_of_some_gpus_only_are_refused(costs: tuple[float | None, float | None]) -> None:
    with pytest.raises(InputError, match="only some GPUs"):
        replace(docread_problem(), cluster=cluster(*costs)).prepared()


def test_two_costs_of_one_model_are_refused() -> None:
    gpus = (Gpu(GpuId("a", 0), LARGE, cost=1.0), Gpu(GpuId("a", 1), LARGE, cost=2.0))
    with pytest.raises(InputError, match="different costs"):
        replace(docread_problem(), cluster=Cluster(gpus)).prepared()
