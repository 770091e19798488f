"""Simulates the queue of one task and the instances that serve it."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.profiles.service import ServiceTime

Array = NDArray[np.float64]

_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Servers:
    """Identical instances.

    Attributes:
        variant: Variant of the task.
        instances: Number of instances in all replicas.
        time: Service time of a batch.
        from_s: Time at which they begin to serve.
        until_s: Time from which they take no more items. They complete the batches that have begun.
    """

    variant: str
    instances: int
    time: ServiceTime
    from_s: float = -1.0
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Served:
    """Results for the items of one queue.

    Attributes:
        finish_s: Completion time of each item's batch; infinite for an item that was dropped.
        by: Index of the `Servers` that served each item, or that were free when it was dropped.
        batches: Number of batches.
        busy_s: Busy time of each `Servers`, summed over its instances.
    """

    finish_s: Array
    by: NDArray[np.int64]
    batches: int
    busy_s: Array


def serve(
    arrivals_s: Array, servers: Sequence[Servers], rng: np.random.Generator, deadlines_s: Array | None = None
) -> Served:
    """Serves items in the order of their arrival.

    An instance that is or becomes idle takes the waiting items, up to its batch size, and never waits for more. Among
    idle instances, the one that has been idle longest goes first. Profiles are measured with all instances of a slice
    busy, so real instances are faster than simulated ones while others of their slice are idle.

    Args:
        arrivals_s: Arrival times of the items, ascending.
        servers: Servers of the queue, at least one.
        rng: Source of randomness.
        deadlines_s: Deadlines of the items. An item that would miss its deadline is dropped when its turn comes, and
            takes no time of an instance. None if no item has a deadline.
    """
    items, count = arrivals_s.tolist(), len(arrivals_s)
    deadlines = deadlines_s.tolist() if deadlines_s is not None else [math.inf] * count
    batch = [s.time.batch for s in servers]
    median_s = [(s.time.medians_ms / 1000).tolist() for s in servers]
    rest = [s.time.rest for s in servers]
    draws = [_draws(s.time, child) for s, child in zip(servers, rng.spawn(len(servers)), strict=True)]
    # Each entry: the time at which an instance becomes idle, and the index of its `Servers`.
    idle = [(s.from_s, kind) for kind, s in enumerate(servers) for _ in range(s.instances)]
    until = [s.until_s for s in servers]
    heapify(idle)
    ends: list[int] = []
    kinds: list[int] = []
    finish: list[float] = []
    busy_s = [0.0] * len(servers)
    head = 0
    while head < count and idle:
        free, kind = idle[0]
        start = items[head]
        if free > start:
            start = free
        if start >= until[kind]:
            heappop(idle)
            continue
        end = head + 1
        if batch[kind] > 1:
            end = bisect_right(items, start, end, min(head + batch[kind], count))
        median = median_s[kind][end - head]
        if start + median > deadlines[head]:
            head += 1
            ends.append(head)
            kinds.append(kind)
            finish.append(math.inf)
            continue
        done = start + median * next(draws[kind])
        free = done + median * rest[kind]
        busy_s[kind] += free - start
        heapreplace(idle, (free, kind))
        ends.append(end)
        kinds.append(kind)
        finish.append(done)
        head = end
    if head < count:
        ends.append(count)
        kinds.append(0)
        finish.append(math.inf)
    sizes = np.diff(np.array(ends, np.int64), prepend=0)
    return Served(
        finish_s=np.repeat(np.array(finish, np.float64), sizes),
        by=np.repeat(np.array(kinds, np.int64), sizes),
        batches=len(finish) - finish.count(math.inf),
        busy_s=np.array(busy_s),
    )


def _draws(time: ServiceTime, rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from time.factors(rng.standard_normal(_CHUNK)).tolist()
