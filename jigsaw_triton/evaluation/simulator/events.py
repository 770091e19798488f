"""Event-by-event simulation of a system over a trace: each request, each batch, and each replica that comes or goes.

It gives the error of the fluid accounting (`accounting.py`). The system's decisions depend on the arrivals of whole
seconds alone, so they are the same in both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jigsaw_triton.evaluation.simulator.accounting import Array, Replica, System
from jigsaw_triton.evaluation.simulator.simulate import simulate
from jigsaw_triton.evaluation.simulator.station import Servers
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileTable


@dataclass(frozen=True, slots=True)
class _Service:
    """Time during which a replica is in service."""

    replica: Replica
    from_s: float
    until_s: float


def event_violations(
    system: System,
    graphs: Mapping[str, TaskGraph],
    profiles: Mapping[str, ProfileTable],
    arrivals: Mapping[str, Array],
    *,
    seed: int = 0,
) -> float:
    """Returns the share of requests that are late or refused.

    Args:
        system: System that serves and has not been simulated yet.
        graphs: Graphs of the system, by name.
        profiles: Profiles, by graph.
        arrivals: Graph -> requests in each second, arrays of equal length.
        seed: Seed of the random numbers.
    """
    start_s = system.now_s
    services = _services(system, arrivals)
    sent = missed = 0
    for number, (name, counts) in enumerate(sorted(arrivals.items())):
        arrivals_s = start_s + _moments(counts, np.random.default_rng((seed, number)))
        times = service_times(profiles[name])
        stations = {
            task: tuple(
                Servers(s.replica.key.variant, s.replica.key.instances, times[s.replica.key], s.from_s, s.until_s)
                for s in services
                if (s.replica.graph, s.replica.key.task) == (name, task)
            )
            for task in graphs[name].tasks
        }
        sent += len(arrivals_s)
        if all(stations.values()):
            found = simulate(graphs[name], stations, arrivals_s, seed=seed, drops=True)
            missed += int((found.latency_ms > graphs[name].slo.latency_ms).sum())
        else:
            missed += len(arrivals_s)
    return missed / sent if sent else 0.0


def _services(system: System, arrivals: Mapping[str, Array]) -> list[_Service]:
    """Simulates the system and returns when each replica was in service."""
    start_s = system.now_s
    since = dict.fromkeys(system.replicas(), start_s)
    found: list[_Service] = []

    def note() -> None:
        now = system.replicas()
        for replica in since.keys() - now:
            found.append(_Service(replica, since.pop(replica), system.now_s))
        for replica in now - since.keys():
            since[replica] = system.now_s

    for second in range(len(next(iter(arrivals.values())))):
        end_s = start_s + second + 1
        arrived = {name: float(counts[second]) for name, counts in arrivals.items()}
        system.begin_second(arrived)
        while system.now_s < end_s:
            due = system.next_s <= end_s
            system.advance(min(end_s, system.next_s))
            if due:
                note()
        system.tick(arrived)
    return [*found, *(_Service(replica, from_s, math.inf) for replica, from_s in since.items())]


def _moments(counts: Array, rng: np.random.Generator) -> Array:
    """Returns the arrival times of requests, spread at random over each second. Fractions are rounded at random."""
    whole = np.floor(counts + rng.random(len(counts))).astype(np.int64)
    seconds = np.repeat(np.arange(len(counts)), whole)
    return np.sort(seconds + rng.random(len(seconds)))
