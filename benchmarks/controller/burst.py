"""Time from a jump of the load to three times as much until requests meet their SLO again.

The deployment serves a chain of two tasks with emulated variants on an emulated A100-80GB; tritonservers, clients and
controller are real. The load rises from less than the plan's capacity to more than twice that capacity, which the
standby variants of the same slices carry. The baseline has no standby variants, and waits for the controller's next
plan.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client
from benchmarks.dataplane.client import OK, Outcome
from benchmarks.effort import Effort
from benchmarks.emulated import chain
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import ServerError
from jigsaw_triton.planner.domain.problem import StandbyMode
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import Installation, find_installation

BOARD = "A100-80GB"
BEFORE_RPS, AFTER_RPS = 40.0, 120.0
BEFORE_S, AFTER_S = 5.0, 12.0
SLO_MS = 200.0
IN_SLO = 0.99
"""Share of requests that must be answered within the SLO."""

WINDOW_S = 1.0
"""Seconds in which this share is counted."""

VARIANTS = {"large": 1.0, "small": 0.95}
"""Variants of both tasks, with their accuracies."""

PROFILES = ProfileTable(
    system.profile(BOARD, task, variant, 1, ms, 1000 / ms)
    for task in ("detect", "classify")
    for variant, ms in (("large", 16.0), ("small", 4.0))
)
"""Profiles by which a slice carries 50 requests a second with a large variant, and 200 with a small one."""


def wanted(folder: Path, standby: StandbyMode) -> Wanted:
    """Returns the deployment input."""
    graph = system.read_graph(folder, chain(SLO_MS, 0.8, detect=VARIANTS, classify=VARIANTS))
    return Wanted(
        {graph.name: graph},
        {graph.name: BEFORE_RPS},
        {graph.name: PROFILES},
        system.cluster(BOARD),
        latency_model=system.BY_HAND,
        standby=standby,
    )


async def one_burst(
    folder: Path, installation: Installation, standby: StandbyMode, rng: Random, effort: Effort
) -> tuple[float, float]:
    """Deploys, sends the load before and after the jump, and takes everything down.

    Returns:
        Seconds from the jump until requests meet their SLO, and the share of violations after the jump.
    """
    asked = wanted(folder, standby)
    request = client.request("bench", {"X": np.ones((1, 16), np.float32)}, timeout_us=None)
    ports = asked.cluster.gateway
    async with system.system(installation) as running:
        await running.deploy(asked)
        planned = running.controller.state.running
        assert planned is not None
        if (planned.plan.graphs["bench"].standby is None) == (standby == "auto"):
            raise ServerError("the plan does not have the standby variants that this benchmark needs")
        await client.poisson(ports, request, BEFORE_RPS, effort.seconds(BEFORE_S, least_s=2.0), rng)
        outcomes = await client.poisson(ports, request, AFTER_RPS, effort.seconds(AFTER_S, least_s=3.0), rng)
    late = [not in_slo(outcome) for outcome in outcomes]
    return reaction_s(outcomes), sum(late) / len(late)


def in_slo(outcome: Outcome) -> bool:
    """Returns True if a request was answered within the SLO."""
    return outcome.status == OK and outcome.latency_ms <= SLO_MS


def reaction_s(outcomes: Sequence[Outcome]) -> float:
    """Returns the time from which on `IN_SLO` of the requests of `WINDOW_S` meet the SLO; the last time if never."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.due_s)
    for first in ordered:
        window = [outcome for outcome in ordered if first.due_s <= outcome.due_s < first.due_s + WINDOW_S]
        if sum(map(in_slo, window)) >= IN_SLO * len(window):
            return first.due_s
    return ordered[-1].due_s


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures bursts with and without standby variants."""
    installation, rng = find_installation(), Random(1)
    found: dict[StandbyMode, list[tuple[float, float]]] = {"auto": [], "off": []}
    for number in range(effort.rounds):
        for standby, rounds in found.items():
            with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as folder:
                rounds.append(await one_burst(Path(folder), installation, standby, rng, effort))
            progress(f"burst {number + 1}, standby {standby}: SLO met after {rounds[-1][0]:.2f} s")
    return figures(found["auto"], found["off"])


def figures(with_standby: Sequence[tuple[float, float]], without: Sequence[tuple[float, float]]) -> list[Figure]:
    """Computes the figures from (reaction in seconds, share of violations) of each burst."""
    reactions, shares = zip(*with_standby, strict=True)
    later, lost = (median(values) for values in zip(*without, strict=True))
    load = f"from {BEFORE_RPS:g} to {AFTER_RPS:g} requests/s; the baseline has no standby variants"
    return [
        figure(
            "controller.burst_reaction_s",
            median(reactions),
            "s",
            f"median of {len(reactions)}, {spread(reactions)}; {IN_SLO:.0%} of a second in their SLO; {load}",
            at_most=1.0,
            baseline=later,
        ),
        figure(
            "controller.burst_violations",
            median(shares),
            "share",
            f"median of {len(shares)}, {spread(shares)}; late or refused in {AFTER_S:g} s after the jump; {load}",
            baseline=lost,
        ),
    ]
