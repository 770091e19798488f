"""Answers are held while the server's HTTP front has no room for more."""

import socket
from collections.abc import Iterator

import pytest

from tests.native.test_backend import Gateway, column, gateway

__all__ = ["gateway"]

WORD = b"seventeen bytes.."


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of unnamed sockets, as a connection of the HTTP front has one."""
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def fill(sock: socket.socket) -> int:
    """Fills the buffer of a socket; the number of messages that it took."""
    sock.setblocking(False)
    count = 0
    try:
        while True:
            sock.send(WORD)
            count += 1
    except BlockingIOError:
        return count


def test_answers_wait_until_there_is_room(gateway: Gateway, pair: tuple[socket.socket, socket.socket]) -> None:
    gateway.worker()
    model = gateway.model()
    writer, reader = pair
    assert model.ask({"X": column(1)})["Y"].item() == 2
    count = fill(writer)
    requests = model.execute(*({"inputs": {"X": column(n)}} for n in range(2000)))
    held = [request for request in requests if not request.answered(0.0005)]
    # Those that had been promised room before went out.
    assert len(held) > 1000
    for _ in range(count):
        assert reader.recv(len(WORD)) == WORD
    assert [request.wait()["Y"].item() for request in requests] == [2 * 1999] * 2000
    assert model.ask({"X": column(1)})["Y"].item() == 2


def test_refusals_wait_too(gateway: Gateway, pair: tuple[socket.socket, socket.socket]) -> None:
    model = gateway.model()
    writer, reader = pair
    count = fill(writer)
    requests = model.execute(*({"inputs": {"X": column(n)}, "timeout_us": 1000} for n in range(500)))
    assert any(not request.answered(0.001) for request in requests)
    for _ in range(count):
        assert reader.recv(len(WORD)) == WORD
    for request in requests:
        assert request.wait().code == "UNAVAILABLE"


def test_without_pairs_nothing_waits(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model()
    for request in model.execute(*({"inputs": {"X": column(n)}} for n in range(500))):
        assert request.wait().code is None
