from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.evaluation.ablation import spatial_gain
from jigsaw_triton.evaluation.gain_map import Estimate, TaskGain, Traits, estimated, model_gain
from jigsaw_triton.evaluation.gain_map_plot import plot
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import Slo
from jigsaw_triton.planner.search.solve import SolverFactory
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain, fan_out
from tests.fakes.problems import TWO_P95, grid, problem, row

CPU, H100 = board("cpu"), board("H100-80GB")
PAIR = ProfileTable(
    row("t0", "v0", slice_=kind, instances=n, rps=rps)
    for kind, n, rps in (("7g", 1, 100.0), ("7g", 2, 150.0), ("1g", 1, 30.0))
)


@pytest.fixture(scope="module")
def solvers() -> Iterator[SolverFactory]:
    with lasting_solvers() as named:
        yield named


@given(
    launch_share=st.floats(0.01, 0.99),
    tightness=st.floats(2.0, 50.0),
    largest_batch=st.sampled_from([1, 2, 4, 8, 16, 32, 64]),
)
def test_a_model_never_loses_by_spatial_partitioning(launch_share: float, tightness: float, largest_batch: int) -> None:
    gain = model_gain(Traits(launch_share, tightness, largest_batch), H100)
    assert gain is not None
    # Seven slices with four instances each, or more by slices of 3g that are packed by their compute slices alone.
    assert 1 <= gain <= 28


def test_a_model_gains_more_the_more_it_launches_and_less_with_larger_batches() -> None:
    by_share = [model_gain(Traits(share, 32.0, 1), H100) or 0 for share in (0.2, 0.5, 0.8, 0.95)]
    by_batch = [model_gain(Traits(0.9, 32.0, batch), H100) or 0 for batch in (1, 4, 16, 64)]
    assert by_share == sorted(by_share)
    assert by_batch == sorted(by_batch, reverse=True)
    assert by_batch[0] > 5 > 1.5 > by_batch[-1]


def test_a_model_that_a_whole_gpu_is_too_slow_for_has_no_gain() -> None:
    assert model_gain(Traits(0.5, 1.9, 8), H100) is None


def test_a_board_without_published_multiprocessors_has_a_map() -> None:
    assert model_gain(Traits(0.9, 8.0, 1), CPU) == pytest.approx(model_gain(Traits(0.9, 8.0, 1), H100), rel=0.3)


def test_the_gain_of_one_task_is_that_of_its_profiles() -> None:
    found = estimated(chain(1), PAIR, CPU)
    assert found is not None
    (task,) = found.tasks
    assert (task.task, task.variant, task.variant_with_s, task.weight) == ("t0", "v0", "v0", 1.0)
    assert (task.gain, found.gain) == pytest.approx((2.1, 2.1))


def test_the_gain_of_a_graph_is_the_harmonic_mean_by_the_time_on_gpus() -> None:
    traits = Traits(0.5, 4.0, 8)
    tasks = (TaskGain("a", "v", "v", 0.25, 2.0), TaskGain("b", "v", "v", 0.75, 6.0))
    assert Estimate("g", traits, tasks).gain == pytest.approx(4.0)


def test_rows_that_a_request_makes_weigh_as_often_as_they_are_called() -> None:
    rows = [row(task, "v0", slice_=kind, rps=100.0) for task in ("detect", "classify") for kind in ("7g", "2g")]
    found = estimated(fan_out(rows=3.0), ProfileTable(rows), CPU)
    assert found is not None
    assert {task.task: task.weight for task in found.tasks} == pytest.approx({"detect": 0.25, "classify": 0.75})


def test_variants_are_exchanged_as_far_as_the_accuracy_allows() -> None:
    rows = [
        row(task, variant, slice_="7g", rps=rps)
        for task, factor in (("t0", 1.0), ("t1", 2.0))
        for variant, rps in (("v0", 10.0 * factor), ("v1", 40.0 * factor), ("v2", 50.0 * factor))
    ]
    graph = chain(2, variant_count=3, slo=Slo(1000.0, accuracy=0.9))
    found = estimated(graph, ProfileTable(rows), CPU)
    assert found is not None
    # Either task may lose a tenth; t0 takes more time, so it saves more.
    assert [task.variant for task in found.tasks] == ["v1", "v0"]


@pytest.mark.parametrize(
    ("table", "latency_ms"),
    [(ProfileTable([row("t0", "v0")]), 1000.0), (PAIR, 10.0), (ProfileTable([]), 1000.0)],
    ids=["no whole GPU", "too slow", "no profiles"],
)
def test_a_graph_that_needs_partitioning_has_no_estimate(table: ProfileTable, latency_ms: float) -> None:
    assert estimated(chain(1, slo=Slo(latency_ms, accuracy=0.9)), table, CPU) is None


@pytest.mark.slow
@given(
    latency_ms=st.sampled_from([60.0, 120.0, 400.0]),
    item_ms=st.tuples(st.floats(2.0, 8.0), st.floats(2.0, 8.0)),
    batches=st.sampled_from([(1,), (1, 2, 4, 8)]),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_the_estimate_is_near_what_is_solved(
    latency_ms: float, item_ms: tuple[float, float], batches: tuple[int, ...], solvers: SolverFactory
) -> None:
    graph = chain(2, slo=Slo(latency_ms, accuracy=0.9))
    rows = [r for n, ms in enumerate(item_ms) for r in grid(f"t{n}", "v0", ms, batches=batches)]
    # With many GPUs, whole replicas are no limit.
    p = problem(graph, rows, gpus=60)
    found, solved = estimated(graph, p.profiles["chain"], CPU), spatial_gain(p, TWO_P95, solvers=solvers)
    assert found is not None and solved is not None
    assert found.gain == pytest.approx(solved.gain, rel=0.15)


def test_a_gain_that_cannot_be_solved_is_none(solvers: SolverFactory) -> None:
    assert spatial_gain(problem(chain(1), [row("t0", "v0")]), TWO_P95, solvers=solvers) is None


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_map_has_a_panel_for_each_graph(tmp_path: Path, count: int) -> None:
    pytest.importorskip("matplotlib")
    found = estimated(chain(1), PAIR, CPU)
    assert found is not None
    estimates = [replace(found, graph=f"graph{n}") for n in range(count)]
    plot(estimates, [2.0, *[None] * (count - 1)], H100, tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert all(f"graph{n}" in text for n in range(count))
