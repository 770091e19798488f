import re

import numpy as np
import pytest

from jigsaw_triton.runtime.protocol import Answer, RequestError, WorkerFailed, failure, outputs, parse_head, refusal
from tests.runtime.fake_worker import message


def read(whole: bytes) -> Answer:
    head, _, body = whole.partition(b"\r\n\r\n")
    return Answer(parse_head(head), np.frombuffer(b"--" + body, np.uint8), 2)


def refused(status: int, text: str) -> Answer:
    return read(message(f'{{"error": "{text}"}}'.encode(), status=status))


def test_an_answer_all_in_json() -> None:
    body = (
        b'{"outputs":[{"name":"N","datatype":"INT64","shape":[1,2],"data":[7,8]},'
        b'{"name":"S","datatype":"BYTES","shape":[1,2],"data":["\xc3\xa4","b"]},'
        b'{"name":"E","datatype":"FP32","shape":[1,0,16],"data":[]}]}'
    )
    arrays = outputs(read(message(body)), None)
    assert arrays["N"].dtype == np.int64
    assert arrays["N"].tolist() == [[7, 8]]
    assert arrays["S"].tolist() == [["ä".encode(), b"b"]]
    assert arrays["E"].shape == (1, 0, 16)
    assert arrays["E"].dtype == np.float32


@pytest.mark.parametrize(
    ("status", "text", "executed"),
    [
        (404, "Request for unknown model: 'm' is not found", False),
        (400, "Request for unknown model: 'm' has no available versions", False),
        (503, "[request id: <id_unknown>] Exceeds maximum queue size", False),
        (503, "[request id: 7,8#1] Exceeds maximum queue size", False),
        (400, "Unable to find shared memory region: 'r'", False),
        (500, "Stub process 'm_0_0' is not healthy.", True),
    ],
)
def test_answers_that_are_the_workers_failure(status: int, text: str, executed: bool) -> None:
    failed = failure(refused(status, text))
    assert isinstance(failed, WorkerFailed)
    assert failed.executed is executed
    assert failed.reason == re.sub(r"^\[request id: .*?\] ", "", text)


@pytest.mark.parametrize("status", [400, 500])
def test_answers_that_are_the_requests_error(status: int) -> None:
    failed = failure(refused(status, "[request id: <id_unknown>] no such shape"))
    assert isinstance(failed, RequestError)
    assert (failed.reason, failed.status) == ("no such shape", status)


def test_an_error_without_words() -> None:
    assert str(failure(read(message(b"<html>", status=500)))) == "HTTP status 500 without a message"


def test_a_region_that_the_server_maps_already_is_not_refused() -> None:
    assert refusal(read(message(b""))) is None
    assert refusal(refused(400, "shared memory region 'r' already in manager")) is None
    assert str(refusal(refused(403, "This API is restricted"))) == "This API is restricted"
