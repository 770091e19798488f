from dataclasses import replace

from jigsaw_triton.profiles.merging import merged
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.problems import row

MEASURED = replace(row("t", "v"), source="measured")
ASSUMED = row("t", "v", batch=2)
TABLE = ProfileTable([MEASURED, ASSUMED])
NEW = [
    replace(MEASURED, latency_p50_ms=1.0),
    replace(ASSUMED, latency_p50_ms=2.0, source="measured"),
    replace(row("t", "v", batch=4), source="measured"),
]


def test_measured_rows_are_kept_and_assumed_ones_are_replaced() -> None:
    found = merged(TABLE, NEW)
    assert found.table.rows() == (MEASURED, NEW[1], NEW[2])
    assert (found.added, found.replaced, found.kept) == ((NEW[2].key,), (NEW[1].key,), (MEASURED.key,))


def test_measured_rows_are_replaced_if_it_is_asked_for() -> None:
    found = merged(TABLE, NEW, replace=True)
    assert found.table.rows() == tuple(NEW)
    assert found.kept == ()


def test_assumed_rows_never_replace_measured_ones() -> None:
    found = merged(TABLE, [replace(row, source="assumed") for row in NEW], replace=True)
    assert found.table.get(MEASURED.key) == MEASURED
    assert found.kept == (MEASURED.key,)


def test_merging_twice_changes_nothing() -> None:
    once = merged(TABLE, NEW, replace=True).table
    again = merged(once, NEW)
    assert again.table.rows() == once.rows()
    assert again.added == again.replaced == again.kept == ()


def test_a_row_without_memory_keeps_that_of_the_row_that_it_replaces() -> None:
    found = merged(TABLE, [replace(ASSUMED, source="measured", memory_mib=0.0)])
    assert found.table.get(ASSUMED.key) == replace(ASSUMED, source="measured")
    added = replace(row("t", "v", batch=4), memory_mib=0.0)
    assert merged(TABLE, [added]).table.get(added.key) == added
