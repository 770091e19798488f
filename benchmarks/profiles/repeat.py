"""Difference of two runs of `profile` on the same application and machine, one after the other."""

from statistics import median
from typing import Any

from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure, spread
from benchmarks.profiles.command import application, profile

APPLICATION = "digits"
GRID = ("--instances", "1,2", "--batches", "1,2,4,8")
SMALL_GRID = ("--variant", "scale", "--instances", "1", "--batches", "1,2")
"""Sweep of a smoke run."""

SECONDS = 10.0
FIGURES = ("latency_p50_ms", "latency_p95_ms", "throughput_rps")


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    grid, seconds = GRID if effort.load_share == 1 else SMALL_GRID, effort.seconds(SECONDS)
    with application(APPLICATION) as folder:
        runs = []
        for number in range(2):
            progress(f"repeat: run {number + 1} of 2")
            file = str(folder / f"run-{number}.csv")
            runs.append(profile(folder, *grid, "--seconds", f"{seconds:g}", "-O", file))
    first, second = (_measured(run) for run in runs)
    both = sorted(first.keys() & second.keys())
    differences = {name: [abs(second[key][name] / first[key][name] - 1) for key in both] for name in FIGURES}
    sure = sum(run[key]["confident"] for run in (first, second) for key in both)
    note = (
        f"p50, p95 and throughput of {len(both)} configurations of {APPLICATION} that both runs measured, at most "
        f"{seconds:g} s each; {sure} of {2 * len(both)} measurements ended by their confidence; medians: "
        + ", ".join(f"{name} {median(values):.3f}" for name, values in differences.items())
    )
    every = [value for values in differences.values() for value in values]
    p95 = differences["latency_p95_ms"]
    return [
        figure("profiles.repeat", median(every), "share", note, at_most=0.05),
        figure("profiles.repeat.p95", median(p95), "share", f"p95 alone, {spread(p95)}"),
    ]


def _measured(run: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    names = ("task", "variant", "slice", "instances", "batch")
    return {tuple(row[name] for name in names): row for row in run["rows"] if row["source"] == "measured"}
