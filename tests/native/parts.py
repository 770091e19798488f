"""Python wrapper of parts of the compiled backend's core that tests use without an engine."""

import ctypes
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.native.core import call, take_text

NEVER = 10**15
"""Time that never comes, in microseconds."""


class ServiceTimes:
    """Service times of one model at one worker, in milliseconds."""

    def __init__(self, profile_ms: Mapping[int, float]) -> None:
        self._pointer = call("times_new", json.dumps(profile_ms).encode())

    def __del__(self) -> None:
        call("times_free", self._pointer)

    def add(self, items: int, took_ms: float) -> None:
        """Records the service time of a batch."""
        call("times_add", self._pointer, items, int(took_ms * 1e6))

    def mean(self, items: int) -> float:
        """Expected service time of a batch."""
        return float(call("times_mean", self._pointer, items)) / 1e6

    def high(self, items: int) -> float:
        """Service time that few batches exceed."""
        return float(call("times_high", self._pointer, items)) / 1e6


class BatchDelay:
    """Decision whether a batch waits for more requests. Times are in microseconds."""

    def __init__(self) -> None:
        self._pointer = call("delay_new")

    def __del__(self) -> None:
        call("delay_free", self._pointer)

    def waits(self, at: int, *, longest: int, latest: int = NEVER, results: int | None = None) -> bool:
        """Returns True if the batch waits.

        Args:
            at: Time of the call.
            longest: Longest time that the batch waits.
            latest: Latest end of the wait.
            results: Time at which results of preceding tasks are expected, NEVER if they are not; None if the requests
                come from clients.
        """
        expected = -1 if results is None else 1000 * results
        return bool(call("delay_waits", self._pointer, 1000 * longest, 1000 * latest, expected, 1000 * at))

    def reset(self) -> None:
        """Notes that a batch was sent."""
        call("delay_reset", self._pointer)

    def end(self) -> int | None:
        """Time at which the wait ends at the latest; None if no batch waits."""
        found = int(call("delay_end", self._pointer))
        return found // 1000 if found != 2**64 - 1 else None

    def announce(self, requests: int, at: int) -> None:
        """Notes that requests are on their way."""
        call("delay_announce", self._pointer, requests, 1000 * at)

    def arrived(self, at: int) -> None:
        """Notes that a request has arrived."""
        call("delay_arrived", self._pointer, 1000 * at)

    def call_ended(self) -> None:
        """Notes that a call of the task has ended."""
        call("delay_call_ended", self._pointer)


class RunningTime:
    """Time as far as an event loop has run, in milliseconds."""

    def __init__(self) -> None:
        self._pointer = call("running_new")

    def __del__(self) -> None:
        call("running_free", self._pointer)

    def step(self, now_ms: float) -> bool:
        """Takes a step of the loop. Returns False if the process was stopped before it."""
        return bool(call("running_step", self._pointer, int(now_ms * 1e6)))

    def at(self, now_ms: float) -> float:
        """Running time at a time after the last step."""
        return int(call("running_at", self._pointer, int(now_ms * 1e6))) / 1e6


class KeptLocks:
    """Locks that are kept after their last user. Times are in milliseconds."""

    def __init__(self) -> None:
        self._pointer = call("locks_new")

    def __del__(self) -> None:
        call("locks_free", self._pointer)

    def users(self, path: Path) -> "Users":
        """Makes the users of a file."""
        return Users(self, call("users_new", self._pointer, str(path).encode()))

    def release(self, now_ms: float) -> float | None:
        """Releases the locks whose time is over. Returns the time of the next call; None for none."""
        found = int(call("locks_release", self._pointer, int(now_ms * 1e6)))
        return found / 1e6 if found != 2**64 - 1 else None

    @property
    def due_ms(self) -> float:
        """Last time at which `release` was to be called."""
        return int(call("locks_due", self._pointer)) / 1e6


class Users:
    """Users of a file that is locked while it has some."""

    def __init__(self, locks: KeptLocks, pointer: int) -> None:
        self._locks = locks  # The reference keeps the locks alive as long as this object.
        self._pointer = pointer

    def __del__(self) -> None:
        call("users_free", self._pointer)

    def add(self, now_ms: float) -> str:
        """Adds a user. Returns `refused`, `added`, or `locked` if this user locked the file."""
        return ("refused", "added", "locked")[call("users_add", self._pointer, int(now_ms * 1e6))]

    def remove(self, now_ms: float) -> None:
        """Removes a user."""
        call("users_remove", self._pointer, int(now_ms * 1e6))


def parse_spec(text: str | bytes) -> dict[str, Any]:
    """Reads a specification: {"tasks", "tensors"} are counts, or {"error"} is the message."""
    return _parsed("parse_spec", text)


def parse_route(text: str | bytes) -> dict[str, Any]:
    """Reads a route: {"entries"} is a count, or {"error"} is the message."""
    return _parsed("parse_route", text)


def read_answer(data: bytes, sizes: Sequence[int] = (1 << 30,), *, inference: bool = True) -> dict[str, Any]:
    """Reads an HTTP answer whose bytes arrive in pieces of these sizes, which repeat."""
    found = call("read_answer", data, len(data), (ctypes.c_size_t * len(sizes))(*sizes), len(sizes), int(inference))
    answer: dict[str, Any] = json.loads(take_text(found))
    return answer


def _parsed(name: str, text: str | bytes) -> dict[str, Any]:
    data = text if isinstance(text, bytes) else text.encode()
    parsed: dict[str, Any] = json.loads(take_text(call(name, data, len(data))))
    return parsed
