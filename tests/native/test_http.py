"""Reader of HTTP answers, whose bytes may arrive in pieces of any size."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.native.parts import read_answer
from tests.native.worker import bad, good, message

ALL = (1 << 30,)


def item(name: str, dtype: str, shape: list[int], size: int | None = None, **more: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "datatype": dtype, "shape": shape, **more}
    if size is not None:
        described["parameters"] = {"binary_data_size": size}
    return described


VALUES = np.arange(6, dtype=np.int32)
GOOD = good(
    [item("Y", "INT32", [2, 3], 24), item("E", "FP32", [0, 4], 0), item("T", "BYTES", [1], 7)],
    VALUES.tobytes() + b"\3\0\0\0abc",
)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=10))
def test_an_answer_in_pieces_reads_the_same(sizes: list[int]) -> None:
    found = read_answer(GOOD, sizes)
    assert found["done"] and found["status"] == 200
    assert found == read_answer(GOOD)
    assert bytes(found["outputs"][0]["bytes"]) == VALUES.tobytes()
    assert found["outputs"][1]["shape"] == [0, 4]
    assert bytes(found["outputs"][2]["bytes"]) == b"\3\0\0\0abc"


@given(st.integers(0, len(GOOD) - 1), st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_an_incomplete_answer_is_not_done(length: int, sizes: list[int]) -> None:
    assert not read_answer(GOOD[:length], sizes)["done"]


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255), st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_a_damaged_answer_is_harmless(place: int, change: int, sizes: list[int]) -> None:
    damaged = bytearray(GOOD)
    damaged[place] ^= change
    found = read_answer(bytes(damaged), sizes)
    assert "error" in found or found["status"] >= 100 or not found["done"]


@given(st.binary(max_size=300), st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_random_bytes_are_harmless(data: bytes, sizes: list[int]) -> None:
    read_answer(b"HTTP/1.1 200 OK\r\n" + data, sizes)
    read_answer(data, sizes)


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("sizes", [ALL, (1,)])
def test_the_message_of_an_error_is_read(inference: bool, sizes: tuple[int, ...]) -> None:
    found = read_answer(bad(503, "[request id: 7] not\nnow"), sizes, inference=inference)
    assert (found["status"], found["reason"]) == (503, "not\nnow")


@pytest.mark.parametrize("body", [b"", b"anything", b"{}"])
def test_the_body_of_other_successful_answers_is_ignored(body: bytes) -> None:
    assert read_answer(message(200, body), inference=False)["done"]


def test_header_names_ignore_case_and_values_ignore_spaces() -> None:
    text = GOOD.replace(b"Content-Length: ", b"CONTENT-LENGTH:\t ").replace(b"Inference-Header-", b"inference-HEADER-")
    assert read_answer(text)["outputs"] == read_answer(GOOD)["outputs"]


@pytest.mark.parametrize(
    ("outputs", "data", "words"),
    [
        ([item("Y", "INT32", [2, 3], 20)], bytes(20), "output Y of shape [2, 3] has 20 bytes"),
        ([item("Y", "INT32", [-1], 4)], bytes(4), "has an impossible shape"),
        ([item("Y", "INT64", [1 << 61], 0)], b"", "has an impossible shape"),
        ([item("Y", "INT64", [1 << 40, 1 << 40], 0)], b"", "has an impossible shape"),
        ([item("Y", "INT32", [1] * 33, 4)], bytes(4), "too many dimensions"),
        ([item("Y", "INT128", [1], 16)], bytes(16), "unknown data type"),
        ([item("Y", "BYTES", [1], -1)], b"", "has an impossible size"),
        ([item("Y", "BYTES", [1], 1 << 50)], b"", "has an impossible size"),
        ([item("Y", "INT32", [1], data=[3])], b"", "is not in binary form"),
        ([item("Y", "INT32", [1], 4)], bytes(5), "have 5 bytes where 4 were announced"),
        ([item("Y", "INT32", [1], 4)] * 2, bytes(4), "have 4 bytes where 8 were announced"),
        ([{"datatype": "INT32", "shape": [1]}], b"", 'output has no "name"'),
        ([{"name": "Y", "datatype": 3, "shape": [1]}], b"", "output.datatype is not a string"),
        ([{"name": "Y", "datatype": "INT32", "shape": [1.5]}], b"", "output.shape is not an integer"),
        ([{"name": "Y", "datatype": "INT32", "shape": 1}], b"", "output.shape is not an array"),
        ([3], b"", "output is not an object"),
    ],
)
def test_impossible_descriptions_are_rejected(outputs: list[Any], data: bytes, words: str) -> None:
    assert words in read_answer(good(outputs, data))["error"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", None),
        (b"\r\n\r\n", "no Content-Length"),
        (b"HTTP/2 200\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 -20 OK\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "the answer has no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "a length in the answer's header is not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "a length in the answer's header is not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1 2\r\n\r\n", "a length in the answer's header is not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", "is not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999\r\n\r\n", "contradict each other"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 17000000\r\n\r\n", "the answer's JSON is too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nInference-Header-Content-Length: 2\r\n\r\n", "contradict"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "the answer has a Transfer-Encoding"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "has no colon"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "header is too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"Content-Length: 0\r\n\r\n", "header is too long"),
        (
            b"HTTP/1.1 400 No\r\nContent-Length: 9\r\nInference-Header-Content-Length: 2\r\n\r\n{}",
            "an error answer contains tensors",
        ),
        (message(200, b"{}") + b"x", "there are bytes after the end of the answer"),
        (message(200, b"{"), "JSON: the document ends early at byte 1"),
        (message(200, b"[" * 10_000), "nested too deep"),
    ],
)
def test_impossible_headers_are_rejected(text: bytes, words: str | None) -> None:
    found = read_answer(text)
    if words is None:
        assert not found["done"]
    else:
        assert words in found["error"]
        if "bytes after the end" not in words:
            assert words in read_answer(text, (1,))["error"]


def test_bytes_after_an_answer_are_not_read() -> None:
    found = read_answer(GOOD + b"HTTP/1.1 200", (1,))
    assert found["done"]
    assert found["left"] == 12
