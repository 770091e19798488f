"""Workers, routes and requests of several generations."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.core import Array, Front, Outcome, Request
from tests.native.draining import drain
from tests.native.specs import entry, spec, task
from tests.native.worker import Call, Worker
from tests.waiting import WAIT_LIMIT_S

COLUMN = ("INT64", (-1, 1))

LONGER_THAN_KEPT_S = 0.05
"""Seconds after which a lock that is not free belongs to a request: without one it is kept for 10 ms at most."""


def worker(bench: Bench, name: str, generation: int) -> Worker:
    """Starts a worker that returns the number of its generation as every output, after a short random time."""
    order = np.random.default_rng(generation)

    def handler(call: Call) -> dict[str, Array]:
        time.sleep(order.random() / 1000)
        return {output: np.full((call.items, 1), generation, np.int64) for output in call.outputs}

    return bench.worker(name, handler)


def route(bench: Bench, *entries: dict[str, Any], name: str = "t") -> None:
    specs.write_route(bench.run_dir, *entries, name=name)


def of(name: str, *generations: int, closed: bool = False, batch: int = 1, **more: Any) -> dict[str, Any]:
    """Entry of a route that may answer requests of these generations."""
    return entry(name, generations=generations, closed=closed, batch=batch, **more)


def lock(bench: Bench, generation: int, timeout_s: float = WAIT_LIMIT_S) -> AbstractContextManager[bool]:
    """Locks a generation as the controller does before it removes the generation."""
    return drain(bench.run_dir / "generations" / f"g.{generation}", timeout_s)


def is_used(bench: Bench, generation: int) -> bool:
    """Returns True if a request is bound to the generation."""
    with lock(bench, generation, timeout_s=LONGER_THAN_KEPT_S) as locked:
        return not locked


def is_unused(bench: Bench, generation: int) -> bool:
    """Waits until no request is bound to the generation. Returns false if it takes too long."""
    with lock(bench, generation) as locked:
        return locked


def rows_front(bench: Bench) -> Front:
    """Front of a task that iterates over the rows of its input."""
    made = task(mode="rows", iterated=["X"])
    # A slow first batch on a busy machine lets later ones seem to take minutes.
    return bench.engine.front(spec([made], {"X": COLUMN}, {"Y": ("t.Y", COLUMN)}, slo_ms=3_600_000.0))


def rows(count: int) -> dict[str, Array]:
    return {"X": np.zeros((1, count, 1), np.int64)}


def generations_of(outcome: Outcome) -> set[int]:
    """Generations whose workers have answered a part of a request."""
    assert outcome.failure is None, outcome.failure
    return {int(value) for array in outcome.outputs.values() for value in array.ravel()}


def chosen(requests: Sequence[Request]) -> set[int]:
    """Generations that have answered requests, each of which was answered by one."""
    found = [generations_of(request.wait()) for request in requests]
    assert all(len(generations) == 1 for generations in found), found
    return set.union(*found)


def bound(front: Front, old: Worker) -> Request:
    """Sends a request of two items, the first of which keeps the worker busy until `old.answering` is set."""
    old.answering.clear()
    request = front.send({"X": column(-1, -1)})
    old.wait(1)
    return request
