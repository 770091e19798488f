"""Traces of single requests: one line of JSON for each task that such a request passes.

A front writes a `Hop` for each task of some of the requests that have an id, and of those that are sampled for
OpenTelemetry (`native/core/trace.h`). It sends their ids to the worker with the token of the call (`tokens.CallId`),
and the worker's model writes a `Run`. The response to a sampled request is a `Response`. The files are small and are
rotated when they are full.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = "traces"
"""Folder in the run directory that contains `gateway/<route>.jsonl`, `gateway/requests/<graph>.jsonl` and
`workers/<worker>/<model instance>.jsonl`."""

GATEWAY, WORKERS = "gateway", "workers"

REQUESTS = "requests"

SHARE_FILE = "traced_share"
"""File in the run directory with the share of the requests to sample; there is none if no traces are exported."""

EXPORT_FILE = "exported_traces.json"
"""File in the run directory with the counters of the process that exports traces."""

FILE_BYTES = 256 * 1024
"""Size in bytes at which a file is rotated; one earlier file is kept."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Place of a sampled request in W3C's trace context. Ids are lower-case hexadecimal digits.

    Attributes:
        id: Id of the trace, 32 digits.
        span: Span of the request at the gateway, 16 digits.
        parent: Span of the client, 16 digits; empty if it sent none.
        state: State of the trace that the client sent, the header `tracestate`; empty for none.
    """

    id: str
    span: str
    parent: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a worker with a batch that contains items of the request.

    Times are relative to the moment at which the request's first items left the task's queue.

    Attributes:
        worker: Name of the worker.
        model: Name of the model on the worker.
        variant: Variant of the task.
        items: Number of items of the request in the batch.
        batch: Number of items of all requests in the batch.
        sent_ms: Time at which the front started to send the call.
        ended_ms: Time at which the answer was complete, or the worker was known to have failed.
        outcome: `answered`, `refused` (by the worker) or `failed` (if the worker failed).
        again: True if its items had been sent before.
        number: Token of the call.
        span: Span of the call, which the worker gets as its parent; empty if the request is not sampled.
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
    span: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """The passage of a request through a task or a Python step.

    Attributes:
        request: Id that the client gave, or else the id of the trace.
        graph: Name of the graph.
        task: Name of the task, the step, or a chain of tasks.
        route: Name of the task's route.
        taken_s: Time at which its first items left the task's queue, in seconds since 1970.
        waited_ms: Time that they had spent in the queue.
        returned_ms: Time from `taken_s` until the answer.
        outcome: `answered`, `late`, `code` (if a Python step's code failed), or the blame of its failure
            (`outcome.Blame`).
        message: Text of the failure.
        calls: Calls of workers, in the order in which they ended.
        trace: Context of the request; None if it is not sampled.
        partial: True if the front has only this task of its graph, so that no `Response` follows.
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
    trace: TraceContext | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a sampled request. Graphs that are compiled to ensembles or BLS have none.

    Attributes:
        request: Id that the client gave; empty for none.
        graph: Name of the graph.
        model: Name of the model that the client called.
        arrived_s: Time of arrival at the gateway, in seconds since 1970.
        took_ms: Time until the response was sent.
        items: Number of items in the client's batch.
        outcome: `answered`, or the blame of the failure (`outcome.Blame`).
        message: Text of the failure.
        trace: Context of the request.
    """

    request: str
    graph: str
    model: str
    arrived_s: float
    took_ms: float
    items: int
    outcome: str
    message: str
    trace: TraceContext


@dataclass(frozen=True, slots=True)
class Run:
    """An execution of a batch by the model of a worker.

    Attributes:
        ids: Ids of the traced requests with items in the batch.
        tokens: Tokens of the calls that contained these items.
        worker: Name of the worker.
        model: Name of the model.
        began_s: Start of the execution, in seconds since 1970.
        took_ms: Duration of the execution.
        items: Number of items in the batch, including those of requests without an id.
    """

    ids: tuple[str, ...]
    tokens: tuple[int, ...]
    worker: str
    model: str
    began_s: float
    took_ms: float
    items: int


class TraceFile:
    """The trace file of one model instance.

    Args:
        path: Path of the file, which is created with its folder when the first line is written.
        limit_bytes: Size at which the file is rotated to `<path>.1`.
    """

    def __init__(self, path: Path, limit_bytes: int = FILE_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes

    def write(self, *records: Hop | Response | Run) -> None:
        """Appends a line for each record. If the disk is full, the records are lost without an error."""
        self.append(json.dumps(asdict(record), separators=(",", ":")) for record in records)

    def append(self, lines: Iterable[str]) -> None:
        """Appends lines, which have no ends. If the disk is full, they are lost without an error."""
        text = "".join(f"{line}\n" for line in lines)
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
        ValueError: The line is not a hop: it is truncated, or another release wrote it.
    """
    data = _object(line)
    try:
        context = data.get("trace")
        trace = TraceContext(**context) if context is not None else None
        return Hop(**{**data, "calls": tuple(Call(**call) for call in data["calls"]), "trace": trace})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a hop: {error}") from error


def response_from_json(line: str) -> Response:
    """Reads a line that a front wrote about a response.

    Raises:
        ValueError: The line is not a response.
    """
    data = _object(line)
    try:
        return Response(**{**data, "trace": TraceContext(**data["trace"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a response: {error}") from error


def run_from_json(line: str) -> Run:
    """Reads a line that a worker's model wrote.

    Raises:
        ValueError: The line is not a run.
    """
    data = _object(line)
    try:
        return Run(**{**data, "ids": tuple(data["ids"]), "tokens": tuple(data["tokens"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a run: {error}") from error


def _object(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("not an object")
    return data
