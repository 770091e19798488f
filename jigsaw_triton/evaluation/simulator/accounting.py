"""Accounting of a simulated system over a trace: requests, violations, slices and accuracy in each second.

The simulation is fluid: between two events of the system, requests arrive at a constant rate, and the system answers a
constant part of them on time. All others are violations: they are late or refused. Every system that is compared is
accounted for in this way.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.profiles.table import ProfileKey

Array = NDArray[np.float64]

NEVER_S = math.inf
"""Time of an event that is not due."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the plan during a simulation.

    Attributes:
        at_s: Time of its beginning, in seconds since the start of the trace.
        seconds: Duration from the decision to the end of its last stage.
        generation: Number of the generation.
        reason: Cause of the change.
        slices: Compute slices of the new plan.
        failure: Reason why the change failed; empty if it succeeded.
    """

    at_s: float
    seconds: float
    generation: int
    reason: str
    slices: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """Result of a simulation.

    Attributes:
        arrived: Graph -> requests in each second, arrays of shape [seconds].
        violations: Graph -> expected number of requests in each second that were late or refused.
        capacity_rps: Graph -> mean capacity in each second.
        accuracy: Graph -> accuracy of the running plan in each second.
        slices: Compute slices in use in each second.
        changes: Changes of the plan, in order.
    """

    arrived: Mapping[str, Array]
    violations: Mapping[str, Array]
    capacity_rps: Mapping[str, Array]
    accuracy: Mapping[str, Array]
    slices: Array
    changes: tuple[Change, ...]

    @property
    def sent(self) -> float:
        """Number of requests."""
        return sum(float(counts.sum()) for counts in self.arrived.values())

    @property
    def violation_share(self) -> float:
        """Share of all requests that were late or refused."""
        missed = sum(float(counts.sum()) for counts in self.violations.values())
        return missed / self.sent if self.sent else 0.0

    def first(self, seconds: int) -> "Operation":
        """Returns the first part of the simulation."""

        def part(by_graph: Mapping[str, Array]) -> dict[str, Array]:
            return {name: values[:seconds] for name, values in by_graph.items()}

        return Operation(
            arrived=part(self.arrived),
            violations=part(self.violations),
            capacity_rps=part(self.capacity_rps),
            accuracy=part(self.accuracy),
            slices=self.slices[:seconds],
            changes=tuple(change for change in self.changes if change.at_s < seconds),
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """Requests that servers answer on time, by load. Beyond the last load the rest is refused.

    Attributes:
        loads_rps: Loads in requests a second, ascending from 0.
        on_time_rps: Function that returns the requests a second answered on time at the load with an index.
        part: Part of the servers that the curve applies to. All rates are multiplied by it.
        most_rps: Largest rate of requests that anything but the servers carries, such as processors that they share.
    """

    loads_rps: tuple[float, ...]
    on_time_rps: Callable[[int], float]
    part: float = 1.0
    most_rps: float = math.inf

    @property
    def capacity_rps(self) -> float:
        """Largest rate of requests answered on time."""
        return min(self.most_rps, self.part * self.on_time_rps(len(self.loads_rps) - 1))

    def violations_rps(self, load_rps: float) -> float:
        """Returns the requests a second that are late or refused at a load."""
        if load_rps > self.most_rps:
            return load_rps - self.most_rps + self.violations_rps(self.most_rps)
        if not self.part:
            return load_rps
        load = load_rps / self.part
        above = bisect_right(self.loads_rps, load)
        if above == len(self.loads_rps):
            return max(0.0, load_rps - self.capacity_rps)
        low, high = self.loads_rps[above - 1 : above + 1]
        before, after = self.on_time_rps(above - 1), self.on_time_rps(above)
        return max(0.0, load_rps - self.part * (before + (after - before) * (load - low) / (high - low)))

    def scaled(self, factor: float) -> "Curve":
        """Returns the curve of servers with this part of the capacity."""
        return replace(self, part=self.part * factor)

    def limited(self, most_rps: float) -> "Curve":
        """Returns the curve of servers that get at most this rate of requests."""
        return replace(self, most_rps=min(self.most_rps, most_rps))


def all_on_time(capacity_rps: float) -> Curve:
    """Returns the curve of servers that answer all requests on time up to a capacity."""
    ends = (0.0, capacity_rps)
    return Curve(ends, ends.__getitem__)


@dataclass(slots=True)
class Queue:
    """Requests of a graph that wait because the load exceeds the capacity. They are served first.

    Attributes:
        wait_s: Seconds that a request can wait and still be on time.
        waiting: Number of requests that wait.
    """

    wait_s: float
    waiting: float = 0.0

    def violations(self, curve: Curve, load_rps: float, seconds: float) -> float:
        """Returns the requests that are late or refused during a time in which nothing changes.

        Args:
            curve: Curve of the servers.
            load_rps: Arrivals in requests a second.
            seconds: Length of the time.
        """
        late = curve.violations_rps(load_rps) * seconds
        if not self.wait_s:
            return late
        excess = (load_rps - curve.capacity_rps) * seconds
        # Requests beyond the capacity wait instead of being late; only the late ones below the capacity remain.
        late -= max(0.0, min(late, excess))
        waiting = max(0.0, self.waiting + excess)
        self.waiting = min(waiting, self.wait_s * curve.capacity_rps)
        return late + waiting - self.waiting


class Replica(NamedTuple):
    """A replica in service.

    Attributes:
        place: Name of its MIG instance.
        graph: Name of the graph.
        key: Configuration.
    """

    place: str
    graph: str
    key: ProfileKey


class System(Protocol):
    """A simulated system: a controller, and servers that exist only as numbers."""

    now_s: float
    """Time up to which the system has been simulated."""

    @property
    def next_s(self) -> float:
        """Time of the next event; infinite if none is due."""

    def advance(self, to_s: float) -> None:
        """Moves the time on and handles all events that are due."""

    def begin_second(self, rates_rps: Mapping[str, float]) -> None:
        """Announces the arrivals of the next second. The system must not use what it cannot know yet."""

    def tick(self, rates_rps: Mapping[str, float]) -> None:
        """Handles the arrivals of the last second."""

    def curves(self) -> Mapping[str, Curve]:
        """Returns the curve of the servers that serve each graph now."""

    def replicas(self) -> frozenset[Replica]:
        """Returns the replicas in service."""

    def slices(self) -> int:
        """Returns the compute slices of all MIG instances."""

    def accuracy(self, graph: str) -> float:
        """Returns the accuracy of the running plan."""

    def changes(self) -> Sequence[Change]:
        """Returns the changes so far, with times on the system's clock."""


