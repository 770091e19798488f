"""Runs a sweep: measures the configurations of an agenda one by one, and keeps each outcome at once."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from jigsaw_triton.evaluation.profiling.again import Again
from jigsaw_triton.evaluation.profiling.agenda import Agenda
from jigsaw_triton.evaluation.profiling.budget import Budget
from jigsaw_triton.evaluation.profiling.failures import Failures
from jigsaw_triton.evaluation.profiling.interference import Interference
from jigsaw_triton.evaluation.profiling.measure import Failure, Measurement, Profiler
from jigsaw_triton.evaluation.profiling.sheet import Sheet
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of a sweep before a measurement.

    Attributes:
        key: Configuration that is measured next.
        number: Number of this measurement in the sweep, from 1.
        total: Largest number of measurements of the sweep.
        left_s: Seconds that the rest of the sweep takes, roughly; None if that is not known yet.
    """

    key: ProfileKey
    number: int
    total: int
    left_s: float | None


@dataclass(slots=True)
class Outcome:
    """Measurements and failures of a sweep so far.

    Attributes:
        measured: Measurements by configuration.
        failed: Failures by configuration.
        complete: True if the sweep has not ended early because its budget was spent.
        interference: Measurements with neighbours.
    """

    measured: dict[ProfileKey, Measurement] = field(default_factory=dict)
    failed: dict[ProfileKey, Failure] = field(default_factory=dict)
    complete: bool = True
    interference: list[Interference] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Records:
    """Files in which a sweep keeps its outcome.

    Attributes:
        sheet: Measured rows.
        failures: Configurations that failed.
        again: Configurations that were measured although the sheet had them; None if such are left out.
    """

    sheet: Sheet
    failures: Failures
    again: Again | None = None

    @property
    def known(self) -> tuple[ProfileRow, ...]:
        """Measured rows that are not to be measured again."""
        rows = self.sheet.table.rows()
        return tuple(r for r in rows if r.source == "measured" and (self.again is None or r.key in self.again.done))

    @property
    def failed(self) -> Collection[ProfileKey]:
        """Failed configurations that are not to be tried again."""
        every = self.failures.reasons.keys()
        return every if self.again is None else every & self.again.done

    def keep(self, found: Measurement | Failure) -> None:
        """Writes an outcome to the files.

        Raises:
            InputError: A file cannot be written. The row is still in the table of the sheet.
        """
        if isinstance(found, Measurement):
            self.sheet.add(found.row)
            self.failures.remove([found.row.key])
        else:
            self.failures.add(found.key, found.reason)
        if self.again is not None:
            self.again.add(found.row.key if isinstance(found, Measurement) else found.key)


async def sweep(
    profiler: Profiler,
    agenda: Agenda,
    records: Records,
    budget: Budget,
    outcome: Outcome,
    begin: Callable[[Step], None],
    failed: Callable[[Failure], None],
) -> None:
    """Measures the configurations of an agenda until none is left or the budget is spent.

    Args:
        profiler: Profiler that has made inputs for the tasks.
        agenda: Configurations to measure.
        records: Files that get each outcome before the next configuration is measured.
        budget: Time of the sweep.
        outcome: Outcome, to which this function adds.
        begin: Callback before each measurement.
        failed: Callback after each failure.

    Raises:
        InputError: A file cannot be written.
        ServerError: The workers do not start.
    """
    number = 0
    while keys := agenda.round():
        for key in keys:
            pace = budget.pace(agenda.remaining)
            if pace is None:
                outcome.complete = False
                return
            number += 1
            begin(Step(key, number, number - 1 + agenda.remaining, budget.left_s(agenda.remaining)))
            began = time.monotonic()
            found = await profiler.measure(key, pace)
            if isinstance(found, Measurement):
                outcome.measured[key] = found
                agenda.add_measured(key, found.row.latency_p50_ms)
            else:
                outcome.failed[key] = found
                agenda.add_failed(key)
                failed(found)
            records.keep(found)
            if isinstance(found, Measurement):
                # A failure, which may take a minute, says nothing about the time of the next measurement.
                budget.spent(time.monotonic() - began, found.seconds)
