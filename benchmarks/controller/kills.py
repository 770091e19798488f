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
from benchmarks.controller.callers import CLIENTS, Outcomes, callers
from benchmarks.controller.replans import TARGETS
from benchmarks.controller.supervised import Supervised, kill, supervised
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.servers.os_process import start_time
from jigsaw_triton.servers.process import python_stubs

KILLS = 100
KINDS = ("controller", "worker", "gateway", "stub")
SEED_VARIABLE, COUNT_VARIABLE = "JIGSAW_BENCH_SEED", "JIGSAW_BENCH_KILLS"
"""Environment variables with the seed, and with the number of kills."""

_CHANGE_S = 5.0
"""Seconds after the beginning of a change within which a process dies. Changes take about as long."""

_QUIET_S = 1.0
_SECOND_S = 2.0
"""Seconds after a death within which the second one of a round comes."""

_LONGEST_STOP_S = 8.0


@dataclass(frozen=True, slots=True)
class Death:
    """Plan of one death.

    Attributes:
        kind: One of `KINDS`.
        stopped_s: Seconds for which the process is stopped; infinite if it is never continued; 0 to kill it.
        moment_s: Seconds to wait before, from the beginning of the round.
    """

    kind: str
    stopped_s: float
    moment_s: float

    @property
    def is_deadly(self) -> bool:
        """True if the process must end. One that is stopped for ever is killed by whoever replaces it."""
        return self.stopped_s in (0.0, float("inf"))

    def __str__(self) -> str:
        how = f"SIGSTOP for {self.stopped_s:.1f} s" if self.stopped_s else "kill -9"
        return f"{self.kind}: {how} after {self.moment_s:.2f} s"


@dataclass(frozen=True, slots=True)
class Round:
    """Plan of one round.

    Attributes:
        within_change: True if the round begins with a change.
        deaths: One death, or two in a short time.
    """

    within_change: bool
    deaths: tuple[Death, ...]

    def __str__(self) -> str:
        return f"{'a change; ' if self.within_change else ''}{', '.join(map(str, self.deaths))}"


def rounds(kills: int, seed: int) -> Iterator[Round]:
    """Yields rounds with this number of deaths in all."""
    chance = random.Random(seed)
    while kills > 0:
        within = chance.random() < 0.6
        moment_s = chance.uniform(0, _CHANGE_S if within else _QUIET_S)
        moments_s = [moment_s]
        if kills > 1 and chance.random() < 0.3:
            moments_s.append(moment_s + chance.uniform(0, _SECOND_S))
        stops = [chance.choice((0.0, 0.0, chance.uniform(0.2, _LONGEST_STOP_S), float("inf"))) for _ in moments_s]
        found = (Death(chance.choice(KINDS), stop, moment) for stop, moment in zip(stops, moments_s, strict=True))
        yield Round(within, tuple(found))
        kills -= len(moments_s)


