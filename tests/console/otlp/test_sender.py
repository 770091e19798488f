"""Spans are sent in batches, and again if that may help; nothing waits for the endpoint."""

import socket
import threading
from collections.abc import Iterator, Sequence

import pytest

from jigsaw_triton.console.otlp import sender as module
from jigsaw_triton.console.otlp.encoding import Encoded, encoded, request
from jigsaw_triton.console.otlp.sender import Counts, RefusedError, RetryLaterError, Sender, post
from tests.console.otlp.test_encoding import SPAN
from tests.e2e.system import free_ports
from tests.fakes.otlp import Receiver
from tests.waiting import WAIT_LIMIT_S, eventually

MESSAGE = request([encoded(SPAN)], {"gateway": {}}, ("jigsaw-triton", "1.0"))


def encode(batch: Sequence[Encoded]) -> bytes:
    return b"".join(span.data for span in batch)


def spans(count: int, first: int = 0) -> list[Encoded]:
    return [Encoded("gateway", f"<{number}>".encode()) for number in range(first, first + count)]


class Endpoint:
    """An endpoint that records what it gets, and fails as planned."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.rejected = 0
        self.tried: list[bytes] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, message: bytes) -> int:
        self.tried.append(message)
        assert self.open.wait(WAIT_LIMIT_S)
        if self.failures:
            raise self.failures.pop(0)
        return self.rejected


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(module, "_GATHER_S", 0.01)
    monkeypatch.setattr(module, "_FIRST_DELAY_S", 0.01)
    made = Endpoint()
    yield made
    made.open.set()


def test_spans_are_sent_in_batches(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    sender = Sender(encode, endpoint)
    sender.offer(spans(7))
    eventually(lambda: sender.counts() == Counts(7, {}, ""))
    sender.close(WAIT_LIMIT_S)
    assert endpoint.tried == [b"<0><1><2>", b"<3><4><5>", b"<6>"]


def test_a_batch_is_sent_again_until_the_endpoint_takes_it(endpoint: Endpoint) -> None:
    endpoint.failures = [RetryLaterError("down"), RetryLaterError("busy", 0.01)]
    sender = Sender(encode, endpoint)
    sender.offer(spans(2))
    eventually(lambda: sender.counts() == Counts(2, {}, ""))
    sender.close(WAIT_LIMIT_S)
    assert endpoint.tried == [b"<0><1>"] * 3


def test_a_refused_batch_is_not_sent_again(endpoint: Endpoint) -> None:
    endpoint.failures = [RefusedError("answers 400")]
    sender = Sender(encode, endpoint)
    sender.offer(spans(2))
    eventually(lambda: sender.counts() == Counts(0, {"refused": 2}, "answers 400"))
    endpoint.rejected = 2
    sender.offer(spans(3))
    eventually(lambda: sender.counts() == Counts(1, {"refused": 4}, ""))
    sender.close(WAIT_LIMIT_S)
    assert len(endpoint.tried) == 2


def test_a_batch_is_given_up_after_some_time(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVE_UP_S", 0.0)
    endpoint.failures = [RetryLaterError("down")]
    sender = Sender(encode, endpoint)
    sender.offer(spans(2))
    eventually(lambda: sender.counts() == Counts(0, {"unreachable": 2}, "down"))
    sender.offer(spans(1))
    eventually(lambda: sender.counts() == Counts(1, {"unreachable": 2}, ""))
    sender.close(WAIT_LIMIT_S)


def test_what_does_not_fit_is_dropped_while_the_endpoint_is_slow(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 4)
    endpoint.open.clear()
    sender = Sender(encode, endpoint)
    sender.offer(spans(1))
    eventually(lambda: bool(endpoint.tried))
    sender.offer(spans(7, 1))
    assert sender.counts() == Counts(0, {"full": 3}, "")
    endpoint.open.set()
    eventually(lambda: sender.counts().exported == 5)
    sender.close(WAIT_LIMIT_S)
    assert endpoint.tried == [b"<0>", b"<1><2><3><4>"]


def test_the_end_waits_for_no_second_try(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_DELAY_S", 1000.0)
    monkeypatch.setattr(module, "GIVE_UP_S", 1e9)
    endpoint.failures = [RetryLaterError("down")]
    sender = Sender(encode, endpoint)
    sender.offer(spans(2))
    eventually(lambda: sender.counts().error == "down")
    sender.close(WAIT_LIMIT_S)
    assert sender.counts() == Counts(0, {"unreachable": 2}, "down")


def test_a_message_is_posted() -> None:
    with Receiver() as receiver:
        assert post(f"{receiver.endpoint}/v1/traces", MESSAGE) == 0
        (span,) = receiver.spans
    assert span.name == SPAN.name


def test_rejected_spans_of_an_accepted_message_are_counted() -> None:
    with Receiver(lambda _: (200, b"\x0a\x02\x08\x01")) as receiver:
        assert post(f"{receiver.endpoint}/v1/traces", MESSAGE) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RefusedError), (404, RefusedError), (302, RefusedError), (500, RefusedError), (503, RetryLaterError)],
)
def test_an_answer_says_whether_to_try_again(status: int, error: type[Exception]) -> None:
    with (
        Receiver(lambda _: (status, b"not now")) as receiver,
        pytest.raises(error, match=rf"v1/traces answers {status} .*: not now"),
    ):
        post(f"{receiver.endpoint}/v1/traces", MESSAGE)


def test_an_endpoint_that_is_not_there_may_come_back() -> None:
    (port,) = free_ports(1)
    with pytest.raises(RetryLaterError, match=r"cannot be reached: .*refused"):
        post(f"http://127.0.0.1:{port}/v1/traces", MESSAGE)


@pytest.mark.parametrize(("status", "error"), [(400, RefusedError), (503, RetryLaterError)])
def test_an_answer_that_breaks_off_counts_by_its_status(status: int, error: type[Exception]) -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 {status} No\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf".encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        try:
            with pytest.raises(error, match=f"answers {status} No$"):
                post(f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces", MESSAGE)
        finally:
            thread.join(WAIT_LIMIT_S)
