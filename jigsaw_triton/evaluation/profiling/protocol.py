"""Encodes and decodes Triton's HTTP inference protocol with its binary tensor extension.

The module converts requests to bytes, and answers to tensors or an error. `connection` sends and receives them.
"""

import json
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays, to_numpy, to_triton

JOIN_BELOW = 64 * 1024
"""Size in bytes below which a request is copied into one buffer and sent by one system call."""

_REQUEST_ID = re.compile(r"^\[request id: [^]]*\] ")


class CallError(Exception):
    """A server did not answer an inference request, or answered with an error.

    Attributes:
        reason: Short reason.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Request(NamedTuple):
    """An encoded inference request: the head, followed by the binary tensors in order."""

    head: bytes
    data: list[bytes | memoryview]


def inference(model: str, inputs: Arrays, outputs: tuple[str, ...]) -> Request:
    """Encodes an inference request.

    Args:
        model: Name of the model on the server.
        inputs: Inputs with their leading batch dimension.
        outputs: Names of the requested outputs.
    """
    data = [_raw(array) for array in inputs.values()]
    head = _request_head(
        model,
        tuple((name, to_triton(a.dtype), a.shape, len(d)) for (name, a), d in zip(inputs.items(), data, strict=True)),
        outputs,
    )
    return Request(head, data)


def _raw(array: Array) -> bytes | memoryview:
    """Returns the tensor's bytes in the protocol's format; large contiguous tensors are not copied."""
    if array.dtype.kind in "OSU":
        return _bytes_tensor(array)
    if array.nbytes < JOIN_BELOW:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _bytes_tensor(array: Array) -> bytes:
    pieces: list[bytes] = []
    for element in array.ravel():
        data = element if isinstance(element, bytes) else str(element).encode()
        pieces += (struct.pack("<I", len(data)), data)
    return b"".join(pieces)


@lru_cache(maxsize=1024)
def _request_head(
    model: str, inputs: tuple[tuple[str, str, tuple[int, ...], int], ...], outputs: tuple[str, ...]
) -> bytes:
    body = {
        "inputs": [
            {"name": name, "shape": shape, "datatype": dtype, "parameters": {"binary_data_size": size}}
            for name, dtype, shape, size in inputs
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    length = len(text) + sum(size for *_, size in inputs)
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: worker\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(text)}\r\nContent-Length: {length}\r\n\r\n"
    )
    return head.encode() + text


class Head(NamedTuple):
    """HTTP header of an answer. If the header gives no length of the JSON, the whole body is JSON."""

    status: int
    body_bytes: int
    json_bytes: int


class Answer(NamedTuple):
    """An answer, whose body starts at such an offset in a buffer that the tensors after the JSON are aligned."""

    head: Head
    buffer: Array
    start: int

    @property
    def text(self) -> bytes:
        """JSON of the answer."""
        return self.buffer[self.start : self.start + self.head.json_bytes].tobytes()


@lru_cache(maxsize=1024)
def parse_head(text: bytes) -> Head:
    """Parses the HTTP header of an answer.

    Args:
        text: Header without the empty line at its end.

    Raises:
        ValueError: The text is no HTTP header.
        KeyError: The header does not give the length of the body.
    """
    first, *lines = text.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"it begins with {first[:40]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body_bytes = int(fields["content-length"])
    json_bytes = int(fields.get("inference-header-content-length", body_bytes))
    if not 0 <= json_bytes <= body_bytes:
        raise ValueError(f"header length {json_bytes} of a body of {body_bytes} bytes")
    return Head(int(status), body_bytes, json_bytes)


class _Output(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    binary_bytes: int | None
    """Size of the binary tensor; None if the values are in the JSON."""
    values: Sequence[Any]


def _parse_outputs(text: bytes) -> tuple[_Output, ...]:
    return tuple(
        _Output(
            name=item["name"],
            dtype=to_numpy(item["datatype"]),
            shape=tuple(item["shape"]),
            binary_bytes=item.get("parameters", {}).get("binary_data_size"),
            values=item.get("data", ()),
        )
        for item in json.loads(text)["outputs"]
    )


# Answers with the same shapes have the same JSON beside their binary tensors.
_parse_outputs_cached = lru_cache(maxsize=1024)(_parse_outputs)


def outputs(answer: Answer) -> dict[str, Array]:
    """Returns the outputs in a successful answer by name, as views of its buffer.

    Args:
        answer: Answer with status 200.

    Raises:
        ValueError: The answer violates the protocol. KeyError, TypeError, AttributeError and struct.error mean the
            same.
    """
    body, at = answer.buffer, answer.start + answer.head.json_bytes
    parse = _parse_outputs_cached if at < len(body) else _parse_outputs
    arrays = {}
    for output in parse(answer.text):
        if output.binary_bytes is None:
            arrays[output.name] = _from_json(output)
            continue
        data = body[at : at + output.binary_bytes]
        at += output.binary_bytes
        arrays[output.name] = _from_binary(output, data)
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes more than the announced tensors")
    return arrays


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


def error(answer: Answer) -> CallError:
    """Returns the error in an answer whose status is not 200."""
    try:
        return CallError(_REQUEST_ID.sub("", str(json.loads(answer.text)["error"])))
    except (ValueError, KeyError, TypeError):
        return CallError(f"HTTP status {answer.head.status} without a message")
