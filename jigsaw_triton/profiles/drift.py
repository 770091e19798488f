"""Compares the service times of what runs with the profiles."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from jigsaw_triton.profiles.check import Finding
from jigsaw_triton.profiles.service import service_time
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable

Verdict = Literal["slower", "as profiled", "faster", "too few batches"]

SLOWER = 1.25
"""Ratio of the measured to the profiled time above which a row is slower than profiled: more than the noise of a
profile, and less than plans allow for."""

FASTER = 1 / SLOWER

LEAST_BATCHES = 100
"""Smallest number of batches by which a row is judged."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Batches that workers have answered.

    Attributes:
        key: Configuration of the workers. The batch size is the smallest profiled one that holds the batches.
        batches: Number of batches.
        seconds: Sum of their service times.
        profiled_s: Sum of the profiled median times of batches of their sizes.
    """

    key: ProfileKey
    batches: float
    seconds: float
    profiled_s: float


@dataclass(frozen=True, slots=True)
class Drift:
    """Service time of a configuration that runs, beside that of its profile.

    Attributes:
        key: The configuration.
        workers: Number of workers that have answered batches.
        batches: Number of batches.
        measured_ms: Mean service time of the batches.
        profiled_ms: Mean service time of such batches by the profile.
    """

    key: ProfileKey
    workers: int
    batches: float
    measured_ms: float
    profiled_ms: float

    @property
    def ratio(self) -> float:
        """Ratio of the measured to the profiled time."""
        return self.measured_ms / self.profiled_ms

    @property
    def verdict(self) -> Verdict:
        """Judgement of the ratio."""
        if self.batches < LEAST_BATCHES:
            return "too few batches"
        return "slower" if self.ratio > SLOWER else "faster" if self.ratio < FASTER else "as profiled"


def drifts(table: ProfileTable, answered: Iterable[Answered]) -> list[Drift]:
    """Returns the drift of each profiled configuration that has answered batches, sorted by configuration.

    The sums are of all workers of a configuration. The profile's mean follows from its percentiles, as in plans.

    Args:
        table: The profiles.
        answered: Batches of each worker. Those of configurations without a profile are left out.
    """
    by_key: dict[ProfileKey, list[Answered]] = {}
    for one in answered:
        if one.batches > 0 and one.profiled_s > 0 and table.get(one.key) is not None:
            by_key.setdefault(one.key, []).append(one)
    return [_drift(table, key, parts) for key, parts in sorted(by_key.items())]


def _drift(table: ProfileTable, key: ProfileKey, parts: list[Answered]) -> Drift:
    row = table.get(key)
    assert row is not None
    batches = sum(one.batches for one in parts)
    seconds = sum(one.seconds for one in parts)
    profiled_s = sum(one.profiled_s for one in parts) * service_time(row).mean
    return Drift(key, len(parts), batches, 1000 * seconds / batches, 1000 * profiled_s / batches)


def drift_findings(found: Iterable[Drift]) -> Iterator[Finding]:
    """Yields a warning for each configuration that is slower than profiled.

    Faster ones are no fault: a profile is of slices whose instances are all busy, and those of a deployment rarely are.
    """
    for one in found:
        if one.verdict == "slower":
            message = (
                f"batches take {one.ratio:.2f} times as long as profiled: {one.measured_ms:.4g} instead of "
                f"{one.profiled_ms:.4g} ms (mean of {one.batches:.0f} on {one.workers} workers)"
            )
            yield Finding(one.key, "warning", message, "find what slows the slices, or measure again")
