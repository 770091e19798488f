from dataclasses import replace

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.points import Grid, chosen, configurations, measurable
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from jigsaw_triton.graph.model import TaskGraph, Variant
from jigsaw_triton.profiles.table import ProfileKey
from tests.fakes.graphs import graph, task, variants

CPU = CATALOG["cpu"]
REAL = (Variant("small", 0.9, "python"), Variant("large", 1.0, "python"))


def two_tasks() -> TaskGraph:
    return graph(
        [task("a", {"X": "inputs.X"}, of=REAL), task("b", {"X": "a.Y"}, of=[*REAL[:1], *variants()])], {"Y": "b.Y"}
    )


def cluster(*boards: str, driver: str = "emulated") -> Cluster:
    gpus = tuple(Gpu(GpuId("n", index), CATALOG[name]) for index, name in enumerate(boards))
    return replace(Cluster(gpus), driver="nvml") if driver == "nvml" else Cluster(gpus)


def test_all_variants_except_emulated_ones_are_chosen_by_default() -> None:
    assert chosen(two_tasks(), (), ()) == {"a": ("small", "large"), "b": ("small",)}


def test_tasks_and_variants_can_be_chosen() -> None:
    assert chosen(two_tasks(), ["b"], []) == {"b": ("small",)}
    assert chosen(two_tasks(), [], ["large"]) == {"a": ("large",)}
    assert chosen(two_tasks(), ["a", "b"], ["small"]) == {"a": ("small",), "b": ("small",)}


@pytest.mark.parametrize(
    ("tasks", "names", "message"),
    [
        (["c"], [], "no task 'c'"),
        ([], ["tiny"], "no variant 'tiny'"),
        (["b"], ["large"], "no variant 'large'"),
        (["b"], ["v0"], "nothing to measure"),
    ],
)
def test_unknown_or_emulated_names_are_refused(tasks: list[str], names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(two_tasks(), tasks, names)


def test_points_are_grouped_by_variant_and_numbers_ascend() -> None:
    grid = Grid(slices=("2g", "1g"), instances=(2, 1), batches=(4, 1, 4))
    assert configurations(CPU, {"a": ("small",), "b": ("small",)}, grid) == tuple(
        ProfileKey("cpu", name, "small", kind, instances, batch)
        for name in ("a", "b")
        for kind in ("2g", "1g")
        for instances in (1, 2)
        for batch in (1, 4)
    )


@pytest.mark.parametrize(
    ("grid", "where"),
    [
        (Grid(("5g",), (1,), (1,)), "--slices"),
        (Grid((), (0,), (1,)), "--instances"),
        (Grid((), (1,), (1, -2)), "--batches"),
    ],
)
def test_an_impossible_grid_is_refused(grid: Grid, where: str) -> None:
    with pytest.raises(InputError) as caught:
        configurations(CPU, {"a": ("small",)}, grid)
    assert caught.value.where == where


def test_all_slices_of_a_gpu_are_measured_by_default_and_one_of_a_processor() -> None:
    grid = Grid((), (1,), (1,))
    kinds = {key.slice for key in configurations(CATALOG["A100-80GB"], {"a": ("small",)}, grid)}
    assert kinds == set(CATALOG["A100-80GB"].profiles)
    assert [key.slice for key in configurations(CPU, {"a": ("small",)}, grid)] == ["1g"]


def test_each_board_is_measured_on_one_gpu() -> None:
    found = measurable(cluster("H100-80GB", "A100-80GB", "H100-80GB", driver="nvml"))
    assert {name: gpu.id.index for name, gpu in found.items()} == {"A100-80GB": 1, "H100-80GB": 0}


def test_a_board_that_is_only_emulated_cannot_be_measured() -> None:
    assert list(measurable(cluster("cpu"))) == ["cpu"]
    with pytest.raises(InputError, match="A100-80GB"):
        measurable(cluster("cpu", "A100-80GB"))
