"""Benchmark of steady trials: the paper's evaluation on four H100, with the applications social, traffic and ar.

Each five minutes of a day of the Twitter trace are a trial of their own at their mean rate, as the paper's authors did.
The trace is scaled so that its peak needs all of the GPUs. The profiles are assumed (`benchmarks.h100`).
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks import h100, harness
from benchmarks.controller.simulated import TRACES
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.api.replaying import steady_trials
from jigsaw_triton.evaluation.replay import OURS, PUBLISHED, Contender
from jigsaw_triton.evaluation.traces import read_trace
from jigsaw_triton.evaluation.trials import Trials

GPUS = f"4x{h100.BOARD}"
SYSTEMS = (OURS, *(Contender("paper", features) for features in PUBLISHED))
TRIALS = 288
"""Trials of a day."""

SMOKE_TRIALS = 3


def measure(progress: Progress, effort: Effort = FULL) -> Sequence[Figure]:
    """Measures all figures. A smoke run has one application, two systems and three trials."""
    file = TRACES / "twitter_5min.csv"
    if not file.exists():
        progress(f"no trials: {file} is missing")
        return []
    smoke = effort.rounds == 1
    read = read_trace(file)
    trace = replace(read, rps=read.rps[: SMOKE_TRIALS if smoke else TRIALS])
    found = []
    for name in h100.NAMES[:1] if smoke else h100.NAMES:
        graph = h100.application(name)
        tried = steady_trials(
            graph,
            trace,
            contenders=SYSTEMS[:2] if smoke else SYSTEMS,
            gpus=GPUS,
            driver="emulated",
            profiles=h100.h100_table(graph),
        )
        for one in tried.systems:
            progress(f"{name}, {one.contender}: {one.reason or 'done'}")
            found += figures(name, one, tried.wanted.cluster.compute_slices)
    return found


def figures(name: str, one: Trials, total: int) -> list[Figure]:
    """Returns the figures of a system; none if it can serve no demand.

    Args:
        name: Name of the application.
        one: Trials of the system.
        total: Compute slices of the cluster.
    """
    if not one.trials:
        return []
    published = PUBLISHED.get(one.contender.features) if one.contender != OURS else None
    parts = [f"{published.slices} of the slices"] if published and published.slices else []
    parts += [f"{published.violations} violations"] if published else []
    reported = f"; the paper reports {' and '.join(parts)}" if parts else ""
    note = f"{one.contender}, {len(one.trials)} trials on {GPUS}{reported}"
    place = f"{name}.{one.contender.formulation}.{one.contender.features}"
    return [
        figure(f"trials.slices.{place}", one.mean_slices / total, "share", f"mean compute slices of {total}; {note}"),
        figure(f"trials.violations.{place}", one.violation_share, "share", f"late or refused requests; {note}"),
    ]


if __name__ == "__main__":
    sys.exit(harness.main("trials", measure))
