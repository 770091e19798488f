"""A worker in this process: speaks Triton's HTTP inference protocol on a Unix socket, and fails as it is asked to."""

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
from jigsaw_triton.runtime.regions import FOLDER
from jigsaw_triton.runtime.spec import SECRET_HEADER

SECRET = "open-sesame-0123456789"
"""By which a worker lets shared memory be registered."""


@dataclass(frozen=True)
class Call:
    """A request as it arrived."""

    model: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    shared: dict[str, Array]
    """Outputs that are wanted in shared memory, and the bytes there."""
    request_id: str = ""


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


class FakeWorker:
    """Serves until the `with` block ends, or `kill`."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path = path
        self.handler = handler
        self.calls: list[Call] = []
        self.connections = 0
        self.regions: dict[str, Array] = {}
        self.secret = SECRET
        self.going = threading.Event()
        """While it is not set, requests are read and not answered."""
        self.going.set()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "FakeWorker":
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
        self.kill()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def kill(self) -> None:
        """Closes everything at once, as the kernel does for a process that died."""
        self.going.set()
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

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
                    self.going.wait()
                    connection.sendall(self._respond(*got))
            except (HangUp, OSError, ValueError):
                return

    def _respond(self, path: list[str], fields: dict[str, str], body: bytes) -> bytes:
        if "systemsharedmemory" in path:
            return self._change_region(path[-2], path[-1], fields, json.loads(body))
        try:
            call = read_call(path, fields, body, self.regions)
        except KeyError as error:
            return message(json.dumps({"error": f"Unable to find shared memory region: {error}"}).encode(), status=400)
        self.calls.append(call)
        return self._answer(call)

    def _change_region(self, name: str, verb: str, fields: dict[str, str], asked: dict[str, int | str]) -> bytes:
        if fields.get(SECRET_HEADER) != self.secret:
            return message(b'{"error": "This API is restricted"}', status=403)
        if verb == "unregister":
            self.regions.pop(name, None)
        elif name in self.regions:
            return message(
                json.dumps({"error": f"shared memory region '{name}' already in manager"}).encode(), status=400
            )
        else:
            path = FOLDER / str(asked["key"]).removeprefix("/")
            self.regions[name] = np.memmap(path, np.uint8, "r+", shape=(int(asked["byte_size"]),))
        return message(b"")

    def _answer(self, call: Call) -> bytes:
        try:
            outputs = self.handler(call)
        except Refuse as error:
            return message(json.dumps({"error": error.message}).encode(), status=error.status)
        if isinstance(outputs, bytes):
            return outputs
        for name in call.shared.keys() & outputs.keys():
            data = np.frombuffer(raw(outputs[name]), np.uint8)
            call.shared[name][: len(data)] = data
        return answer(outputs, tuple(call.shared))


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


def read_call(path: list[str], fields: dict[str, str], body: bytes, regions: dict[str, Array]) -> Call:
    """An inference request."""
    at = int(fields["Inference-Header-Content-Length"])
    head = json.loads(body[:at])
    inputs = {}
    for item in head["inputs"]:
        parameters = item["parameters"]
        if "shared_memory_region" in parameters:
            data = bytes(span(parameters, regions))
        else:
            data = body[at : at + parameters["binary_data_size"]]
            at += len(data)
        inputs[item["name"]] = tensor(item["datatype"], item["shape"], data)
    assert at == len(body)
    names = tuple(item["name"] for item in head["outputs"])
    shared = {
        item["name"]: span(item["parameters"], regions)
        for item in head["outputs"]
        if "shared_memory_region" in item["parameters"]
    }
    return Call(path[3], inputs, names, shared, head.get("id", ""))


def span(parameters: dict[str, Any], regions: dict[str, Array]) -> Array:
    """The bytes of a region that the parameters of a tensor name."""
    region, offset = regions[parameters["shared_memory_region"]], parameters["shared_memory_offset"]
    return region[offset : offset + parameters["shared_memory_byte_size"]]


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


def answer(outputs: dict[str, Array], shared: tuple[str, ...] = ()) -> bytes:
    """A good answer with binary tensors, but for those that are in shared memory."""
    described, data = [], []
    for name, array in outputs.items():
        item: dict[str, Any] = {"name": name, "datatype": to_triton(array.dtype), "shape": list(array.shape)}
        if name not in shared:
            data.append(raw(array))
            item["parameters"] = {"binary_data_size": len(data[-1])}
        described.append(item)
    text = json.dumps({"model_name": "m", "model_version": "1", "outputs": described}).encode()
    if not any(data):
        return message(text)
    return message(text + b"".join(data), header_bytes=len(text))


def message(body: bytes, *, status: int = 200, header_bytes: int | None = None) -> bytes:
    extra = f"Inference-Header-Content-Length: {header_bytes}\r\n" if header_bytes is not None else ""
    head = f"HTTP/1.1 {status} Any\r\nContent-Type: any\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
