"""Growth of the controller and the gateway over many changes: memory, descriptors, threads, shared memory."""

import asyncio
import os
import time
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

from benchmarks.controller.callers import callers
from benchmarks.controller.replans import TARGETS
from benchmarks.controller.supervised import Supervised, supervised
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.servers.command import shm_prefix

DURATION_S = 600.0
CHANGE_EVERY_S = 60.0
GROWTH_GOAL = 0.02

_SAMPLE_S = 1.0
_SHM = Path("/dev/shm")
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources in use.

    Attributes:
        controller_mib: Resident memory of the controller.
        gateway_mib: Resident memory of the gateway.
        descriptors: Open files of both.
        threads: Threads of both.
        shm_mib: Size of the gateway's regions in /dev/shm.
    """

    controller_mib: float
    gateway_mib: float
    descriptors: float
    threads: float
    shm_mib: float


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Changes to and fro between two plans, each of which serves for a minute at a time."""
    duration_s, every_s = effort.seconds(DURATION_S), effort.seconds(CHANGE_EVERY_S)
    samples: list[list[Usage]] = []
    async with supervised() as running:
        await asyncio.to_thread(running.update, TARGETS[0])
        with callers(running.url) as outcomes:
            began_s = time.monotonic()
            while time.monotonic() < began_s + duration_s or len(samples) < 4:
                next_s = time.monotonic() + every_s
                await asyncio.to_thread(running.update, TARGETS[(len(samples) + 1) % 2])
                samples.append([])
                while time.monotonic() < next_s or not samples[-1]:
                    samples[-1].append(await asyncio.to_thread(_usage, running))
                    await asyncio.sleep(_SAMPLE_S)
                progress(f"soak: change {len(samples)}: {_median(samples[-1])}")
    load = f"{len(samples)} changes in {duration_s:.0f} s, {outcomes.sent} requests, {len(outcomes.failures)} failed"
    return _figures(samples, load)


def _figures(samples: list[list[Usage]], load: str) -> list[Figure]:
    """Compares the last two plans with the second pair, since the first changes fill caches."""
    first, last = (
        _median([*samples[-4], *samples[-3]] if len(samples) < 6 else [*samples[2], *samples[3]]),
        _median([*samples[-2], *samples[-1]]),
    )
    found = []
    for field in fields(Usage):
        before, after = getattr(first, field.name), getattr(last, field.name)
        growth = (after - before) / before if before else after
        note = f"growth of the median from the second pair of plans to the last; baseline: the second pair; {load}"
        found.append(
            figure(f"controller.soak.{field.name}", growth, "share", note, at_most=GROWTH_GOAL, baseline=before)
        )
    return found


def _median(samples: list[Usage]) -> Usage:
    return Usage(*(median(getattr(sample, field.name) for sample in samples) for field in fields(Usage)))


def _usage(running: Supervised) -> Usage:
    controller, gateway = running.controller(), running.servers()["gateway"]
    assert controller is not None
    own = [Path(f"/proc/{pid}") for pid in (controller, gateway)]
    prefix = shm_prefix(running.deployment.paths.run, "gateway")
    regions = [path.stat().st_blocks * 512 for path in _SHM.iterdir() if path.name.startswith(prefix)]
    return Usage(
        _rss_mib(controller),
        _rss_mib(gateway),
        sum(len(list((process / "fd").iterdir())) for process in own),
        sum(len(list((process / "task").iterdir())) for process in own),
        sum(regions) / _MIB,
    )


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB
