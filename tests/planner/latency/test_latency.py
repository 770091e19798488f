from collections.abc import Sequence
from dataclasses import replace

import pytest

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.problem import LOADS, MAX_SERVERS, REPLICA_RANGES, Options, ReplicaRange
from jigsaw_triton.planner.latency.latency import ANY_NUMBER, Use, task_quantile, two_p95_ms, uses
from jigsaw_triton.planner.latency.queueing import Case, latencies_ms
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain, diamond
from tests.fakes.problems import docread, docread_profiles, row


@pytest.mark.parametrize(
    ("rows", "batch", "instances", "rounds"),
    [
        (1, 1, 1, 1),  # the paper's 2 x p95
        (1, 8, 4, 1),
        (6, 8, 1, 1),
        (6, 4, 1, 2),
        (6, 2, 3, 1),
        (6, 1, 1, 6),
        (8.000000000001, 8, 1, 1),  # a sum that rounding left slightly above
        (8.1, 8, 1, 2),
        (0.2, 1, 1, 1),
        (0, 1, 1, 1),
    ],
)
def test_two_p95_counts_one_batch_of_waiting_and_the_rounds_that_the_rows_fill(
    rows: float, batch: int, instances: int, rounds: int
) -> None:
    profile = row("t", "v", batch=batch, instances=instances, p95_ms=10.0)
    assert two_p95_ms(profile, rows) == pytest.approx(10.0 * (1 + rounds))


TABLE = ProfileTable([row("t0", "v0", batch=b, p95_ms=5 + 5 * b) for b in (1, 8)])
QUEUE = Options(latency_model="queue")


def test_two_p95_has_one_use_for_any_number_of_replicas() -> None:
    assert uses(chain(1), TABLE.rows(), TABLE, Options(latency_model="2p95", utilisation=0.7)) == {
        r.key: [(0.7, 2 * r.latency_p95_ms, ANY_NUMBER)] for r in TABLE.rows()
    }


def by_range(found: Sequence[Use]) -> dict[ReplicaRange, list[Use]]:
    return {
        replica_range: [use for use in found if use.replica_range == replica_range] for replica_range in REPLICA_RANGES
    }


def test_latency_rises_with_utilisation() -> None:
    for found in uses(chain(1), TABLE.rows(), TABLE, QUEUE).values():
        for at in by_range(found).values():
            assert [use.utilisation for use in at] == list(LOADS)
            latencies = [use.latency_ms for use in at]
            assert latencies == sorted(latencies)
            assert latencies[-1] > 1.2 * latencies[0]


def test_a_latency_covers_both_ends_of_its_range_all_smaller_loads_and_full_batches() -> None:
    profile, time = TABLE.rows()[1], service_times(TABLE)[TABLE.rows()[1].key]
    found = by_range(uses(chain(1), TABLE.rows(), TABLE, QUEUE)[profile.key])
    for (first, last), at in found.items():
        for use in at:
            loads = [load for load in LOADS if load <= use.utilisation]
            cases = [
                Case(time, int(min(n, MAX_SERVERS)), load * profile.throughput_rps * time.occupied_ms / 8000)
                for n in (first, last)
                for load in loads
            ]
            # The p99 of a row is 1.1 times its p95, here 45 ms.
            assert use.latency_ms == pytest.approx(max(1.1 * 45, *latencies_ms(tuple(cases), 0.99)))


def test_more_replicas_wait_less_with_batches_of_one() -> None:
    single = ProfileTable([row("t0", "v0", p95_ms=10.0)])
    few, some, many = by_range(uses(chain(1), single.rows(), single, QUEUE)[single.rows()[0].key]).values()
    assert few[-1].latency_ms > 1.5 * some[-1].latency_ms > 1.5 * many[-1].latency_ms


def test_a_configuration_dominated_at_every_load_is_omitted_unless_it_runs() -> None:
    slow = row("t0", "v0", instances=2, p95_ms=100.0)
    elsewhere, other = (
        replace(slow, key=replace(slow.key, slice="2g")),
        replace(slow, key=replace(slow.key, variant="w")),
    )
    table = ProfileTable([*TABLE.rows(), slow, elsewhere, other])
    found = uses(chain(1), table.rows(), table, QUEUE)
    assert [key for key, at in found.items() if not at] == [slow.key]
    staying = uses(chain(1), table.rows(), table, QUEUE, [slow.key])
    assert len(staying[slow.key]) == len(LOADS) * len(REPLICA_RANGES)
    assert all(staying[key] == at for key, at in found.items() if at)


def test_every_omitted_use_is_dominated() -> None:
    graph, table = docread(), docread_profiles()
    few, every = (uses(graph, table.rows(), table, QUEUE, stay) for stay in ((), [r.key for r in table.rows()]))
    rps = {r.key: r.throughput_rps for r in table.rows()}
    left_out = [(key, use) for key, of in every.items() for use in of if use not in few[key]]
    assert len(left_out) > sum(map(len, every.values())) / 10
    for key, use in left_out:
        assert any(
            better.replica_range == use.replica_range
            and better.latency_ms <= use.latency_ms
            and better.utilisation * rps[other] >= use.utilisation * rps[key]
            for other, of in few.items()
            if (other.task, other.variant, other.slice) == (key.task, key.variant, key.slice)
            for better in of
        )


def test_a_throughput_that_contradicts_the_latencies_is_not_used() -> None:
    boastful = ProfileTable([row("t0", "v0", p95_ms=10.0, rps=1.3 * 1000 / 8)])
    (found,) = uses(chain(1), boastful.rows(), boastful, QUEUE).values()
    assert [use.utilisation for use in by_range(found)[REPLICA_RANGES[0]]] == [load for load in LOADS if 1.3 * load < 1]


@pytest.mark.parametrize(("graph", "late"), [(chain(1), 0.01), (chain(4), 0.0025), (diamond(), 0.0025)])
def test_the_tasks_share_the_probability_of_being_late(graph: TaskGraph, late: float) -> None:
    assert task_quantile(graph) == pytest.approx(1 - late)


def test_each_task_of_a_larger_graph_is_planned_at_a_higher_quantile() -> None:
    rows = [row(f"t{i}", "v0", batch=4, p95_ms=10) for i in range(4)]
    one, four = (uses(chain(n), rows[:n], ProfileTable(rows[:n]), QUEUE)[rows[0].key] for n in (1, 4))
    assert all(use.latency_ms > alone.latency_ms for use, alone in zip(four, one, strict=True))


def test_predictions_remembered_from_other_calls_do_not_change_the_uses() -> None:
    graph, rows = docread(), docread_profiles().rows()
    some, others = [r.key for r in rows[::7]], [r.key for r in rows[3::5]]
    alone = {name: uses(graph, rows, ProfileTable(rows), QUEUE, stay) for name, stay in (("a", some), ("b", others))}
    table = ProfileTable(rows)
    for name, stay in (("a", some), ("b", others), ("a", some)):
        assert uses(graph, rows, table, QUEUE, stay) == alone[name]
