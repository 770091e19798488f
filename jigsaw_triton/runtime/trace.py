"""Traces: what became of single requests at each hop, a line of JSON each, for requests that bring an id.

Triton hands a client's request id on to an ensemble's steps. A front writes a `Hop` of each task for some requests that
have one (`native/core/trace.h`), and tells their ids to the worker, whose model writes a `Run`. The files are small and
begin anew when they are full.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = "traces"
"""In the run directory: `gateway/<model and instance>.jsonl` and `workers/<worker>/<model>.<instance>.jsonl`."""

GATEWAY, WORKERS = "gateway", "workers"

FILE_BYTES = 256 * 1024
"""Of a file; there is one more of what was written before it."""

_BETWEEN, _NUMBER = ",", "#"


@dataclass(frozen=True, slots=True)
class Call:
    """A batch that took items of the request to a worker. Times are from when the dispatcher took the request.

    Attributes:
        worker: Its name.
        model: On the worker.
        variant: Of the task.
        items: Of the request.
        batch: Of all requests.
        sent_ms: When it began to be sent.
        ended_ms: When its answer was there, or the worker known to have failed.
        outcome: `answered`, `refused` or `failed`, as of `trips.Outcome`.
        again: Whether they were sent before.
        number: Counted from 1 among those of the dispatcher's batch, in the order in which they were sent.
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
    """A request's stay at a dispatcher, or in the code of a python step.

    Attributes:
        request: The client's id.
        graph: Name.
        task: Likewise.
        dispatcher: Model name at the gateway; of a python step the pipeline's.
        taken_s: When it was taken from the queue, in seconds since 1970.
        waited_ms: In the queue before, estimated.
        returned_ms: From then until its answer.
        requests: Taken from the queue with it, itself among them.
        outcome: `answered`, `late`, `code`, or the blame of its failure (`batches.Blame`).
        message: Of the failure.
        calls: In the order in which they ended.
        code: The file, of a python step.
    """

    request: str
    graph: str
    task: str
    dispatcher: str
    taken_s: float
    waited_ms: float
    returned_ms: float
    requests: int
    outcome: str
    message: str
    calls: tuple[Call, ...]
    code: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A batch at the model of a worker.

    Attributes:
        ids: Those that came with it, as of `id_for_worker`.
        worker: Name.
        model: Name.
        began_s: Since 1970.
        took_ms: From then until its answer.
        items: In the batch, those of requests without an id included.
    """

    ids: tuple[str, ...]
    worker: str
    model: str
    began_s: float
    took_ms: float
    items: int


class TraceFile:
    """Where one model instance writes.

    Args:
        path: Made with its first line, folder included.
        limit_bytes: From which on it is begun anew; the one before is kept as `<path>.1`.
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


def is_of(told: str, request: str, number: int) -> bool:
    """Whether an id at a worker is that of a request's call of this number."""
    names, _, end = told.rpartition(_NUMBER)
    return end == str(number) and set(names.split(_BETWEEN)).issuperset(request.split(_BETWEEN))


def hop_from_json(line: str) -> Hop:
    """Reads a line of a dispatcher's.

    Raises:
        ValueError: It is none: half a line, or of another release.
    """
    data = _object(line)
    try:
        return Hop(**{**data, "calls": tuple(Call(**call) for call in data["calls"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a hop: {error}") from error


def run_from_json(line: str) -> Run:
    """Reads a line of a worker's model.

    Raises:
        ValueError: It is none.
    """
    data = _object(line)
    try:
        return Run(**{**data, "ids": tuple(data["ids"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a run: {error}") from error


def _object(line: str) -> dict[str, Any]:
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("not an object")
    return data
