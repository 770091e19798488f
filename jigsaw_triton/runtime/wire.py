"""Triton's HTTP inference protocol with its binary tensor extension, over one blocking keep-alive socket.

Two calls on a connection make an inference: `send`, then `receive`. Between them the caller may wait on several
connections at once (`fileno`).
"""

import json
import math
import re
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays, to_numpy, to_triton
from jigsaw_triton.runtime.regions import Placement, Region, Span
from jigsaw_triton.runtime.spec import SECRET_HEADER

_JOIN_BELOW = 64 * 1024
"""Bytes below which a request is copied together and sent by one system call."""

_HEAD_BYTES = 64 * 1024
_ALIGNMENT = 16
_NOT_EXECUTED_STATUS = frozenset({404, 503})
_NOT_EXECUTED_WORDS = "unknown model"
_EXECUTION_LOST_WORDS = "stub process"
_NOISE = re.compile(r"^\[request id: [^]]*\] ")
_ALREADY_WORDS = "already in manager"
_REGION_LOST_WORDS = "unable to find shared memory region"
_NOTHING: Mapping[str, Span] = {}

_FORGET_S = 0.2
"""How long an answer is waited for that is of no matter."""

_REGISTER_S = 2.0
"""How long a server may take to map a region: no model has to work for that, and the dispatcher waits for it alone."""


