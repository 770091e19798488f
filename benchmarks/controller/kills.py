"""Parts of a deployment that die or hang at random moments, some within a change, while clients send.

Each round picks a process (the controller, a worker, the gateway, the process of a model), a moment, and kill -9 or
SIGSTOP. A stopped process goes on after some seconds, or never. Then the deployment settles and is audited.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.controller import audit
from benchmarks.controller.callers import CLIENTS, Tally, callers
from benchmarks.controller.replans import TARGETS
from benchmarks.controller.supervised import Supervised, kill, supervised
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.servers.process import python_stubs

KILLS = 100
KINDS = ("controller", "worker", "gateway", "stub")
SEED_VARIABLE, COUNT_VARIABLE = "JIGSAW_BENCH_SEED", "JIGSAW_BENCH_KILLS"
"""Environment variables with the seed, and with the number of kills."""

_CHANGE_S = 5.0
"""Seconds after the begin of a change within which a process dies. Changes take about as long."""

_QUIET_S = 1.0
_SETTLED_ANSWERS = 5
_LONGEST_STOP_S = 8.0


@dataclass(frozen=True, slots=True)
class Death:
    """Plan of one round.

    Attributes:
        kind: One of `KINDS`.
        stopped_s: Seconds for which the process is stopped; infinite if it is never continued; 0 to kill it.
        moment_s: Seconds to wait before.
        within_change: True if a change begins first.
    """

    kind: str
    stopped_s: float
    moment_s: float
    within_change: bool

    def __str__(self) -> str:
        how = f"SIGSTOP for {self.stopped_s:.1f} s" if self.stopped_s else "kill -9"
        when = f"{self.moment_s:.2f} s after the begin of a change" if self.within_change else "while nothing changes"
        return f"{self.kind}: {how}, {when}"


def deaths(count: int, seed: int) -> Iterator[Death]:
    """Yields the rounds."""
    chance = random.Random(seed)
    for _ in range(count):
        kind = chance.choice(KINDS)
        stop = chance.choice((0.0, 0.0, chance.uniform(0.2, _LONGEST_STOP_S), float("inf")))
        within = chance.random() < 0.6
        yield Death(kind, stop, chance.uniform(0, _CHANGE_S if within else _QUIET_S), within)


@dataclass(slots=True)
class Result:
    """Counts of all rounds.

    Attributes:
        inconsistent: Description of each inconsistent state.
        outages: Begin and end of each time without a gateway, by the monotonic clock.
        failed_changes: Number of changes that failed, after which the earlier generation served.
        settled_s: Longest time until everything was ready again.
    """

    inconsistent: list[str] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    failed_changes: int = 0
    settled_s: float = 0.0


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Runs all rounds on one deployment."""
    count = int(os.environ.get(COUNT_VARIABLE, 0)) or max(2, effort.count(KILLS))
    seed = int(os.environ.get(SEED_VARIABLE, 1))
    result = Result()
    async with supervised() as running:
        paths = running.deployment.paths
        await asyncio.to_thread(running.update, TARGETS[0])
        with callers(running.url) as tally:
            for number, death in enumerate(deaths(count, seed), 1):
                await _round(running, death, number, tally, result, progress)
        lost = tally.lost(result.outages)
        for failure in lost[:20]:
            progress(f"lost: {failure}")
        for wrong in tally.wrong[:20]:
            progress(f"wrong: {wrong}")
        await asyncio.to_thread(running.deployment.down)
        result.inconsistent += [f"after down: {sentence}" for sentence in audit.remains(paths)]
    note = (
        f"{count} deaths, seed {seed}; {len(result.outages)} of the gateway; {result.failed_changes} changes failed; "
        f"at most {result.settled_s:.0f} s until all was ready"
    )
    load = f"of {tally.sent} requests of {CLIENTS} gRPC clients that reconnect"
    name = f"controller.kills_{count}"
    in_flight = len(tally.failures) - len(lost)
    return [
        figure(f"{name}.inconsistent", len(result.inconsistent), "states", note, at_most=0),
        figure(f"{name}.wrong", len(tally.wrong), "answers", load, at_most=0),
        figure(
            f"{name}.lost", len(lost), "requests", f"{load}, beyond {in_flight} in flight in dead gateways", at_most=0
        ),
    ]


async def _round(
    running: Supervised, death: Death, number: int, tally: Tally, result: Result, progress: Progress
) -> None:
    target = TARGETS[number % len(TARGETS)]
    change = asyncio.create_task(asyncio.to_thread(running.update, target)) if death.within_change else None
    await asyncio.sleep(death.moment_s)
    before = await asyncio.to_thread(running.servers)
    victim, name = await asyncio.to_thread(_victim, running, death.kind, random.Random(number))
    began_s = time.monotonic()
    if victim is not None:
        await _die(victim, death)
    error = ""
    progress(f"round {number}, {death} ({name})")
    if change is not None:
        try:
            await change
        except JigsawError as failure:
            error = f"; the change failed: {failure}"
            result.failed_changes += 1
    problems: list[str] = []
    try:
        await running.wait(lambda: running.is_settled() and not _lives(victim, death), "ready")
    except JigsawError as failure:
        problems.append(str(failure))
    took_s = time.monotonic() - began_s
    result.settled_s = max(result.settled_s, took_s)
    after = await asyncio.to_thread(running.servers)
    if before.get("gateway") != after.get("gateway"):
        result.outages.append((began_s, time.monotonic()))
    problems += await audit.inconsistencies(running)
    problems += await _unanswered(tally)
    progress(f"  settled after {took_s:.1f} s{error}")
    for problem in problems:
        progress(f"  inconsistent: {problem}")
    if problems:
        result.inconsistent.append(f"round {number}: {'; '.join(problems)}")
        for line in await asyncio.to_thread(running.events):
            progress(f"    {line}")


def _victim(running: Supervised, kind: str, chance: random.Random) -> tuple[int | None, str]:
    """Returns a process of a kind, and its name; None if there is none at the moment."""
    servers = running.servers()
    workers = {name: pid for name, pid in sorted(servers.items()) if name != "gateway"}
    match kind:
        case "controller":
            return running.controller(), kind
        case "gateway":
            return servers.get("gateway"), kind
        case "worker":
            candidates = {pid: name for name, pid in workers.items()}
        case _:
            stubs = python_stubs(set(workers.values()))
            candidates = {pid: stub.model for pid, stub in sorted(stubs.items()) if stub.status is None}
    if not candidates:
        return None, "none runs"
    victim = chance.choice(list(candidates))
    return victim, candidates[victim]


async def _die(victim: int, death: Death) -> None:
    if not death.stopped_s:
        kill(victim, signal.SIGKILL)
        return
    kill(victim, signal.SIGSTOP)
    if death.stopped_s != float("inf"):
        await asyncio.sleep(death.stopped_s)
        kill(victim, signal.SIGCONT)


def _lives(victim: int | None, death: Death) -> bool:
    """True if a process that was stopped for ever still exists: nobody has replaced it."""
    return victim is not None and death.stopped_s == float("inf") and kill(victim, 0)


async def _unanswered(tally: Tally) -> list[str]:
    """Checks that requests which are sent from now on are answered."""
    now_s = time.monotonic()
    for _ in range(100):
        if tally.answered_s[0] > now_s:
            return []
        await asyncio.sleep(0.1)
    return ["no request is answered"]
