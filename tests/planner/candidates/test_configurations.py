import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.candidates import configurations as configurations_module
from jigsaw_triton.planner.candidates.configurations import Configuration, available, by_load, merged
from jigsaw_triton.planner.domain.problem import LOADS, REPLICA_RANGES, Options
from jigsaw_triton.planner.latency import latency
from jigsaw_triton.planner.latency.points import Array
from jigsaw_triton.planner.latency.queueing import many_latencies_ms
from jigsaw_triton.profiles.service import ServiceTime
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
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
