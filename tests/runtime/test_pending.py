"""The number of requests that wait, from metrics served by a stand-in."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest

from jigsaw_triton.runtime.pending import Pending

METRICS = b"""\
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="g.t.g10",version="1"} 9
nv_inference_pending_request_count{model="g.t.g1",version="1"} 42
nv_inference_pending_request_count{model="odd",version="1"} many
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    metrics: ClassVar[bytes] = METRICS
    asked: ClassVar[int] = 0

    def do_GET(self) -> None:
        Handler.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.metrics)))
        self.end_headers()
        self.wfile.write(self.metrics)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_line_of_the_model_is_read(address: str) -> None:
    pending = Pending(address, "g.t.g1")
    assert (pending(), pending()) == (42, 42)
    pending.close()


@pytest.mark.parametrize("model", ["g.t", "odd"])
def test_what_is_not_there_is_not_known(address: str, model: str) -> None:
    pending = Pending(address, model)
    assert pending() is None
    pending.close()


def test_without_a_server_nothing_is_known() -> None:
    assert Pending("127.0.0.1:9", "m")() is None


def test_after_no_answer_there_are_no_questions_for_longer_and_longer(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(Handler, "asked", 0)
    monkeypatch.setattr(Handler, "metrics", b"")
    pending = Pending(address, "g.t.g1", lambda: now)

    def asks_at(ticks: range) -> list[float]:
        nonlocal now
        times = []
        for tick in ticks:
            now, before = tick / 4, Handler.asked
            assert pending() is None
            if Handler.asked > before:
                times.append(now)
        return times

    assert asks_at(range(72)) == [0.0, 0.25, 0.75, 1.75, 3.75, 7.75, 12.75, 17.75]
    now = 22.75
    monkeypatch.setattr(Handler, "metrics", METRICS)
    assert (pending(), pending()) == (42, 42)
    monkeypatch.setattr(Handler, "metrics", b"")
    assert asks_at(range(91, 95)) == [22.75, 23.0, 23.5]
    pending.close()
