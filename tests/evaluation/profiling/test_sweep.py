import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import cast

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.again import Again
from jigsaw_triton.evaluation.profiling.agenda import Agenda, configuration
from jigsaw_triton.evaluation.profiling.budget import Budget
from jigsaw_triton.evaluation.profiling.failures import Failures
from jigsaw_triton.evaluation.profiling.load import Pace
from jigsaw_triton.evaluation.profiling.measure import Failure, Measurement, Profiler
from jigsaw_triton.evaluation.profiling.sheet import Sheet
from jigsaw_triton.evaluation.profiling.sweep import Outcome, Records, Step, sweep
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow

KEYS = [ProfileKey("cpu", "t", "v", "1g", instances, batch) for instances in (1, 2) for batch in (1, 2, 4)]


class FakeProfiler:
    """Profiler whose measurements take no time; some configurations fail."""

    def __init__(self, failing: Collection[tuple[str, int, int]] = ()) -> None:
        self.failing = failing
        self.paces: list[Pace] = []

    async def measure(self, key: ProfileKey, pace: Pace) -> Measurement | Failure:
        self.paces.append(pace)
        if configuration(key) in self.failing:
            return Failure(key, "out of memory")
        row = ProfileRow(key, 5, 6, 7, 100, 50, "measured")
        return Measurement(row, 100, 1.0, 2.0, None, confident=True, memory="pss")


def run(
    path: Path, profiler: FakeProfiler, agenda: Agenda, budget: Budget | None = None
) -> tuple[Outcome, list[Step], list[Failure]]:
    steps: list[Step] = []
    failures: list[Failure] = []
    outcome = Outcome()
    records = Records(Sheet(path), Failures(path))
    asyncio.run(
        sweep(
            cast(Profiler, profiler),
            agenda,
            records,
            budget or Budget(None, Pace()),
            outcome,
            steps.append,
            failures.append,
        )
    )
    return outcome, steps, failures


def test_each_outcome_is_kept_and_the_sweep_goes_on_after_failures(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    outcome, steps, failures = run(path, FakeProfiler([("1g", 1, 4)]), Agenda(KEYS, None, 1e9, {}, ()))
    assert outcome.complete
    assert {row.key for row in read_profiles(path).rows()} == outcome.measured.keys() == {*KEYS[:2], *KEYS[3:5]}
    assert Failures(path).reasons == {KEYS[2]: "out of memory"}
    assert [failure.key for failure in failures] == [KEYS[2]] == list(outcome.failed)
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]
    assert steps[0].total == 6
    # The larger configuration with two instances is not tried.
    assert steps[-1].total == 5


def test_a_configuration_that_works_at_last_has_not_failed(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    Failures(path).add(KEYS[0], "out of memory")
    run(path, FakeProfiler(), Agenda(KEYS[:1], None, 1e9, {}, ()))
    assert Failures(path).reasons == {}


def test_of_a_repeated_sweep_only_what_is_left_is_measured_after_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    run(path, FakeProfiler([("1g", 2, 4)]), Agenda(KEYS, None, 1e9, {}, ()))
    first = Records(Sheet(path), Failures(path), Again(path))
    assert (first.known, first.failed) == ((), set())
    for key in KEYS[:2]:
        first.keep(Measurement(ProfileRow(key, 8, 9, 9, 50, 50, "measured"), 9, 1.0, 1.0, None, True, "pss"))
    first.keep(Failure(KEYS[5], "still out of memory"))
    repeated = Records(Sheet(path), Failures(path), Again(path))
    assert [row.key for row in repeated.known] == KEYS[:2]
    assert repeated.failed == {KEYS[5]}
    assert {row.key for row in Records(Sheet(path), Failures(path)).known} == set(KEYS[:5])


def test_a_sweep_ends_when_its_budget_is_spent(tmp_path: Path) -> None:
    times = iter(range(0, 10_000, 5))
    budget = Budget(29.0, Pace(most_s=4.0), lambda: float(next(times)))
    profiler = FakeProfiler()
    outcome, _, _ = run(tmp_path / "profiles.csv", profiler, Agenda(KEYS, None, 1e9, {}, ()), budget)
    assert not outcome.complete
    assert 0 < len(outcome.measured) < len(KEYS)
    assert all(pace.most_s <= 4 for pace in profiler.paces)


def test_failures_do_not_count_as_the_overhead_of_measurements(tmp_path: Path) -> None:
    spent: list[float] = []

    class Recorded(Budget):
        def spent(self, total_s: float, measuring_s: float) -> None:
            spent.append(measuring_s)

    run(
        tmp_path / "profiles.csv", FakeProfiler([("1g", 1, 4)]), Agenda(KEYS, None, 1e9, {}, ()), Recorded(None, Pace())
    )
    assert spent == [2.0] * 4


def test_a_row_that_cannot_be_written_is_in_the_outcome(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    path = folder / "profiles.csv"
    outcome = Outcome()
    records = Records(Sheet(path), Failures(path))

    def begin(step: Step) -> None:
        if step.number == 2:
            path.unlink()
            folder.rmdir()
            folder.write_text("a file in the place of the folder")

    with pytest.raises(InputError, match="cannot be written"):
        asyncio.run(
            sweep(
                cast(Profiler, FakeProfiler()),
                Agenda(KEYS, None, 1e9, {}, ()),
                records,
                Budget(None, Pace()),
                outcome,
                begin,
                lambda _: None,
            )
        )
    assert len(outcome.measured) == 2
    assert len(records.sheet.table) == 2
