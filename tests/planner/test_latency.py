import pytest

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.latency import loads, task_quantile, two_p95_ms
from jigsaw_triton.planner.problem import LOADS, Options
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain, diamond
from tests.fakes.problems import row


@pytest.mark.parametrize(
    ("rows", "batch", "instances", "rounds"),
    [
        (1, 1, 1, 1),  # the paper's 2 x p95
        (1, 8, 4, 1),
        (6, 8, 1, 1),
        (6, 4, 1, 2),
        (6, 2, 3, 1),
        (6, 1, 1, 6),
        (8.000000000001, 8, 1, 1),  # a sum that floating point left a hair above
        (8.1, 8, 1, 2),
        (0.2, 1, 1, 1),
        (0, 1, 1, 1),
    ],
)
def test_a_batch_waited_for_and_as_many_rounds_as_the_rows_fill(
    rows: float, batch: int, instances: int, rounds: int
) -> None:
    profile = row("t", "v", batch=batch, instances=instances, p95_ms=10.0)
    assert two_p95_ms(profile, rows) == pytest.approx(10.0 * (1 + rounds))


TABLE = ProfileTable([row("t0", "v0", batch=b, p95_ms=5 + 5 * b) for b in (1, 8)])


def test_two_p95_has_one_load() -> None:
    assert loads(chain(1), TABLE.rows(), TABLE, Options(utilisation=0.7)) == {
        r.key: [(0.7, 2 * r.latency_p95_ms)] for r in TABLE.rows()
    }


def test_the_busier_the_longer() -> None:
    found = loads(chain(1), TABLE.rows(), TABLE, Options(latency_model="queue"))
    for at in found.values():
        assert [load for load, _ in at] == list(LOADS)
        latencies = [ms for _, ms in at]
        assert latencies == sorted(latencies)
        assert latencies[-1] > 1.5 * latencies[0]


def test_a_throughput_that_the_latencies_do_not_allow_for_is_not_planned_for() -> None:
    boastful = ProfileTable([row("t0", "v0", p95_ms=10.0, rps=1.3 * 1000 / 8)])
    (found,) = loads(chain(1), boastful.rows(), boastful, Options(latency_model="queue")).values()
    assert [load for load, _ in found] == [load for load in LOADS if 1.3 * load < 1]


@pytest.mark.parametrize(("graph", "late"), [(chain(1), 0.01), (chain(4), 0.0025), (diamond(), 0.0025)])
def test_the_tasks_share_what_may_be_late(graph: TaskGraph, late: float) -> None:
    assert task_quantile(graph) == pytest.approx(1 - late)


def test_with_more_tasks_each_is_planned_at_a_higher_quantile() -> None:
    rows = [row(f"t{i}", "v0", batch=4, p95_ms=10) for i in range(4)]
    one, four = (
        loads(chain(n), rows[:n], ProfileTable(rows[:n]), Options(latency_model="queue"))[rows[0].key] for n in (1, 4)
    )
    assert all(ms > ms_alone for (_, ms), (_, ms_alone) in zip(four, one, strict=True))