class WorkerFailed(Exception):
    """The worker did not do its work: unreachable, gone, late, without the model, or not speaking Triton's protocol.

    Attributes:
        reason: In a few words.
        executed: False where the worker surely ran nothing of it, so that trying again is free.
    """

    def __init__(self, reason: str, *, executed: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.executed = executed


class RequestError(Exception):
    """The worker answered the request with an error.

    Attributes:
        reason: The worker's words.
        status: Of HTTP: 400 where the request was at fault, 500 where the model failed.
    """

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class RegionRefused(Exception):
    """The worker does not take shared memory; the message is its reason. Nothing of the request was sent."""


class Connection:
    """A keep-alive connection to one tritonserver.

    Args:
        address: `unix:/path/of.sock` or `host:port`.
        timeout_s: For connecting, then for the server to take a request, and for its answer to come; one that comes in
            drops may take twice as long.
        secret: Of the deployment, with which a server lets shared memory be registered.

    Attributes:
        sent_bytes: Of the tensors of the latest request, wherever they lie.
        received_bytes: Of the body of its answer, without what lies in shared memory; 0 until that is there.

    Raises:
        WorkerFailed: Nothing listens there.
    """

    def __init__(self, address: str, timeout_s: float, secret: str = "") -> None:
        self._timeout_s = 0.0
        self._secret = secret
        self._deadline = 0.0
        self.sent_bytes, self.received_bytes = 0, 0
        self._known: set[str] = set()
        self._placement: Placement | None = None
        self._head = bytearray(_HEAD_BYTES)
        try:
            self._socket = _connect(address, timeout_s)
        except (OSError, ValueError) as error:
            raise WorkerFailed(f"cannot connect to {address}: {_words(error)}", executed=False) from error
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        # Timeouts of the kernel's: Python's own cost a system call more for each that they guard.
        self._socket.settimeout(None)
        self.limit(timeout_s)

    @property
    def deadline(self) -> float:
        """When the inference under way is late, in seconds of time.monotonic."""
        return self._deadline

    def limit(self, timeout_s: float) -> None:
        """Sets how long an inference may take from now on."""
        if timeout_s == self._timeout_s:
            return
        self._timeout_s = timeout_s
        limit = struct.pack("ll", int(timeout_s), int(1e6 * (timeout_s % 1)) or 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def expire(self) -> None:
        """The inference under way is late from now on."""
        self._deadline = time.monotonic()

    def fileno(self) -> int:
        """For poll: readable when the answer begins to arrive."""
        return self._socket.fileno()

    def is_stale(self) -> bool:
        """Whether an idle connection is of no use: the server closed it, or sent what nobody asked for."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Closes the socket; an inference under way is lost."""
        self._socket.close()

    def send(
        self,
        model: str,
        inputs: Arrays,
        outputs: tuple[str, ...],
        placement: Placement | None = None,
        request_id: str = "",
    ) -> None:
        """Sends an inference request.

        Args:
            model: Name on the server.
            inputs: With their leading batch dimension.
            outputs: Names of the outputs wanted.
            placement: Which of the inputs lie in shared memory, and which outputs shall.
            request_id: For the server's logs and its models.

        Raises:
            WorkerFailed: The connection broke or the server took too long to read.
            RegionRefused: The server does not take shared memory; the connection can be used on.
        """
        self._deadline = time.monotonic() + self._timeout_s
        self._placement = placement
        placed_in, placed_out = (placement.inputs, placement.outputs) if placement is not None else (_NOTHING, _NOTHING)
        region = placement.region.name if placement is not None else ""
        data = [b"" if name in placed_in else _raw(array) for name, array in inputs.items()]
        head = _request_head(
            model,
            tuple(
                (name, to_triton(a.dtype), a.shape, len(d), placed_in.get(name))
                for (name, a), d in zip(inputs.items(), data, strict=True)
            ),
            tuple((name, placed_out.get(name)) for name in outputs),
            region,
            request_id,
        )
        in_socket = sum(map(len, data))
        self.sent_bytes = in_socket + sum(span.size for span in placed_in.values())
        self.received_bytes = 0
        if placement is not None:
            self._register(placement.region)
        try:
            if in_socket < _JOIN_BELOW:
                self._socket.sendall(b"".join((head, *data)))
                return
            self._socket.sendall(head)
            for piece in data:
                self._socket.sendall(piece)
        except OSError as error:
            raise WorkerFailed(_words(error), executed=True) from error

    def forget(self, region: str) -> bool:
        """Has the server unmap a region; whether the connection can be used on: a server that hangs is not waited for.

        Args:
            region: Its name.
        """
        if region not in self._known:
            return True
        self._known.remove(region)
        try:
            self._ask(f"/v2/systemsharedmemory/region/{region}/unregister", {})
            if not self._poll.poll(1000 * _FORGET_S):
                return False
            self._receive_message()
        except (OSError, ValueError, KeyError):
            return False
        return True

    def forget_all(self) -> None:
        """Has the server unmap all regions that it was told of here; the connection is of no more use."""
        all(self.forget(region) for region in tuple(self._known))

    def _register(self, region: Region) -> None:
        if region.name in self._known:
            return
        try:
            self._ask(
                f"/v2/systemsharedmemory/region/{region.name}/register",
                {"key": f"/{region.name}", "offset": 0, "byte_size": region.size},
            )
            if not self._poll.poll(1000 * min(_REGISTER_S, self._timeout_s)):
                self.expire()
                raise TimeoutError
            head, body, json_at = self._receive_message()
        except OSError as error:
            raise WorkerFailed(_words(error), executed=False) from error
        except (ValueError, KeyError) as error:
            raise WorkerFailed(f"answer is not of Triton's protocol: {error}", executed=False) from error
        if head.status != 200:
            message = _error_message(body[json_at:].tobytes(), head.status)
            if _ALREADY_WORDS not in message:
                raise RegionRefused(message)
        self._known.add(region.name)

    def _ask(self, path: str, document: Mapping[str, object]) -> None:
        text = json.dumps(document).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: worker\r\n{SECRET_HEADER}: {self._secret}\r\n"
        self._deadline = time.monotonic() + self._timeout_s
        self._socket.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)

    def receive(self) -> dict[str, Array]:
        """Receives the answer to what was sent.

        Returns:
            The outputs by name, views into one buffer of their own.

        Raises:
            WorkerFailed: The worker is gone, late, does not serve the model, or answered nonsense.
            RequestError: The worker answered with an error of the request or of the model.
        """
        try:
            head, body, json_at = self._receive_message()
            if head.status == 200:
                return _outputs(body, json_at, head.json_bytes, self._placement)
            message = _error_message(body[json_at:].tobytes(), head.status)
        except OSError as error:
            raise WorkerFailed(_words(error), executed=True) from error
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise WorkerFailed(f"answer is not of Triton's protocol: {error}", executed=True) from error
        raise _error(message, head.status)

    def _receive_message(self) -> tuple["_Head", Array, int]:
        """The header, and a buffer that holds the body from the returned offset on, binary tensors aligned."""
        view = memoryview(self._head)
        filled, end = 0, -1
        while end < 0:
            if filled == _HEAD_BYTES:
                raise ValueError(f"its header exceeds {_HEAD_BYTES} bytes")
            filled += self._receive_into(view[filled:])
            end = self._head.find(b"\r\n\r\n", 0, filled)
        head = _parse_head(bytes(view[:end]))
        self.received_bytes = head.body_bytes
        early = filled - end - 4
        if early > head.body_bytes:
            raise ValueError("more bytes than its Content-Length")
        start = -head.json_bytes % _ALIGNMENT
        body = np.empty(start + head.body_bytes, np.uint8)
        body[start : start + early] = np.frombuffer(self._head, np.uint8, early, end + 4)
        rest = body.data[start + early :]
        while len(rest):
            rest = rest[self._receive_into(rest) :]
        return head, body, start

    def _receive_into(self, view: memoryview) -> int:
        if time.monotonic() >= self._deadline:
            raise TimeoutError
        count = self._socket.recv_into(view)
        if count == 0:
            raise ConnectionResetError("connection closed")
        return count


def _connect(address: str, timeout_s: float) -> socket.socket:
    if address.startswith("unix:"):
        family, target = socket.AF_UNIX, address.removeprefix("unix:")
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(target)
    except OSError:
        connection.close()
        raise
    return connection


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def _raw(array: Array) -> bytes | memoryview:
    """The tensor's bytes as the protocol wants them, without a copy where its memory is already so."""
    if array.dtype.kind in "OSU":
        return _bytes_tensor(array)
    if array.nbytes < _JOIN_BELOW:
        return array.tobytes()
    return np.ascontiguousarray(array).data.cast("B")


def _bytes_tensor(array: Array) -> bytes:
    pieces: list[bytes] = []
    for element in array.ravel():
        data = element if isinstance(element, bytes) else str(element).encode()
        pieces += (struct.pack("<I", len(data)), data)
    return b"".join(pieces)


@lru_cache(maxsize=1024)
def _request_head(
    model: str,
    inputs: tuple[tuple[str, str, tuple[int, ...], int, Span | None], ...],
    outputs: tuple[tuple[str, Span | None], ...],
    region: str,
    request_id: str,
) -> bytes:
    body = {
        **({"id": request_id} if request_id else {}),
        "inputs": [
            {
                "name": name,
                "shape": shape,
                "datatype": dtype,
                "parameters": {"binary_data_size": size} if span is None else _shared(region, span),
            }
            for name, dtype, shape, size, span in inputs
        ],
        "outputs": [
            {"name": name, "parameters": {"binary_data": True} if span is None else _shared(region, span)}
            for name, span in outputs
        ],
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    length = len(text) + sum(size for *_, size, _ in inputs)
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: worker\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(text)}\r\nContent-Length: {length}\r\n\r\n"
    )
    return head.encode() + text


