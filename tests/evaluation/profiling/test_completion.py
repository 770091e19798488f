from dataclasses import replace

import pytest

from jigsaw_triton.evaluation.profiling.completion import can_fit, completed, outdated
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable, Source

pytest.importorskip("scipy")

ROOMS = {("cpu", "1g"): 8192.0}
KEYS = [ProfileKey("cpu", "t", "v", "1g", instances, batch) for instances in (1, 2) for batch in (1, 2, 4, 8, 16)]


def row(key: ProfileKey, source: Source = "measured") -> ProfileRow:
    ms = 5.0 + 2.0 * key.batch * key.instances
    return ProfileRow(key, ms, 1.1 * ms, 1.2 * ms, 1000 * key.batch * key.instances / ms, 50.0, source)


def test_configurations_that_were_not_measured_are_fitted() -> None:
    assert can_fit()
    measured = [row(key) for key in KEYS[::2]]
    table, fits = completed(ProfileTable(measured), KEYS, (), ROOMS)
    assert fits["cpu"].variants["t", "v"].rows == 5
    assert {r.key for r in table.rows()} == set(KEYS)
    assert [table.get(r.key) for r in measured] == measured
    assert all(table.get(key).source == "fitted" for key in KEYS[1::2])  # type: ignore[union-attr]


def test_what_failed_and_what_is_larger_has_no_row() -> None:
    table, _ = completed(ProfileTable(row(key) for key in KEYS[:4]), KEYS, [KEYS[6]], ROOMS)
    # Two instances with a batch of 2 failed.
    assert {r.key for r in table.rows()} == {*KEYS[:6]}


def test_earlier_fitted_rows_are_replaced_and_those_of_others_stay() -> None:
    stale = row(KEYS[9], "fitted")
    other = row(ProfileKey("cpu", "other", "v", "1g", 1, 1), "fitted")
    table, fits = completed(ProfileTable([*(row(key) for key in KEYS[:3]), stale, other]), KEYS, (), ROOMS)
    # Three rows are too few for a fit.
    assert fits == {}
    assert table.get(stale.key) is None
    assert table.get(other.key) == other


def test_rows_of_other_instances_or_of_another_model_are_outdated() -> None:
    one, two = (row(key) for key in (KEYS[0], KEYS[5]))
    rows = [replace(one, processes="mps", model="a" * 12), replace(two, processes="mps", model="a" * 12)]
    assert outdated(ProfileTable(rows), "mps", {("t", "v"): "a" * 12}) == frozenset()
    assert outdated(ProfileTable(rows), "mps", {}) == frozenset()
    assert outdated(ProfileTable(rows), "mps", {("t", "v"): "b" * 12}) == {KEYS[0], KEYS[5]}
    # One instance is the same in both.
    assert outdated(ProfileTable(rows), "streams", {}) == {KEYS[5]}
    assert outdated(ProfileTable([one, two]), "streams", {("t", "v"): "b" * 12}) == frozenset()
    assert outdated(ProfileTable([replace(two, processes="mps", source="fitted")]), "streams", {}) == frozenset()


def test_nothing_is_fitted_to_outdated_rows_and_those_of_the_sweep_are_replaced() -> None:
    slow = replace(row(KEYS[4]), latency_p50_ms=9e5, latency_p95_ms=9e5, latency_p99_ms=9e5, processes="mps")
    other = replace(slow, key=ProfileKey("cpu", "t", "v", "1g", 4, 1))
    rows = [*(row(key) for key in KEYS[:4]), slow, other]
    table, fits = completed(ProfileTable(rows), KEYS, (), ROOMS, {slow.key, other.key})
    assert fits["cpu"].variants["t", "v"].rows == 4
    fitted = table.get(slow.key)
    assert fitted is not None
    assert (fitted.source, fitted.processes, fitted.latency_p50_ms < 1000) == ("fitted", None, True)
    assert table.get(other.key) == other
