import pytest

from jigsaw_triton.evaluation.profiling.completion import can_fit, completed
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
