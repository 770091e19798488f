"""The answer gate: answers wait while a socket pair of the server's HTTP frontend is too full."""

import socket
from collections.abc import Iterator

import pytest

from tests.native import specs
from tests.native.conftest import column
from tests.native.test_backend import Gateway, gateway

__all__ = ["gateway"]

MESSAGE = b"seventeen bytes.."
"""Message as long as those of the HTTP frontend."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Pair of unnamed sockets, like that of a connection of the HTTP frontend."""
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def fill(sock: socket.socket) -> int:
    """Fills the buffer of a socket; returns the number of messages that fit."""
    sock.setblocking(False)
    count = 0
    try:
        while True:
            sock.send(MESSAGE)
            count += 1
    except BlockingIOError:
        return count


@pytest.mark.slow
def test_answers_wait_until_the_socket_has_space(gateway: Gateway, pair: tuple[socket.socket, socket.socket]) -> None:
    gateway.worker()
    # On a busy machine the first answer takes so long that 2000 of them would exceed a shorter SLO.
    model = gateway.model(specs.spec(slo_ms=3_600_000))
    writer, reader = pair
    assert model.ask({"X": column(1)})["Y"].item() == 2
    count = fill(writer)
    requests = model.execute(*({"inputs": {"X": column(n)}} for n in range(2000)))
    held = [request for request in requests if not request.answered(0.0005)]
    # The answers for which the gate had already counted free space were sent.
    assert len(held) > 1000
    for _ in range(count):
        assert reader.recv(len(MESSAGE)) == MESSAGE
    assert [request.wait()["Y"].item() for request in requests] == [2 * 1999] * 2000
    assert model.ask({"X": column(1)})["Y"].item() == 2


def test_failures_wait_too(gateway: Gateway, pair: tuple[socket.socket, socket.socket]) -> None:
    model = gateway.model()
    writer, reader = pair
    count = fill(writer)
    requests = model.execute(*({"inputs": {"X": column(n)}, "timeout_us": 1000} for n in range(500)))
    assert any(not request.answered(0.001) for request in requests)
    for _ in range(count):
        assert reader.recv(len(MESSAGE)) == MESSAGE
    for request in requests:
        assert request.wait().code == "UNAVAILABLE"


def test_without_socket_pairs_no_answer_waits(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model()
    for request in model.execute(*({"inputs": {"X": column(n)}} for n in range(500))):
        assert request.wait().code is None