@dataclass(slots=True)
class Result:
    """Counts of a run.

    Attributes:
        inconsistent: Description of each inconsistent state.
        outages: Beginning and end of each time without a gateway, by the monotonic clock.
        failed_changes: Number of changes that failed, after which the earlier generation served.
        settled_s: Longest time until everything was ready again.
    """

    inconsistent: list[str] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    failed_changes: int = 0
    settled_s: float = 0.0


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Runs all rounds on one deployment."""
    count = int(os.environ.get(COUNT_VARIABLE, 0)) or effort.count(KILLS)
    seed = int(os.environ.get(SEED_VARIABLE, 1))
    result = Result()
    async with supervised() as running:
        paths = running.deployment.paths
        await asyncio.to_thread(running.update, TARGETS[0])
        with callers(running.url) as outcomes:
            for number, planned in enumerate(rounds(count, seed), 1):
                await _round(running, planned, number, outcomes, result, progress)
        lost = outcomes.lost(result.outages)
        for failure in lost[:20]:
            progress(f"lost: {failure}")
        for wrong in outcomes.wrong[:20]:
            progress(f"wrong: {wrong}")
        await asyncio.to_thread(running.deployment.down)
        result.inconsistent += [f"after down: {sentence}" for sentence in audit.remains(paths)]
    note = (
        f"{count} deaths, seed {seed}; {len(result.outages)} of the gateway; {result.failed_changes} changes failed; "
        f"at most {result.settled_s:.0f} s until all was ready"
    )
    load = f"of {outcomes.sent} requests of {CLIENTS} gRPC clients that reconnect"
    name = f"controller.kills_{count}"
    in_flight = len(outcomes.failures) - len(lost)
    return [
        figure(f"{name}.inconsistent", len(result.inconsistent), "states", note, at_most=0),
        figure(f"{name}.wrong", len(outcomes.wrong), "answers", load, at_most=0),
        figure(
            f"{name}.lost", len(lost), "requests", f"{load}, beyond {in_flight} in flight in dead gateways", at_most=0
        ),
    ]


async def _round(
    running: Supervised, planned: Round, number: int, outcomes: Outcomes, result: Result, progress: Progress
) -> None:
    target, chance, error = TARGETS[number % len(TARGETS)], random.Random(number), ""
    before = await asyncio.to_thread(running.servers)
    began_s = time.monotonic()
    change = asyncio.create_task(asyncio.to_thread(running.update, target)) if planned.within_change else None
    victims = await asyncio.gather(*(_strike(running, death, chance) for death in planned.deaths))
    struck_s = time.monotonic()
    progress(f"round {number}: {planned} ({', '.join(str(victim) for victim in victims)})")
    if change is not None:
        try:
            await change
        except JigsawError as failure:
            error = f"; the change failed: {failure}"
            result.failed_changes += 1
    problems: list[str] = []
    doomed = [v.pid for v, d in zip(victims, planned.deaths, strict=True) if v and d.is_deadly]
    try:
        await running.wait(lambda: not any(start_time(pid) for pid in doomed), f"the end of {doomed}")
    except JigsawError as failure:
        problems.append(str(failure))
    problems += await audit.inconsistencies(running)
    took_s = time.monotonic() - struck_s
    result.settled_s = max(result.settled_s, took_s)
    after = await asyncio.to_thread(running.servers)
    if before.get("gateway") != after.get("gateway"):
        result.outages.append((began_s, time.monotonic()))
    problems += await _unanswered(outcomes)
    progress(f"  settled after {took_s:.1f} s{error}")
    for problem in problems:
        progress(f"  inconsistent: {problem}")
    if problems:
        result.inconsistent.append(f"round {number}: {'; '.join(problems)}")
        for line in await asyncio.to_thread(running.events):
            progress(f"    {line}")


async def _strike(running: Supervised, death: Death, chance: random.Random) -> "Victim | None":
    """Kills or stops a process. Returns when it is dead, goes on, or is stopped for ever; None if there is none."""
    await asyncio.sleep(death.moment_s)
    victim = await asyncio.to_thread(_victim, running, death.kind, chance)
    if victim is None:
        return None
    kill(victim.pid, signal.SIGSTOP if death.stopped_s else signal.SIGKILL)
    if 0 < death.stopped_s < float("inf"):
        await asyncio.sleep(death.stopped_s)
        kill(victim.pid, signal.SIGCONT)
    return victim


@dataclass(frozen=True, slots=True)
class Victim:
    """A process that is killed or stopped.

    Attributes:
        name: Name of the server or model.
        pid: Process id.
    """

    name: str
    pid: int

    def __str__(self) -> str:
        return f"{self.name} {self.pid}"


def _victim(running: Supervised, kind: str, chance: random.Random) -> Victim | None:
    """Returns a process of a kind; None if there is none at the moment."""
    servers = running.servers()
    workers = {name: pid for name, pid in sorted(servers.items()) if name != "gateway"}
    match kind:
        case "controller":
            pid = running.controller()
            found = [] if pid is None else [Victim(kind, pid)]
        case "gateway":
            found = [Victim(name, pid) for name, pid in servers.items() if name == "gateway"]
        case "worker":
            found = [Victim(name, pid) for name, pid in workers.items()]
        case _:
            stubs = sorted(python_stubs(set(workers.values())).items())
            found = [Victim(stub.model, pid) for pid, stub in stubs if stub.status is None]
    return chance.choice(found) if found else None


async def _unanswered(outcomes: Outcomes) -> list[str]:
    """Checks that requests which are sent from now on are answered."""
    now_s = time.monotonic()
    for _ in range(100):
        if outcomes.answered_s[0] > now_s:
            return []
        await asyncio.sleep(0.1)
    return ["no request is answered"]
