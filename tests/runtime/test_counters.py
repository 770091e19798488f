from pathlib import Path

from jigsaw_triton.runtime.counters import MOST_INSTANCES, Counters, Row


def test_instances_count_beside_each_other(tmp_path: Path) -> None:
    one, other = Counters(tmp_path / "c" / "d", 0), Counters(tmp_path / "c" / "d", MOST_INSTANCES - 1)
    one.own[Row.TAKEN] += 2
    other.own[Row.TAKEN] += 3
    other.own[Row.LATE] += 1
    assert (one.total(Row.TAKEN), other.total(Row.TAKEN), one.total(Row.LATE)) == (5, 5, 1)


def test_counts_outlive_their_process(tmp_path: Path) -> None:
    Counters(tmp_path / "d", 1).own[Row.TAKEN] = 7
    again = Counters(tmp_path / "d", 1)
    assert again.own[Row.TAKEN] == 7
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o600


def test_what_was_published_stands_beside_the_counts_and_is_no_part_of_them(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "d", 0)
    counters.published[Row.TAKEN] = 5
    again = Counters(tmp_path / "d", MOST_INSTANCES - 1)
    assert again.published[Row.TAKEN] == 5
    assert again.total(Row.TAKEN) == 0