def operate(
    system: System,
    arrivals: Mapping[str, Array],
    means: Mapping[str, Array] | None = None,
    progress: Callable[[float], None] = lambda _: None,
    waits_s: Mapping[str, float] | None = None,
) -> Operation:
    """Simulates a system that serves, from now on to the end of the arrivals.

    Args:
        system: System, simulated up to the moment at which it serves.
        arrivals: Graph -> requests in each second, arrays of equal length. The system sees these.
        means: Graph -> mean rate in each second, around which arrivals vary by chance; None if they do not. Curves that
            are measured with random arrivals contain this variation, so they apply to the means.
        progress: Function that receives the share of the trace that has been simulated, once for each of its minutes.
        waits_s: Graph -> seconds that a request can wait for servers beyond their capacity and still be on time; 0 for
            a graph that is not in it, whose excess is refused at once.
    """
    start_s = system.now_s
    queues = {name: Queue((waits_s or {}).get(name, 0.0)) for name in arrivals}
    seconds = len(next(iter(arrivals.values())))
    seen = {name: counts.tolist() for name, counts in arrivals.items()}
    rates = {name: counts.tolist() for name, counts in (means or arrivals).items()}
    # Lists, because each number is written on its own.
    capacity, violations, accuracy = ({name: [0.0] * seconds for name in arrivals} for _ in range(3))
    slices = [0.0] * seconds
    for second in range(seconds):
        end_s = start_s + second + 1
        arrived = {name: counts[second] for name, counts in seen.items()}
        system.begin_second(arrived)
        while system.now_s < end_s:
            until_s = min(end_s, system.next_s)
            part_s = until_s - system.now_s
            if part_s > 0:
                for name, curve in system.curves().items():
                    capacity[name][second] += curve.capacity_rps * part_s
                    violations[name][second] += queues[name].violations(curve, rates[name][second], part_s)
                slices[second] += system.slices() * part_s
            system.advance(until_s)
        for name in arrivals:
            accuracy[name][second] = system.accuracy(name)
        system.tick(arrived)
        if second % 60 == 0:
            progress(second / seconds)
    return Operation(
        arrived=dict(arrivals),
        violations=_arrays(violations),
        capacity_rps=_arrays(capacity),
        accuracy=_arrays(accuracy),
        slices=np.array(slices),
        changes=_since(start_s, system.changes()),
    )


def _arrays(by_graph: Mapping[str, list[float]]) -> dict[str, Array]:
    return {name: np.array(values) for name, values in by_graph.items()}


def _since(start_s: float, changes: Sequence[Change]) -> tuple[Change, ...]:
    """Returns the changes that began after a moment, with times since then."""
    return tuple(replace(change, at_s=change.at_s - start_s) for change in changes if change.at_s >= start_s)
