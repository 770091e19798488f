import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.candidates.configurations import available
from jigsaw_triton.planner.candidates.filters import worthwhile
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, docread, docread_profiles, row

CPU = board("cpu")
PROFILES = docread_profiles(batches=(1, 4))


def kept(graph: TaskGraph, *rows: ProfileRow) -> set[tuple[str, str, int, int]]:
    configurations = worthwhile(graph, available(graph, ProfileTable(rows), [CPU], TWO_P95))
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


@pytest.mark.slow
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
