"""Fake worker: serves Triton's HTTP inference protocol on a Unix socket, and fails as its handler says."""

import contextlib
import json
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jigsaw_triton.runtime.dtypes import to_triton
from tests.native.core import Array, from_bytes, to_bytes
from tests.waiting import WAIT_LIMIT_S

SECRET = "open-sesame-0123456789"
"""Secret that an order to register shared memory must carry."""

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Call:
    """An inference request as it arrived.

    Attributes:
        model: Name of the model.
        inputs: Value of each input.
        outputs: Names of the requested outputs.
        shared: Names of inputs and outputs in shared memory.
        ids: Ids of the traced requests.
        number: Number of the call, which is also its token.
        connection: Number of the connection at this worker.
        traceparent: Context of a sampled request in the call; empty for none.
        tracestate: State of its trace; empty for none.
    """

    model: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    shared: frozenset[str]
    ids: tuple[str, ...]
    number: int
    connection: int
    traceparent: str = ""
    tracestate: str = ""
    _places: dict[str, memoryview] = field(default_factory=dict, repr=False)

    @property
    def items(self) -> int:
        """Number of items."""
        return len(next(iter(self.inputs.values())))

    def token(self) -> Array:
        """Output that proves that an answer belongs to the call."""
        return np.full((self.items, 1), self.number, np.int64)

    def answer(self, outputs: dict[str, Array]) -> bytes:
        """Encodes a successful answer; writes tensors to shared memory if the call requests it."""
        described, data = [], []
        for name, array in outputs.items():
            item: dict[str, Any] = {
                "name": name,
                "datatype": to_triton(array.dtype),
                "shape": list(array.shape),
            }
            part = to_bytes(array)
            if name in self._places:
                self._places[name][: len(part)] = part
            else:
                item["parameters"] = {"binary_data_size": len(part)}
                data.append(part)
            described.append(item)
        return good(described, b"".join(data))


