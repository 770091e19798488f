import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.candidates import configurations as configurations_module
from jigsaw_triton.planner.candidates.configurations import Configuration, available, by_load, merged, worthwhile
from jigsaw_triton.planner.domain.problem import LOADS, REPLICA_RANGES, Options
from jigsaw_triton.planner.latency import latency
from jigsaw_triton.planner.latency.points import Array
from jigsaw_triton.planner.latency.queueing import many_latencies_ms
from jigsaw_triton.profiles.service import ServiceTime
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, docread, docread_profiles, row

CPU = board("cpu")


def found(graph: TaskGraph, *rows: ProfileRow) -> dict[str, tuple[Configuration, ...]]:
    return available(graph, ProfileTable(rows), [CPU], TWO_P95)


def test_a_configuration_has_the_cost_and_performance_of_a_replica() -> None:
    (c,) = found(chain(1, variant_count=2), row("t0", "v1", slice_="2g", batch=2, p95_ms=10, rps=150))["t0"]
    assert (c.slice, c.compute_slices, c.batch) == ("2g", 2, 2)
    assert c.latency_ms == pytest.approx(20)
    assert c.throughput_rps == pytest.approx(120)
    assert c.loss == pytest.approx(-math.log(0.9))


@pytest.mark.parametrize(
    "unfit",
    [
        row("t0", "v0", gpu="H100-80GB"),
        row("t0", "v0", slice_="9g"),
        row("t0", "v0", memory_mib=1e6),
        row("t0", "v0", rps=0.0),
        row("t0", "gone"),
        row("gone", "v0"),
    ],
)
def test_profiles_that_fit_neither_the_cluster_nor_the_graph_are_ignored(unfit: ProfileRow) -> None:
    assert found(chain(1), unfit) == {"t0": ()}


def kept(graph: TaskGraph, *rows: ProfileRow) -> set[tuple[str, str, int, int]]:
    configurations = worthwhile(graph, found(graph, *rows))
    return {(c.variant, c.slice, c.instances, c.batch) for found in configurations.values() for c in found}


def test_dominated_configurations_are_dropped() -> None:
    graph = chain(1, variant_count=2, slo=Slo(1000, accuracy=0.5))
    best = row("t0", "v0", batch=2, p95_ms=10, rps=200)
    assert kept(
        graph,
        best,
        row("t0", "v0", batch=4, p95_ms=12, rps=190),  # higher latency and lower throughput
        row("t0", "v0", batch=1, p95_ms=8, rps=110),  # lower latency
        row("t0", "v0", batch=8, p95_ms=30, rps=240),  # higher throughput
        row("t0", "v0", slice_="2g", batch=2, p95_ms=10, rps=190),  # another slice
        row("t0", "v1", batch=2, p95_ms=10, rps=190),  # another variant
    ) == {
        ("v0", "1g", 1, 2),
        ("v0", "1g", 1, 1),
        ("v0", "1g", 1, 8),
        ("v0", "2g", 1, 2),
        ("v1", "1g", 1, 2),
    }


def test_of_equal_configurations_the_one_with_fewer_instances_is_kept() -> None:
    graph = chain(1)
    equals = [row("t0", "v0", instances=k, batch=b, p95_ms=10, rps=100) for k, b in ((2, 1), (1, 2), (1, 4))]
    assert kept(graph, *equals) == {("v0", "1g", 1, 2)}


def test_configurations_that_no_plan_within_the_slo_can_use_are_dropped() -> None:
    graph = chain(2, variant_count=3, slo=Slo(100, accuracy=0.85))
    assert kept(
        graph,
        row("t0", "v0", p95_ms=10),
        row("t0", "v0", batch=4, p95_ms=39),  # 78 ms leave 22 ms for t1
        row("t0", "v0", batch=8, p95_ms=40),  # 80 ms leave too little
        row("t0", "v1", p95_ms=5),  # accuracy 0.9 with the best variant of the other task
        row("t0", "v2", p95_ms=1),  # accuracy 0.8
        row("t1", "v0", p95_ms=11),
    ) == {("v0", "1g", 1, 1), ("v0", "1g", 1, 4), ("v1", "1g", 1, 1)}


def test_a_task_that_cannot_keep_the_slo_has_no_configurations() -> None:
    graph = docread(slo=Slo(1.0, accuracy=0.5))
    assert set(worthwhile(graph, available(graph, docread_profiles(), [CPU], Options())).values()) == {()}


