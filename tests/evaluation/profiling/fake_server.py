"""A server in this process: speaks Triton's HTTP inference protocol on a Unix socket, and fails as it is asked to."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, to_numpy, to_triton


@dataclass(frozen=True)
class Call:
    """A request as it arrived."""

    model: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...]


class Refuse(Exception):
    """Answer with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class HangUp(Exception):
    """Close the connection without an answer."""


Handler = Callable[[Call], dict[str, Array] | bytes]
"""Outputs, or raw bytes to be sent as they are; raises Refuse or HangUp."""


class FakeServer:
    """Serves until the `with` block ends."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path = path
        self.handler = handler
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "FakeServer":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target)
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
            self._spawn(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                file = connection.makefile("rb")
                while got := read_message(file.readline, file.read):
                    connection.sendall(self._answer(read_call(*got)))
            except (HangUp, OSError, ValueError):
                return

    def _answer(self, call: Call) -> bytes:
        try:
            outputs = self.handler(call)
        except Refuse as error:
            return message(json.dumps({"error": error.message}).encode(), status=error.status)
        return outputs if isinstance(outputs, bytes) else answer(outputs)


def read_message(
    readline: Callable[[], bytes], read: Callable[[int], bytes]
) -> tuple[list[str], dict[str, str], bytes] | None:
    """Path, header and body of a request from a stream; None at its end."""
    first = readline()
    if not first:
        return None
    fields = {}
    while (line := readline().decode().strip()) != "":
        name, _, value = line.partition(": ")
        fields[name] = value
    return first.decode().split()[1].split("/"), fields, read(int(fields["Content-Length"]))


def read_call(path: list[str], fields: dict[str, str], body: bytes) -> Call:
    """An inference request."""
    at = int(fields["Inference-Header-Content-Length"])
    head = json.loads(body[:at])
    inputs = {}
    for item in head["inputs"]:
        data = body[at : at + item["parameters"]["binary_data_size"]]
        at += len(data)
        inputs[item["name"]] = tensor(item["datatype"], item["shape"], data)
    assert at == len(body)
    return Call(path[3], inputs, tuple(item["name"] for item in head["outputs"]))


def tensor(dtype: str, shape: list[int], data: bytes) -> Array:
    if dtype != "BYTES":
        return np.frombuffer(data, to_numpy(dtype)).reshape(shape)
    elements = []
    while data:
        size = int.from_bytes(data[:4], "little")
        elements.append(data[4 : 4 + size])
        data = data[4 + size :]
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)


def raw(array: Array) -> bytes:
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(len(element).to_bytes(4, "little") + element for element in array.ravel())


def answer(outputs: dict[str, Array]) -> bytes:
    """A good answer with binary tensors."""
    described: list[dict[str, Any]] = []
    data = [raw(array) for array in outputs.values()]
    for (name, array), values in zip(outputs.items(), data, strict=True):
        item = {"name": name, "datatype": to_triton(array.dtype), "shape": list(array.shape)}
        described.append({**item, "parameters": {"binary_data_size": len(values)}})
    text = json.dumps({"model_name": "m", "model_version": "1", "outputs": described}).encode()
    if not any(data):
        return message(text)
    return message(text + b"".join(data), header_bytes=len(text))


def message(body: bytes, *, status: int = 200, header_bytes: int | None = None) -> bytes:
    extra = f"Inference-Header-Content-Length: {header_bytes}\r\n" if header_bytes is not None else ""
    head = f"HTTP/1.1 {status} Any\r\nContent-Type: any\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
