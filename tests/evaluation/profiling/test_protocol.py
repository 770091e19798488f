import numpy as np
import pytest

from jigsaw_triton.evaluation.profiling.protocol import (
    Answer,
    error,
    outputs,
    parse_head,
)
from tests.native.worker import message


def read(whole: bytes) -> Answer:
    head, _, body = whole.partition(b"\r\n\r\n")
    return Answer(parse_head(head), np.frombuffer(b"--" + body, np.uint8), 2)


def test_an_answer_without_binary_tensors_is_parsed() -> None:
    body = (
        b'{"outputs":[{"name":"N","datatype":"INT64","shape":[1,2],"data":[7,8]},'
        b'{"name":"S","datatype":"BYTES","shape":[1,2],"data":["\xc3\xa4","b"]},'
        b'{"name":"E","datatype":"FP32","shape":[1,0,16],"data":[]}]}'
    )
    arrays = outputs(read(message(200, body)))
    assert arrays["N"].dtype == np.int64
    assert arrays["N"].tolist() == [[7, 8]]
    assert arrays["S"].tolist() == [["ä".encode(), b"b"]]
    assert arrays["E"].shape == (1, 0, 16)
    assert arrays["E"].dtype == np.float32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no such shape", "no such shape"),
        ("[request id: <id_unknown>] no such shape", "no such shape"),
        ("[request id: 7,8#1] Exceeds maximum queue size", "Exceeds maximum queue size"),
    ],
)
def test_an_error_has_the_server_s_message_without_the_request_id(text: str, expected: str) -> None:
    assert str(error(read(message(400, f'{{"error": "{text}"}}'.encode())))) == expected


def test_an_error_without_a_message_names_the_status() -> None:
    assert str(error(read(message(500, b"<html>")))) == "HTTP status 500 without a message"
