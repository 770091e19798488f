"""A blocking keep-alive connection to one tritonserver, on which `send` and `receive` make an inference."""

import socket
import struct
import time

import numpy as np

from jigsaw_triton.evaluation.profiling import protocol
from jigsaw_triton.evaluation.profiling.protocol import CallError
from jigsaw_triton.runtime.dtypes import Array, Arrays

_HEAD_BYTES = 64 * 1024
_ALIGNMENT = 16


class Connection:
    """A keep-alive connection to one tritonserver.

    Args:
        address: `unix:/path/of.sock` or `host:port`.
        timeout_s: Seconds to wait for the connection, and for each request to be sent and answered. An answer that
            arrives in small pieces may take twice as long.

    Raises:
        CallError: Nothing listens at the address.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._head = bytearray(_HEAD_BYTES)
        try:
            self._socket = _connect(address, timeout_s)
        except (OSError, ValueError) as error:
            raise CallError(f"cannot connect to {address}: {_reason(error)}") from error
        # The kernel enforces the timeouts, because Python's cost an extra system call for each guarded one.
        self._socket.settimeout(None)
        limit = struct.pack("ll", int(timeout_s), int(1e6 * (timeout_s % 1)) or 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def close(self) -> None:
        """Closes the socket and abandons an inference in progress."""
        self._socket.close()

    def send(self, model: str, inputs: Arrays, outputs: tuple[str, ...]) -> None:
        """Sends an inference request.

        Args:
            model: Name of the model on the server.
            inputs: Inputs with their leading batch dimension.
            outputs: Names of the requested outputs.

        Raises:
            CallError: The connection broke, or the server took too long to read the request.
        """
        self._deadline = time.monotonic() + self._timeout_s
        head, data = protocol.inference(model, inputs, outputs)
        try:
            if sum(map(len, data)) < protocol.JOIN_BELOW:
                self._socket.sendall(b"".join((head, *data)))
                return
            self._socket.sendall(head)
            for piece in data:
                self._socket.sendall(piece)
        except OSError as error:
            raise CallError(_reason(error)) from error

    def receive(self) -> dict[str, Array]:
        """Receives the answer to the last request.

        Returns:
            The outputs by name, as views of a new buffer.

        Raises:
            CallError: The server is gone or late, or its answer is an error or violates the protocol.
        """
        try:
            answer = self._receive_message()
            if answer.head.status == 200:
                return protocol.outputs(answer)
        except OSError as error:
            raise CallError(_reason(error)) from error
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise CallError(f"the answer violates Triton's protocol: {error}") from error
        raise protocol.error(answer)

    def _receive_message(self) -> protocol.Answer:
        view = memoryview(self._head)
        filled, end = 0, -1
        while end < 0:
            if filled == _HEAD_BYTES:
                raise ValueError(f"its header exceeds {_HEAD_BYTES} bytes")
            filled += self._receive_into(view[filled:])
            end = self._head.find(b"\r\n\r\n", 0, filled)
        head = protocol.parse_head(bytes(view[:end]))
        early = filled - end - 4
        if early > head.body_bytes:
            raise ValueError("more bytes than its Content-Length")
        start = -head.json_bytes % _ALIGNMENT
        body = np.empty(start + head.body_bytes, np.uint8)
        body[start : start + early] = np.frombuffer(self._head, np.uint8, early, end + 4)
        rest = body.data[start + early :]
        while len(rest):
            rest = rest[self._receive_into(rest) :]
        return protocol.Answer(head, body, start)

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


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