def _shared(region: str, span: Span) -> dict[str, object]:
    return {
        "shared_memory_region": region,
        "shared_memory_offset": span.offset,
        "shared_memory_byte_size": span.size,
    }


class _Head(NamedTuple):
    """An answer's HTTP header; where it gives no length of the JSON, all of the body is JSON."""

    status: int
    body_bytes: int
    json_bytes: int


@lru_cache(maxsize=1024)
def _parse_head(text: bytes) -> _Head:
    first, *lines = text.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"it begins with {first[:40]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body_bytes = int(fields["content-length"])
    json_bytes = int(fields.get("inference-header-content-length", body_bytes))
    if not 0 <= json_bytes <= body_bytes:
        raise ValueError(f"header length {json_bytes} of a body of {body_bytes} bytes")
    return _Head(int(status), body_bytes, json_bytes)


class _Output(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    binary_bytes: int | None
    """None where the values stand in the JSON or in shared memory."""
    shared: bool
    """There are neither: they lie where they were asked to."""
    values: Sequence[Any]


def _parse_outputs(text: bytes) -> tuple[_Output, ...]:
    return tuple(
        _Output(
            name=item["name"],
            dtype=to_numpy(item["datatype"]),
            shape=tuple(item["shape"]),
            binary_bytes=item.get("parameters", {}).get("binary_data_size"),
            shared="data" not in item and "binary_data_size" not in item.get("parameters", {}),
            values=item.get("data", ()),
        )
        for item in json.loads(text)["outputs"]
    )


# The JSON beside binary tensors is the same for answers of the same shapes.
_parse_outputs_cached = lru_cache(maxsize=1024)(_parse_outputs)


def _outputs(body: Array, start: int, json_bytes: int, placement: Placement | None) -> dict[str, Array]:
    at = start + json_bytes
    text = body[start:at].tobytes()
    parse = _parse_outputs_cached if at < len(body) else _parse_outputs
    arrays = {}
    for output in parse(text):
        if output.shared:
            arrays[output.name] = _from_shared(output, placement)
            continue
        if output.binary_bytes is None:
            arrays[output.name] = _from_json(output)
            continue
        data = body[at : at + output.binary_bytes]
        at += output.binary_bytes
        arrays[output.name] = _from_binary(output, data)
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes beside the announced tensors")
    return arrays


def _from_shared(output: _Output, placement: Placement | None) -> Array:
    span = placement.outputs.get(output.name) if placement is not None else None
    size = math.prod(output.shape) * output.dtype.itemsize
    if placement is None or span is None or size > span.size:
        raise ValueError(f"output {output.name} of {size} bytes is not where it was asked for")
    return placement.region.view(Span(span.offset, size), to_triton(output.dtype), output.shape)


def _from_json(output: _Output) -> Array:
    if output.dtype.kind != "O":
        return np.array(output.values, output.dtype).reshape(output.shape)
    array = np.empty(len(output.values), np.object_)
    array[:] = [value.encode() for value in output.values]
    return array.reshape(output.shape)


def _from_binary(output: _Output, data: Array) -> Array:
    if output.dtype.kind != "O":
        array = data.view(output.dtype).reshape(output.shape)
        return array if array.flags.aligned else array.copy()
    elements, at, raw = [], 0, data.tobytes()
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        elements.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(output.shape)


def _error_message(body: bytes, status: int) -> str:
    try:
        return _NOISE.sub("", str(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status} without a message"


def _error(message: str, status: int) -> WorkerFailed | RequestError:
    lower = message.lower()
    if status in _NOT_EXECUTED_STATUS or _NOT_EXECUTED_WORDS in lower or _REGION_LOST_WORDS in lower:
        return WorkerFailed(message, executed=False)
    if _EXECUTION_LOST_WORDS in lower:
        return WorkerFailed(message, executed=True)
    return RequestError(message, status)
