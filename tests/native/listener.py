"""A client of the listener of a worker, at a fake server whose models return their input X as each output."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.runtime.dtypes import to_triton
from tests.native import triton
from tests.native.core import Array, from_bytes, to_bytes
from tests.native.triton import Model
from tests.native.worker import SECRET
from tests.waiting import WAIT_LIMIT_S

LISTENER = {
    "name": "jigsaw_listener",
    "backend": "jigsaw",
    "parameters": {"spec": {"string_value": '{"listens": true}'}},
}
ITEM: Mapping[str, Any] = {"name": "X", "datatype": "INT32", "shape": [2, 1], "parameters": {"binary_data_size": 8}}


class Client:
    """A connection to the listener."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_LIMIT_S)
        self.socket.connect(str(path))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, path: str, head: Any, data: bytes = b"", **fields: str) -> None:
        self.socket.sendall(request(path, head, data, **fields))

    def answer(self) -> tuple[int, Any, bytes]:
        """Reads an answer: status, JSON and tensors."""
        answer = HTTPResponse(self.socket)
        answer.begin()
        body = answer.read()
        size = int(answer.headers.get("Inference-Header-Content-Length", len(body)))
        return answer.status, json.loads(body[:size] or "null"), body[size:]

    def ask(self, path: str, head: Any, data: bytes = b"", **fields: str) -> tuple[int, Any, bytes]:
        self.send(path, head, data, **fields)
        return self.answer()

    def infer(self, values: Array, model: str = "echo") -> Array:
        """Calls a model and returns its output Y."""
        data = to_bytes(values)
        item = {**ITEM, "datatype": to_triton(values.dtype), "shape": list(values.shape)}
        status, head, tensors = self.ask(
            f"/v2/models/{model}/infer",
            {"inputs": [{**item, "parameters": {"binary_data_size": len(data)}}], "outputs": [{"name": "Y"}]},
            data,
        )
        assert status == 200, head
        (output,) = head["outputs"]
        assert output["parameters"] == {"binary_data_size": len(tensors)}
        return from_bytes(output["datatype"], output["shape"], tensors)

    def closed(self) -> bool:
        """Returns True once the listener has closed the connection, without a byte."""
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True


def request(path: str, head: Any, data: bytes = b"", **fields: str) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    lines = {"Inference-Header-Content-Length": str(len(text)), "Content-Length": str(len(text) + len(data)), **fields}
    header = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{header}\r\n".encode() + text + data


def call(item: Mapping[str, Any] = ITEM, **more: Any) -> dict[str, Any]:
    return {"inputs": [item], "outputs": [{"name": "Y"}], **more}


INFER, DATA = "/v2/models/echo/infer", bytes(range(8))


@pytest.fixture
def path(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = run_dir / "workers" / "w.sock"
    monkeypatch.setenv("JIGSAW_CALL_SOCKET", str(path))
    monkeypatch.setenv("JIGSAW_SECRET", SECRET)
    triton.start()
    triton.call("let_go", 0)
    listener = Model(LISTENER)
    yield path
    triton.call("let_go", 1)
    listener.unload()
    assert not path.exists()
    assert not triton.leaks()


@pytest.fixture
def connect(path: Path) -> Iterator[Callable[[], Client]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Client(path))


@pytest.fixture
def client(connect: Callable[[], Client]) -> Client:
    return connect()
