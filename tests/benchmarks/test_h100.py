from statistics import median

import pytest

from benchmarks.a100 import TABLE
from benchmarks.h100 import (
    _FROM_A100,
    BOARD,
    GFLOPS_PER_SM,
    LAUNCH_US,
    NAMES,
    alone_ms,
    application,
    fitted,
    h100_table,
)
from benchmarks.networks import NETWORKS, TABLE_OPERATORS, Family
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey
from jigsaw_triton.resources import applications_dir

beside_the_checkout = pytest.mark.skipif(not TABLE.exists(), reason=f"{TABLE.name} is not beside the checkout")


@pytest.mark.parametrize(("name", "depth"), [("social", 1), ("traffic", 2), ("ar", 3)])
def test_an_application_has_its_depth_and_known_networks(name: str, depth: int) -> None:
    graph = application(name)
    assert graph.name == name
    assert max(len(path) for path in graph.paths()) == depth
    assert {v.name for task in graph.tasks.values() for v in task.variants} <= set(NETWORKS)


@pytest.mark.parametrize("name", NAMES)
def test_the_profiles_of_an_application_are_what_the_model_gives(name: str) -> None:
    shipped = (applications_dir() / name / "profiles.csv").read_text()
    assert shipped == write_profiles(h100_table(application(name)).rows())


@pytest.mark.parametrize("name", NAMES)
def test_the_slo_is_four_times_the_best_variants_alone_on_a_whole_gpu(name: str) -> None:
    graph = application(name)
    assert graph.slo.latency_ms == pytest.approx(4 * alone_ms(graph), rel=0.05)


def test_the_rows_of_a_request_are_one_batch_of_the_best_variants() -> None:
    graph = application("traffic")
    table = h100_table(graph)
    keys = [
        ProfileKey(BOARD, "detect", "yolov5x", "7g", 1, 1),
        ProfileKey(BOARD, "cars", "efficientnet-b7", "7g", 1, 4),
    ]
    rows = [table.get(key) for key in keys]
    assert alone_ms(graph) == pytest.approx(sum(row.latency_p95_ms for row in rows if row is not None), rel=1e-3)


@beside_the_checkout
def test_the_launch_time_of_an_operator_is_the_median_of_the_a100_table() -> None:
    assert median(fitted(model).launch_us for model in TABLE_OPERATORS) == pytest.approx(LAUNCH_US, abs=1.0)


@beside_the_checkout
@pytest.mark.parametrize(
    ("family", "models"),
    [
        ("depthwise", ["mobilenetv2"]),
        ("residual", ["resnet50", "resnet101", "resnet152"]),
        ("plain", ["vgg16", "vgg19"]),
        ("transformer", ["bert"]),
    ],
)
def test_the_rate_of_a_multiprocessor_is_that_of_the_a100_table(family: Family, models: list[str]) -> None:
    rate = median(fitted(model).gflops_per_sm for model in models)
    assert GFLOPS_PER_SM[family] == pytest.approx(rate * _FROM_A100, rel=0.03)


@beside_the_checkout
def test_the_model_describes_the_a100_table() -> None:
    assert median(error for model in TABLE_OPERATORS for error in fitted(model).errors) < 0.2