def test_the_queue_model_has_a_configuration_for_each_load_and_replica_range() -> None:
    graph = chain(1)
    rows = ProfileTable([row("t0", "v0", batch=4, p95_ms=10)])
    found = available(graph, rows, [CPU], Options())
    ranges = by_load(found["t0"], {graph.name: found})
    assert {among for _, among in ranges} == set(REPLICA_RANGES)
    for at in ranges.values():
        assert [c.utilisation for c in at] == list(LOADS)
        assert [c.throughput_rps for c in at] == pytest.approx([load * 400 for load in LOADS])


def test_replicas_that_differ_only_in_utilisation_are_merged() -> None:
    graph = chain(1)
    rows = ProfileTable([row("t0", "v0", batch=4, p95_ms=10), row("t0", "v0", batch=1, p95_ms=10)])
    other, *_, low, high = available(graph, rows, [CPU], Options())["t0"]
    assert merged({other: 2}) == {other: 2}
    (together, *rest), counts = zip(*merged({low: 1, high: 3, other: 2}).items(), strict=True)
    assert (rest, counts) == ([other], (4, 2))
    assert together.replica == low.replica
    assert together.latency_ms == max(low.latency_ms, high.latency_ms)
    assert 4 * together.throughput_rps == pytest.approx(low.throughput_rps + 3 * high.throughput_rps)
    assert 4 * together.utilisation == pytest.approx(low.utilisation + 3 * high.utilisation)


def test_configurations_are_computed_once_for_equal_tasks_and_the_same_profiles() -> None:
    profiles = docread_profiles()
    first = available(docread(), profiles, [CPU], Options())
    again = available(docread(slo=Slo(50.0)), profiles, [CPU], Options(time_limit_s=1.0))
    assert all(again[task] is found for task, found in first.items())
    for other in (
        available(docread(lines=7.0), profiles, [CPU], Options()),
        available(docread(), docread_profiles(batches=(1, 2)), [CPU], Options()),
        available(docread(), profiles, [CPU], Options(features="ST")),
        available(docread(), profiles, [CPU], Options(latency_model="2p95")),
        available(docread(slo=Slo(400.0, percentile=90.0, accuracy=0.8)), profiles, [CPU], Options()),
    ):
        assert other["recognise"] != first["recognise"]


def test_measured_yields_change_only_the_tasks_that_they_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted = []
    compute = latency.uses_by_rows

    def counted(rows: Sequence[ProfileRow], *others: Any) -> Any:
        predicted.append(rows[0].key.task)
        return compute(rows, *others)

    monkeypatch.setattr(configurations_module, "uses_by_rows", counted)
    profiles = docread_profiles()
    for lines in (5.0, 5.001, 5.002):
        found = available(docread(lines=lines), profiles, [CPU], Options())
        assert found == available(docread(lines=lines), docread_profiles(), [CPU], Options())
    # Each new table is computed in full; the first one only where the rows have changed.
    assert Counter(predicted) == {"detect": 1 + 3, "recognise": 3 + 3}


PROFILES = docread_profiles(batches=(1, 4))


@given(st.sets(st.sampled_from([row.key for row in PROFILES.rows()])))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_running_replicas_add_nothing_that_an_optimum_needs(running: set[ProfileKey]) -> None:
    graph = docread()
    replicas = {("docread", k.task, k.variant, k.gpu, k.slice, k.instances, k.batch) for k in running}
    with_running = available(graph, PROFILES, [CPU], Options(), replicas)
    assert worthwhile(graph, with_running) == worthwhile(graph, available(graph, PROFILES, [CPU], Options()))
    alone = available(graph, PROFILES, [CPU], Options(), replicas, others=False)
    assert {c for found in alone.values() for c in found} == {
        c for found in with_running.values() for c in found if c.replica in replicas
    }


def test_the_latencies_of_running_replicas_are_predicted_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = []

    def counted(times: Sequence[ServiceTime], kind: Array, *others: Any) -> Array:
        cases.append(len(kind))
        return many_latencies_ms(times, kind, *others)

    monkeypatch.setattr(latency, "many_latencies_ms", counted)
    running = [("docread", "detect", "tiny", "cpu", kind, 1, 4) for kind in ("1g", "2g")]
    available(docread(), docread_profiles(), [CPU], Options(), running, others=False)
    ends = {n for ends in REPLICA_RANGES for n in ends}
    assert cases == [len(running) * len(ends) * len(LOADS)]
