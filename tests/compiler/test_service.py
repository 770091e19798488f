"""Times of calls, and of the path that follows a task, from the profiles."""

from collections.abc import Mapping

import pytest

from jigsaw_triton.compiler.bundle import ModelFolder, Place, Worker, WorkerModel
from jigsaw_triton.compiler.service import MIN_CALL_DEADLINE_MS, CallTimes, call_times, rest_ms, service_ms
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import (
    GraphPlan,
    PlacedModel,
    PlacedSlice,
    Plan,
    PlannedGpu,
    SolverReport,
    TaskPlan,
)
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from tests.fakes.graphs import chain, cropping, diamond

BOARD = "A100-80GB"
PLACE = Place(GpuId("n", 0), BOARD, Placement(0, "1g"))


def plan(of: TaskGraph, *models: PlacedModel) -> Plan:
    tasks = {name: TaskPlan(20.0, 1.0, ()) for name in of.tasks}
    graphs = {of.name: GraphPlan(1.0, 1.0, 1.0, 50.0, tasks)}
    layout = tuple(PlacedSlice(Placement(start, "1g"), (model,)) for start, model in enumerate(models))
    gpus = (PlannedGpu(GpuId("a", 0), BOARD, layout),)
    return Plan(graphs, gpus, 1, 7, 1, "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.1, 0.0))


def row(task: str, batch: int, p50_ms: float, p99_ms: float, *, instances: int = 1, variant: str = "v0") -> ProfileRow:
    key = ProfileKey(BOARD, task, variant, "1g", instances, batch)
    return ProfileRow(key, p50_ms, (p50_ms + p99_ms) / 2, p99_ms, 1.0, 1.0, "measured")


def model(task: str, *, batch: int = 8, instances: int = 1, members: tuple[str, ...] = ()) -> WorkerModel:
    return WorkerModel(ModelFolder(task, {}), "g", task, "v0", instances, batch, "", members)


def times(
    of: WorkerModel, *others: WorkerModel, rows: list[ProfileRow], processes: int = 1, one_by_one: bool = False
) -> CallTimes:
    """Returns the call times of a model on a worker that also has other models."""
    worker = Worker("w", (of, *others), PLACE)
    return call_times(worker, of, {"g": ProfileTable(rows)}, processes=processes, one_by_one=one_by_one)


def test_the_service_time_is_the_slowest_replicas_or_half_the_budget_without_a_profile() -> None:
    of = chain()
    replicas = [PlacedModel(of.name, "t0", variant, 1, 8) for variant in ("v0", "v1")]
    table = ProfileTable([row("t0", 8, 5.0, 9.0), row("t0", 8, 8.0, 10.0, variant="v1")])
    assert service_ms(plan(of, *replicas), of, table) == {"t0": 9.0, "t1": 10.0}
    assert set(service_ms(plan(of, *replicas), of, None).values()) == {10.0}


@pytest.mark.parametrize(
    ("of", "services", "rest"),
    [
        (
            diamond(),
            {"a": 10.0, "b": 20.0, "c": 60.0, "d": 5.0},
            {"a": 65.0, "b": 5.0, "c": 5.0, "d": 0.0},
        ),
        (cropping(latency_ms=30.0), {"detect": 10.0, "classify": 20.0}, {"detect": 50.0, "classify": 0.0}),
    ],
    ids=["the longest path", "python steps"],
)
def test_the_time_that_follows_a_task(of: TaskGraph, services: Mapping[str, float], rest: Mapping[str, float]) -> None:
    assert rest_ms(of, services) == rest


ROWS = [row("t", 1, 200.0, 300.0), row("t", 4, 400.0, 600.0), row("t", 8, 500.0, 900.0)]


def test_times_of_a_model_alone_in_its_slice() -> None:
    assert times(model("t"), rows=ROWS) == CallTimes(
        service_ms={"1": 200.0, "4": 400.0, "8": 500.0},
        deadline_ms={"1": 3000.0, "4": 6000.0, "8": 9000.0},
    )


def test_batches_above_the_models_largest_do_not_count() -> None:
    assert list(times(model("t", batch=4), rows=ROWS).service_ms) == ["1", "4"]


def test_a_fast_model_has_the_minimum_deadline() -> None:
    found = times(model("t"), rows=[row("t", 1, 1.0, 2.0)])
    assert found == CallTimes({"1": 1.0}, {"1": MIN_CALL_DEADLINE_MS})


def test_no_time_is_rounded_to_zero() -> None:
    assert times(model("t"), rows=[row("t", 1, 0.0001, 0.0002)]).service_ms == {"1": 0.001}


def test_a_model_without_a_profile_has_no_times() -> None:
    assert times(model("t"), rows=[]) == CallTimes({}, {})
    assert times(model("t"), rows=[row("t", 1, 1.0, 2.0, instances=2)]) == CallTimes({}, {})


def test_rows_of_other_slices_and_boards_do_not_count() -> None:
    place = Place(GpuId("n", 0), BOARD, Placement(0, "2g"))
    worker = Worker("w", (model("t"),), place)
    table = {"g": ProfileTable(ROWS)}
    assert call_times(worker, worker.models[0], table, processes=1, one_by_one=False) == CallTimes({}, {})


def test_instances_count_as_those_of_all_processes() -> None:
    rows = [row("t", 1, 200.0, 300.0), row("t", 1, 700.0, 800.0, instances=4)]
    assert times(model("t"), rows=rows, processes=4).service_ms == {"1": 700.0}
    assert times(model("t", instances=4), rows=rows).service_ms == {"1": 700.0}


def test_the_deadline_in_a_shared_slice_includes_the_other_models_batches() -> None:
    rows = [*ROWS, row("u", 2, 100.0, 150.0, instances=2), row("u", 4, 200.0, 350.0, instances=2)]
    found = times(model("t", batch=4), model("u", batch=4, instances=2), rows=rows)
    # Each of the two instances of `u` may execute a batch of 350 ms first.
    assert found == CallTimes({"1": 200.0, "4": 400.0}, {"1": 10 * (300.0 + 700.0), "4": 10 * (600.0 + 700.0)})


def test_a_neighbour_without_a_profile_leaves_no_deadline() -> None:
    assert times(model("t", batch=1), model("u"), rows=ROWS) == CallTimes({"1": 200.0}, {})


def test_a_neighbour_of_another_graph_uses_that_graphs_profile() -> None:
    other = WorkerModel(ModelFolder("u", {}), "h", "u", "v0", 1, 1, "")
    worker = Worker("w", (model("t", batch=1), other), PLACE)
    tables = {"g": ProfileTable(ROWS), "h": ProfileTable([row("u", 1, 100.0, 200.0)])}
    found = call_times(worker, worker.models[0], tables, processes=1, one_by_one=False)
    assert found.deadline_ms == {"1": 10 * (300.0 + 200.0)}


def test_a_chain_takes_as_long_as_its_members() -> None:
    members = (model("a", batch=4), model("b"))
    rows = [row(task, batch, 100.0 * batch, 150.0 * batch) for task in "ab" for batch in (1, 2, 4, 8)]
    whole = model("a~b", batch=4, members=("a", "b"))
    found = times(whole, *members, rows=rows)
    assert found.service_ms == {"1": 200.0, "2": 400.0, "4": 800.0}
    assert found.deadline_ms == {"1": 3000.0, "2": 6000.0, "4": 12_000.0}
    # A member that is called alone waits for the other member. The chain does not.
    assert times(members[0], members[1], whole, rows=rows).deadline_ms["1"] == 10 * (150.0 + 8 * 150.0)


def test_each_member_of_a_chain_waits_for_the_models_outside_it() -> None:
    rows = [row(task, 1, 100.0, 200.0) for task in "abu"]
    found = times(model("a~b", batch=1, members=("a", "b")), *(model(t, batch=1) for t in "abu"), rows=rows)
    assert found.deadline_ms == {"1": 10 * (400.0 + 2 * 200.0)}


def test_a_chain_with_a_member_without_a_profile_has_no_times() -> None:
    whole = model("a~b", members=("a", "b"))
    assert times(whole, model("a"), model("b"), rows=[row("a", 1, 1.0, 2.0)]) == CallTimes({}, {})
    rows = [row("a", 1, 1.0, 2.0), row("b", 2, 1.0, 2.0)]
    assert times(whole, model("a"), model("b"), rows=rows) == CallTimes({}, {})


def test_the_deadline_of_a_separate_item_includes_the_batch_before_its_own() -> None:
    assert times(model("t"), rows=ROWS, one_by_one=True) == CallTimes({"1": 200.0}, {"1": 2 * 10 * 900.0})
    shared = times(model("t"), model("u", batch=1), rows=[*ROWS, row("u", 1, 50.0, 100.0)], one_by_one=True)
    assert shared.deadline_ms == {"1": 10 * (2 * 900.0 + 2 * 100.0)}


def test_a_steps_worker_has_no_times() -> None:
    worker = Worker("steps-g", (model("crop"),))
    assert call_times(worker, worker.models[0], {}, processes=1, one_by_one=False) == CallTimes({}, {})
