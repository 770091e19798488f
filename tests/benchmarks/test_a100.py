from collections import Counter

import pytest

from benchmarks import a100
from benchmarks.a100 import BOARD, NAMES, TABLE, a100_profiles, a100_table, reference_graph
from benchmarks.assumed import P95
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.profiles.read import parse_profiles, write_profiles

beside_the_checkout = pytest.mark.skipif(not TABLE.exists(), reason=f"{TABLE.name} is not beside the checkout")


@pytest.mark.parametrize(("name", "depth"), [("social", 1), ("traffic", 2), ("assistant", 3)])
def test_a_reference_graph_has_its_depth_and_known_models(name: str, depth: int) -> None:
    graph = reference_graph(name)
    assert graph.name == name
    assert max(len(path) for path in graph.paths()) == depth
    assert {v.name for task in graph.tasks.values() for v in task.variants} <= set(a100.PARAMETERS_M)


@beside_the_checkout
def test_rows_of_the_table_become_profiles() -> None:
    rows = {(r.key.slice, r.key.batch, r.key.instances): r for r in a100_profiles("read", ["bert"])}
    assert len(rows) == 214
    first = rows["1g", 1, 1]
    # The throughput of 74.408 requests/s gives a longer time than the 0.013 s in the table.
    assert first.latency_p50_ms == pytest.approx(1000 / 74.408, abs=1e-3)
    assert first.latency_p95_ms == pytest.approx(P95 * first.latency_p50_ms, abs=1e-3)
    assert (first.key.gpu, first.key.task, first.key.variant) == (BOARD, "read", "bert")


@beside_the_checkout
def test_wrong_rows_of_the_table_are_skipped() -> None:
    rows = a100_profiles("t", sorted(a100.PARAMETERS_M))
    kept = {(r.key.variant, int(r.key.slice[:-1]), r.key.batch, r.key.instances) for r in rows}
    assert len(kept) == 1747 - len(a100._WRONG)
    assert not kept & a100._WRONG


@beside_the_checkout
@pytest.mark.parametrize("name", NAMES)
def test_every_variant_has_profiles_that_fit_its_slices(name: str) -> None:
    graph = reference_graph(name)
    table = a100_table(graph)
    counts = Counter((row.key.task, row.key.variant) for row in table.rows())
    assert set(counts) == {(task.name, v.name) for task in graph.tasks.values() for v in task.variants}
    room = board(BOARD).profiles
    assert all(0 < row.memory_mib <= (room[row.key.slice].memory_mib or 0) for row in table.rows())
    assert parse_profiles(write_profiles(table.rows()), "profiles.csv").rows() == table.rows()


def test_a_missing_table_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a100, "TABLE", TABLE.with_name("elsewhere.csv"))
    a100.measured.cache_clear()
    with pytest.raises(InputError, match="put it beside the checkout"):
        a100_profiles("read", ["bert"])
