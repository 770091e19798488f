"""One task's queue and the instances that pull from it."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.profiles.service import ServiceTime

Array = NDArray[np.float64]

_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Servers:
    """Instances that are alike.

    Attributes:
        variant: Of the task.
        instances: How many, in all replicas.
        time: For a batch.
    """

    variant: str
    instances: int
    time: ServiceTime


@dataclass(frozen=True, slots=True)
class Served:
    """What became of the items of one queue.

    Attributes:
        finish_s: Item -> when its batch was done.
        by: Item -> index of the `Servers` that took it.
        batches: How many there were.
        busy_s: Index of `Servers` -> time that all its instances together were occupied.
    """

    finish_s: Array
    by: NDArray[np.int64]
    batches: int
    busy_s: Array


def serve(arrivals_s: Array, servers: Sequence[Servers], rng: np.random.Generator) -> Served:
    """Runs items through instances, first come first served.

    An instance that is idle, or becomes so, takes what waits, up to its batch, and never waits for more. Of several
    idle ones the one that has been so for longest takes it. Profiles are of all instances of a slice busy: where some
    are idle, the others are in fact quicker than here.

    Args:
        arrivals_s: Ascending.
        servers: At least one.
        rng: Source of randomness.
    """
    items, count = arrivals_s.tolist(), len(arrivals_s)
    batch = [s.time.batch for s in servers]
    median_s = [(s.time.medians_ms / 1000).tolist() for s in servers]
    rest = [s.time.rest for s in servers]
    draws = [_draws(s.time, child) for s, child in zip(servers, rng.spawn(len(servers)), strict=True)]
    # (when it is free, which kind it is)
    idle = [(-1.0, kind) for kind, s in enumerate(servers) for _ in range(s.instances)]
    heapify(idle)
    ends: list[int] = []
    kinds: list[int] = []
    finish: list[float] = []
    busy_s = [0.0] * len(servers)
    head = 0
    while head < count:
        free, kind = idle[0]
        start = items[head]
        if free > start:
            start = free
        end = head + 1
        if batch[kind] > 1:
            end = bisect_right(items, start, end, min(head + batch[kind], count))
        median = median_s[kind][end - head]
        done = start + median * next(draws[kind])
        free = done + median * rest[kind]
        busy_s[kind] += free - start
        heapreplace(idle, (free, kind))
        ends.append(end)
        kinds.append(kind)
        finish.append(done)
        head = end
    sizes = np.diff(np.array(ends, np.int64), prepend=0)
    return Served(
        finish_s=np.repeat(np.array(finish, np.float64), sizes),
        by=np.repeat(np.array(kinds, np.int64), sizes),
        batches=len(ends),
        busy_s=np.array(busy_s),
    )


def _draws(time: ServiceTime, rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from time.factors(rng.standard_normal(_CHUNK)).tolist()
