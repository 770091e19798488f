"""Handlers of workers whose answers are broken: cut off, too long, malformed or not HTTP at all."""

from collections.abc import Iterator
from typing import Any

from tests.native.conftest import double
from tests.native.worker import Answer, Call, HangUp, bad, good, message


def hang_up(call: Call) -> Answer:
    raise HangUp


def lost_by_a_proxy(call: Call) -> Answer:
    return bad(502, "the connection broke")


def late_at_a_proxy(call: Call) -> Answer:
    return bad(504, "no answer came in time")


def half_answer(call: Call) -> Iterator[bytes]:
    whole = call.answer(double(call))
    yield whole[: len(whole) // 2]
    raise HangUp


def half_header(call: Call) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Le"
    raise HangUp


def one_byte_short(call: Call) -> Iterator[bytes]:
    yield call.answer(double(call))[:-1]
    raise HangUp


def one_byte_too_long(call: Call) -> bytes:
    whole = call.answer(double(call))
    return whole + b"x"


def described(call: Call) -> dict[str, Any]:
    """Correct description of the output."""
    size = {"binary_data_size": 8 * call.items}
    return {"name": "Y", "datatype": "INT64", "shape": [call.items, 1], "parameters": size}


def more_bytes_than_described(call: Call) -> bytes:
    return good([described(call)], bytes(8 * call.items + 8))


def values_in_json(call: Call) -> bytes:
    return good([{"name": "Y", "datatype": "INT64", "shape": [1, 1], "data": [2]}])


def values_in_shared_memory(call: Call) -> bytes:
    """Claims that the values are in shared memory, although the call named none."""
    return good([{"name": "Y", "datatype": "INT64", "shape": [call.items, 1]}])


def same_output_twice(call: Call) -> bytes:
    return good([described(call)] * 2, bytes(16 * call.items))


def no_content_length(call: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n"


def chunked(call: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


def another_protocol(call: Call) -> bytes:
    return b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\r\n" * 100


def endless_header(call: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 10_000


def html(call: Call) -> bytes:
    return message(200, b"<html>It works!</html>")


def huge_content_length(call: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"


def no_outputs(call: Call) -> bytes:
    return message(200, b"{}")


def too_much_json(call: Call) -> bytes:
    """Announces more JSON than the 16 MiB that are accepted."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: 17000000\r\n\r\n"


BROKEN = (
    hang_up,
    lost_by_a_proxy,
    late_at_a_proxy,
    half_answer,
    half_header,
    one_byte_short,
    one_byte_too_long,
    more_bytes_than_described,
    values_in_json,
    values_in_shared_memory,
    same_output_twice,
    no_content_length,
    chunked,
    another_protocol,
    endless_header,
    html,
    huge_content_length,
    no_outputs,
    too_much_json,
)
