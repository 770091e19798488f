"""Encodes spans as an `ExportTraceServiceRequest` of OTLP, in protobuf's wire format. Pure functions.

The message has a dozen fields, whose numbers are fixed for ever (opentelemetry-proto, `trace/v1/trace.proto`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from jigsaw_triton.console.otlp.spans import Attribute, Span

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""

_BYTE = tuple(bytes((value,)) for value in range(0x80))
"""Encodings of the numbers that take one byte, which are most."""

_ERROR = 2
"""Code of a failed span's status."""

_SAMPLED, _KNOWS_REMOTE, _REMOTE = 0x1, 0x100, 0x200
"""Flags of a span: its trace is sampled; the next flag is valid; its parent is a span of another process."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded span.

    Attributes:
        server: Server that it is of.
        data: Message of the span.
    """

    server: str
    data: bytes


def request(
    spans: Iterable[Encoded], resources: Mapping[str, Mapping[str, Attribute]], scope: tuple[str, str]
) -> bytes:
    """Returns the message with these spans.

    Args:
        spans: Spans to send.
        resources: Attributes of each server.
        scope: Name and version of this program.
    """
    by_server: dict[str, list[bytes]] = {}
    for span in spans:
        by_server.setdefault(span.server, []).append(_message(2, span.data))
    named = _message(1, _text(1, scope[0]), _text(2, scope[1]))
    return b"".join(
        _message(1, _message(1, _attributes(1, resources[server])), _message(2, named, *group))
        for server, group in by_server.items()
    )


def encoded(span: Span) -> Encoded:
    """Encodes a span."""
    flags = _SAMPLED | _KNOWS_REMOTE | (_REMOTE if span.remote else 0)
    parts = [
        _bytes(1, span.trace),
        _bytes(2, span.id),
        _text(3, span.state),
        _bytes(4, span.parent),
        _text(5, span.name),
        _varint(6, span.kind),
        _fixed(7, _FIXED64, span.start_ns),
        _fixed(8, _FIXED64, span.end_ns),
        _attributes(9, span.attributes),
    ]
    if span.error is not None:
        parts.append(_message(15, _text(2, span.error), _varint(3, _ERROR)))
    parts.append(_fixed(16, _FIXED32, flags))
    return Encoded(span.server, b"".join(parts))


def _attributes(number: int, attributes: Mapping[str, Attribute]) -> bytes:
    return b"".join(_attribute(number, key, value) for key, value in attributes.items())


# True and 1 are equal, but are encoded differently.
@lru_cache(maxsize=4096, typed=True)
def _attribute(number: int, key: str, value: Attribute) -> bytes:
    """Encodes an attribute. Spans have few different ones, which would take most of the time of an export."""
    return _message(number, _text(1, key), _message(2, _value(value)))


def _value(value: Attribute) -> bytes:
    if isinstance(value, bool):
        return _varint(2, value)
    if isinstance(value, int):
        return _varint(3, value)
    return _text(1, value)


def _message(number: int, *parts: bytes) -> bytes:
    return _bytes(number, b"".join(parts))


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode("utf-8", "replace"))


def _bytes(number: int, data: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(data)) + data


def _varint(number: int, value: int) -> bytes:
    return _number(number << 3 | _VARINT) + _number(value % 2**64)


def _fixed(number: int, wire: int, value: int) -> bytes:
    return _number(number << 3 | wire) + value.to_bytes(8 if wire == _FIXED64 else 4, "little")


def _number(value: int) -> bytes:
    """Returns a number in groups of seven bits, the lowest first."""
    if value <= 0x7F:
        return _BYTE[value]
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def rejected(answer: bytes) -> int:
    """Returns the number of spans that the endpoint says it has rejected, of a batch that it has accepted.

    Args:
        answer: Body of its answer: an `ExportTraceServiceResponse`, whose field 1 is a message with the number in its
            field 1. An answer of another form counts as none.
    """
    try:
        key, at = _read(answer, 0)
        _, at = _read(answer, at)
        inner, at = _read(answer, at)
        count, _ = _read(answer, at)
    except IndexError:
        return 0
    return count if (key, inner) == (1 << 3 | _BYTES, 1 << 3 | _VARINT) else 0


def _read(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