class Refuse(Exception):
    """Makes the worker answer with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class HangUp(Exception):
    """Makes the worker close the connection without an answer."""


Answer = dict[str, Array] | bytes | Iterator[bytes]
Handler = Callable[[Call], Answer]
"""Function that returns outputs, or the bytes of an answer, whole or in pieces. May raise Refuse or HangUp."""


class Worker:
    """A worker that serves until the `with` block ends or `kill` is called."""

    def __init__(self, run_dir: Path, name: str, handler: Handler) -> None:
        self.name = name
        self.path = run_dir / "workers" / f"{name}.sock"
        self.handler = handler
        self.calls: list[Call] = []
        self.connections = 0
        self.regions: dict[str, memoryview] = {}
        self.region_requests: list[tuple[str, str]] = []
        """Verb and region name of each request to register or unregister shared memory."""
        self.secret = SECRET
        self.answering = threading.Event()
        """Event that must be set for requests to be answered; they are read in any case."""
        self.answering.set()
        self.max_concurrent = 0
        """Maximum number of calls in flight at the same time."""
        self._in_flight = 0
        self._changed = threading.Condition()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._maps: list[mmap.mmap] = []

    def __enter__(self) -> "Worker":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(512)
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for thread in self._threads:
            thread.join(WAIT_LIMIT_S)
            assert not thread.is_alive()

    def kill(self) -> None:
        """Closes all sockets immediately, as the kernel does for a process that dies."""
        self.answering.set()
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def wait(self, calls: int) -> None:
        """Waits until this number of calls has arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= calls, WAIT_LIMIT_S)

    @property
    def batches(self) -> list[int]:
        """Number of items of each call."""
        return [call.items for call in self.calls]

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            number = self.connections
            self._spawn(lambda connection=connection, number=number: self._serve(connection, number))  # type: ignore[misc]

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as file, contextlib.suppress(HangUp, OSError, ValueError):
            while got := read_message(file.readline, file.read):
                for piece in self._respond(*got, number):
                    connection.sendall(piece)

    def _respond(self, path: Sequence[str], fields: dict[str, str], body: bytes, connection: int) -> Iterator[bytes]:
        if "systemsharedmemory" in path:
            yield self._change_region(path[-2], path[-1], fields, json.loads(body))
            return
        try:
            call = self._read(path, fields, body, connection)
        except KeyError as error:
            yield bad(400, f"Unable to find shared memory region: {error}")
            return
        with self._changed:
            self.calls.append(call)
            self._in_flight += 1
            self.max_concurrent = max(self.max_concurrent, self._in_flight)
            self._changed.notify_all()
        try:
            self.answering.wait()
            answer = self.handler(call)
        except Refuse as error:
            answer = bad(error.status, error.message)
        finally:
            with self._changed:
                self._in_flight -= 1
        if isinstance(answer, dict):
            yield call.answer(answer)
        elif isinstance(answer, bytes):
            yield answer
        else:
            yield from answer

    def _read(self, path: Sequence[str], fields: dict[str, str], body: bytes, connection: int) -> Call:
        at = int(fields["inference-header-content-length"])
        head = json.loads(body[:at])
        inputs, shared, places = {}, set(), {}
        for item in head["inputs"]:
            parameters = item["parameters"]
            if "shared_memory_region" in parameters:
                data = bytes(self._span(parameters))
                shared.add(item["name"])
            else:
                data = body[at : at + parameters["binary_data_size"]]
                at += len(data)
            inputs[item["name"]] = from_bytes(item["datatype"], item["shape"], data)
        assert at == len(body)
        for item in head["outputs"]:
            if "shared_memory_region" in item["parameters"]:
                places[item["name"]] = self._span(item["parameters"])
                shared.add(item["name"])
        ids, _, number = head.get("id", "#0").rpartition("#")
        names = tuple(item["name"] for item in head["outputs"])
        traced = tuple(filter(None, ids.split(",")))
        context, state = fields.get("traceparent", ""), fields.get("tracestate", "")
        return Call(path[3], inputs, names, frozenset(shared), traced, int(number), connection, context, state, places)

    def _span(self, parameters: dict[str, Any]) -> memoryview:
        region, offset = self.regions[parameters["shared_memory_region"]], parameters["shared_memory_offset"]
        return region[offset : offset + parameters["shared_memory_byte_size"]]

    def _change_region(self, name: str, verb: str, fields: dict[str, str], order: dict[str, Any]) -> bytes:
        self.region_requests.append((verb, name))
        if fields.get("x-jigsaw-secret") != self.secret:
            return message(403, b'{"error": "This API is restricted"}')
        if verb == "unregister":
            self.regions.pop(name, None)
        else:
            file = os.open(SHARED_MEMORY / str(order["key"]).removeprefix("/"), os.O_RDWR)
            self._maps.append(mmap.mmap(file, int(order["byte_size"])))
            os.close(file)
            self.regions[name] = memoryview(self._maps[-1])
        return message(200, b"")


def read_message(
    readline: Callable[[], bytes], read: Callable[[int], bytes]
) -> tuple[list[str], dict[str, str], bytes] | None:
    """Reads path, header (by lower-case names) and body of a request from a stream; None at the end of the stream."""
    first = readline()
    if not first:
        return None
    fields = {}
    while (line := readline().decode().strip()) != "":
        name, _, value = line.partition(": ")
        fields[name.lower()] = value
    size = int(fields["content-length"])
    body = read(size)
    return (first.decode().split()[1].split("/"), fields, body) if len(body) == size else None


def good(outputs: Sequence[dict[str, Any]], data: bytes = b"") -> bytes:
    """Encodes a successful answer from descriptions of outputs and the bytes of their values."""
    text = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs}).encode()
    return message(200, text + data, header_bytes=len(text) if data else None)


def bad(status: int, reason: str) -> bytes:
    """Encodes an answer with an error."""
    return message(status, json.dumps({"error": reason}).encode())


def message(status: int, body: bytes, *, header_bytes: int | None = None) -> bytes:
    """Encodes an HTTP response."""
    extra = f"Inference-Header-Content-Length: {header_bytes}\r\n" if header_bytes is not None else ""
    head = f"HTTP/1.1 {status} Any\r\nContent-Type: any\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def slowly(data: bytes, pause_s: float = 0.0) -> Iterator[bytes]:
    """Yields a message byte by byte."""
    for at in range(len(data)):
        yield data[at : at + 1]
        if pause_s:
            time.sleep(pause_s)
