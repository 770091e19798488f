"""Connections to workers: messages that arrive in pieces, early, or without an error message."""

import contextlib
import select
from typing import Any

import numpy as np
import pytest

from tests.native import specs
from tests.native.conftest import Bench, column, double
from tests.native.worker import Call, Worker, bad, message, slowly
from tests.waiting import WAIT_LIMIT_S


def test_an_answer_may_arrive_byte_by_byte(bench: Bench) -> None:
    worker = bench.worker("w", lambda call: slowly(call.answer(double(call))))
    bench.route("w", batch=8)
    front = bench.front()
    assert front.ask({"X": column(*range(8))})["Y"].ravel().tolist() == [2 * n for n in range(8)]
    assert front.ask({"X": column(1)})["Y"].item() == 2
    assert worker.connections == 1


def test_an_error_may_arrive_byte_by_byte(bench: Bench) -> None:
    bench.worker("w", lambda call: slowly(bad(400, "slow refusal")))
    bench.route("w")
    assert bench.front().ask({"X": column(1)}).message == "task t: worker w: slow refusal"


def test_requests_and_answers_may_exceed_the_socket_buffer(bench: Bench) -> None:
    kind = ("INT64", (1_000_000,))
    made = specs.task(inputs={"X": ("inputs.X", kind)}, outputs={"Y": kind})
    bench.worker()
    bench.route("w", batch=2)
    front = bench.engine.front(specs.spec([made], {"X": kind}, {"Y": ("t.Y", kind)}))
    array = np.arange(3_000_000).reshape(3, -1)
    assert (front.ask({"X": array})["Y"] == 2 * array).all()


def test_a_worker_may_answer_before_it_has_read_the_whole_request(bench: Bench) -> None:
    kind = ("INT64", (1_000_000,))
    made = specs.task(inputs={"X": ("inputs.X", kind)})
    bench.route("w")
    front = bench.engine.front(specs.spec([made], {"X": kind}))
    with EarlyWorker(bench.run_dir, "w", double):
        outcome = front.ask({"X": np.zeros((1, 1_000_000), np.int64)})
        assert outcome.message == "task t: worker w: too large"
        assert front.ask({"X": np.zeros((1, 1_000_000), np.int64)}).message == "task t: worker w: too large"


class EarlyWorker(Worker):
    """Worker that rejects a request as soon as its header arrives."""

    def _serve(self, connection: Any, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1000)
            connection.sendall(bad(413, "too large"))
            # The rest of the request stays unread until the engine closes the connection.
            closed = select.poll()
            with contextlib.suppress(ValueError):  # The connection is already closed.
                closed.register(connection, select.POLLRDHUP)
                closed.poll(1000 * WAIT_LIMIT_S)


def test_a_connection_that_the_worker_closes_after_an_answer_is_not_used_again(bench: Bench) -> None:
    def closing(call: Call) -> bytes:
        return call.answer(double(call)).replace(b"Content-Type: any", b"Connection: close", 1)

    worker = bench.worker("w", closing)
    bench.route("w")
    front = bench.front()
    for n in range(3):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    # The worker has not closed the connections, so only its announcement can be the reason.
    assert worker.connections == 3


def test_a_call_whose_connection_is_reset_was_not_executed(bench: Bench) -> None:
    # With `retry: never`, only a call that certainly was not executed goes to another worker.
    bench.route("a", "b")
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    with ResettingWorker(bench.run_dir, "a", double) as worker:
        bench.worker("b")
        answers = [front.ask({"X": column(n)})["Y"].item() for n in range(20)]
    assert answers == [2 * n for n in range(20)]
    assert worker.connections


class ResettingWorker(Worker):
    """Worker that closes each connection when a call has arrived, without reading it."""

    def _serve(self, connection: Any, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            select.select([connection], [], [], WAIT_LIMIT_S)


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"", "HTTP status 500 without a message"), (b"[]", "without a message"), (b'{"error": 5}', "without a message")],
)
def test_an_error_response_without_a_message_has_its_status_as_the_reason(
    bench: Bench, body: bytes, words: str
) -> None:
    bench.worker("w", lambda call: message(500, body))
    bench.route("w")
    outcome = bench.front().ask({"X": column(1)})
    assert outcome.blame == "model"
    assert words in outcome.message


def test_the_request_id_that_triton_adds_is_removed_from_the_message(bench: Bench) -> None:
    bench.worker("w", lambda call: bad(400, f"[request id: #{call.number}] unexpected shape"))
    bench.route("w")
    assert bench.front().ask({"X": column(1)}).message == "task t: worker w: unexpected shape"
