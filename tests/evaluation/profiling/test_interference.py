from dataclasses import replace

import pytest

from jigsaw_triton.evaluation.profiling.figures import Figures
from jigsaw_triton.evaluation.profiling.interference import Interference, most_efficient
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow

KEY = ProfileKey("cpu", "a", "small", "1g", 1, 4)
ROW = ProfileRow(KEY, 5, 6, 7, 100, 50, "measured")


def test_the_factors_compare_busy_with_idle_neighbours() -> None:
    found = Interference(KEY, 2, Figures(10, 20, 30, 400, 1000), Figures(15, 30, 60, 300, 800))
    assert (found.latency, found.throughput) == (1.5, 0.75)


def test_the_best_measured_row_within_the_latency_is_taken_of_each_variant() -> None:
    def changed(batch: int, **changes: float) -> ProfileRow:
        return replace(ROW, key=replace(KEY, batch=batch), **changes)  # type: ignore[arg-type]

    better = changed(8, throughput_rps=150)
    slow = changed(16, throughput_rps=500, latency_p95_ms=300)
    guessed = replace(changed(32, throughput_rps=900), source="fitted")
    other = replace(ROW, key=replace(KEY, variant="large"), latency_p95_ms=200)
    assert most_efficient([ROW, better, slow, guessed, other], 100) == [better.key]
    assert most_efficient([ROW, other], 200) == [KEY, other.key]


@pytest.mark.parametrize("rows", [[], [replace(ROW, source="assumed")]])
def test_without_measured_rows_there_is_no_best_one(rows: list[ProfileRow]) -> None:
    assert most_efficient(rows, 100) == []
