"""Traces: what became of single requests at each task, a line of JSON each, for requests that bring an id.

A front writes a `Hop` for each task of some of the requests that have an id (`native/core/trace.h`). It tells their ids
to the worker with the token of the call (`tokens.CallId`), and the worker's model writes a `Run`. The files are small
and begin anew when they are full.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = "traces"
"""Folder in the run directory: `gateway/<route>.jsonl` and `workers/<worker>/<model instance>.jsonl`."""

GATEWAY, WORKERS = "gateway", "workers"

FILE_BYTES = 256 * 1024
"""Size from which on a file begins anew; the one before it is kept."""


@dataclass(frozen=True, slots=True)
class Call:
    """A batch that took items of the request to a worker. Times count from when its first items left the task's queue.

    Attributes:
        worker: Name of the worker.
        model: Name of the model on the worker.
        variant: Variant of the task.
        items: Items of the request in the batch.
        batch: Items of all requests in the batch.
        sent_ms: Time at which it began to be sent.
        ended_ms: Time at which its answer was there, or the worker was known to have failed.
        outcome: `answered`, `refused` (by the worker) or `failed` (the worker did).
        again: Whether its items were sent before.
        number: Token of the call.
    """

    worker: str
    model: str
    variant: str
    items: int
    batch: int
    sent_ms: float
    ended_ms: float
    outcome: str
    again: bool = False
    number: int = 0


@dataclass(frozen=True, slots=True)
class Hop:
    """A request's stay at a task or a python step.

    Attributes:
        request: Id that the client gave.
        graph: Name of the graph.
        task: Name of the task, the step, or a chain of tasks.
        route: Name of the task's route.
        taken_s: Time at which its first items left the task's queue, in seconds since 1970.
        waited_ms: Time in the queue before.
        returned_ms: Time from then until its answer.
        outcome: `answered`, `late`, `code` (a python step's failed), or the blame of its failure (`outcome.Blame`).
        message: Text of the failure.
        calls: Calls of workers in the order in which they ended.
    """

    request: str
    graph: str
    task: str
    route: str
    taken_s: float
    waited_ms: float
    returned_ms: float
    outcome: str
    message: str
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A batch at the model of a worker.

    Attributes:
        ids: Ids of the traced requests that have items in it.
        tokens: Tokens of the calls that brought them.
        worker: Name of the worker.
        model: Name of the model.
        began_s: Time at which it began, in seconds since 1970.
        took_ms: Time from then until its answer.
        items: Items in the batch, those of requests without an id included.
    """

    ids: tuple[str, ...]
    tokens: tuple[int, ...]
    worker: str
    model: str
    began_s: float
    took_ms: float
    items: int


class TraceFile:
    """Where one model instance writes.

    Args:
        path: Path of the file; made with its first line, folder included.
        limit_bytes: Size from which on it is begun anew; the one before is kept as `<path>.1`.
    """

    def __init__(self, path: Path, limit_bytes: int = FILE_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes

    def write(self, *records: Hop | Run) -> None:
        """Appends a line each. A disk that is full loses them and nothing else."""
        text = "".join(json.dumps(asdict(record), separators=(",", ":")) + "\n" for record in records)
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, text.encode())
                full = os.fstat(descriptor).st_size >= self._limit_bytes
            finally:
                os.close(descriptor)
            if full:
                self._path.replace(f"{self._path}.1")


def hop_from_json(line: str) -> Hop:
    """Reads a line that a front wrote.

    Raises:
        ValueError: It is none: half a line, or of another release.
    """
    data = _object(line)
    try:
        return Hop(**{**data, "calls": tuple(Call(**call) for call in data["calls"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a hop: {error}") from error


def run_from_json(line: str) -> Run:
    """Reads a line that a worker's model wrote.

    Raises:
        ValueError: It is none.
    """
    data = _object(line)
    try:
        return Run(**{**data, "ids": tuple(data["ids"]), "tokens": tuple(data["tokens"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a run: {error}") from error


def _object(line: str) -> dict[str, Any]:
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("not an object")
    return data
