"""The listener of a worker: calls, connections, and its socket."""

import os
import re
import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native import specs, triton
from tests.native.conftest import Bench, column
from tests.native.core import Array, texts
from tests.native.listener import DATA, INFER, ITEM, LISTENER, Client, call, client, connect, path, request
from tests.native.triton import Model, ServerError
from tests.waiting import WAIT_LIMIT_S, eventually

__all__ = ["client", "connect", "path"]


@pytest.mark.parametrize(
    "values",
    [
        column(1, 2),
        np.zeros((0, 3), np.float32),
        texts(b"a", b"", b"long" * 99).reshape(3, 1),
        np.arange(600_000, dtype=np.float32).reshape(2, -1),
        # The memory for the request is enlarged twice while it arrives.
        np.arange(12_000_000, dtype=np.int32).reshape(2, -1),
    ],
    ids=["two", "none", "texts", "many", "very many"],
)
def test_calls_are_answered_one_after_the_other(client: Client, values: Array) -> None:
    for _ in range(3):
        assert np.array_equal(client.infer(values), values)


def test_a_request_may_arrive_byte_by_byte(client: Client) -> None:
    for byte in request(INFER, call(id="a#1"), DATA):
        client.socket.sendall(bytes([byte]))
    assert client.answer()[2] == DATA
    assert client.ask(INFER, call(), DATA)[2] == DATA


@pytest.mark.parametrize(
    ("model", "status", "reason"),
    [
        ("fail", 500, "the model fails"),
        ("silent", 500, "the model gave no response"),
        ("full", 503, "the queue is full"),
        ("absent", 404, "Request for unknown model: 'absent' is not found"),
    ],
)
def test_errors_of_the_server_keep_the_connection(client: Client, model: str, status: int, reason: str) -> None:
    assert client.ask(f"/v2/models/{model}/infer", call(), DATA)[:2] == (status, {"error": reason})
    assert client.infer(column(7)).item() == 7


def test_id_and_trace_reach_the_model(client: Client) -> None:
    fields = {"traceparent": "00-1-2-01", "TraceState": "a=b"}
    answer = client.ask("/v2/models/say/infer", call(id="x,y#7"), DATA, **fields)
    assert answer[:2] == (500, {"error": "x,y#7;traceparent=00-1-2-01;tracestate=a=b;"})
    assert client.ask("/v2/models/say/infer", call(), DATA)[1] == {"error": ";"}


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"{", "JSON"),
        ({"outputs": []}, "inputs"),
        (call({**ITEM, "datatype": "INT33"}), "input X has an unknown data type"),
        (call({**ITEM, "shape": [-2, -1]}), "input X has an impossible shape"),
        (call({**ITEM, "shape": [3, 1]}), r"input X of shape \[3, 1\] has 8 bytes"),
        (call({**ITEM, "shape": [1, 1], "parameters": {"binary_data_size": 4}}), "have 8 bytes where 4 were announced"),
        (call({**ITEM, "parameters": {"binary_data_size": -1}}), "not a valid size"),
        (call({**ITEM, "name": "Z"}), "the only input is X"),
        (call({**ITEM, "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}), "have 8 bytes"),
        (
            call(outputs=[{"name": "Y", "parameters": {"shared_memory_region": "", "shared_memory_byte_size": 8}}]),
            "Unable to find shared memory region: ''",
        ),
    ],
)
def test_a_call_that_is_not_valid_keeps_the_connection(client: Client, head: Any, reason: str) -> None:
    status, text, _ = client.ask(INFER, head, DATA)
    assert status == 400
    assert re.search(reason, text["error"])
    assert client.infer(column(7)).item() == 7


def test_other_paths_are_refused(client: Client) -> None:
    for other in ("/", "/v2/models//infer", "/v2/models/echo/config"):
        assert client.ask(other, {})[0] == 404


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"nonsense\r\n\r\n", "the request is not HTTP"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "a length in the header is not a number"),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999999999\r\n\r\n", "contradict each other"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "only Content-Length is supported"),
        (
            b"POST / HTTP/1.1\r\nInference-Header-Content-Length: 9\r\nContent-Length: 1\r\n\r\n",
            "contradict each other",
        ),
        (b"X" * 70_000, "the request's header is too long"),
        (request(INFER, call(), DATA) * 2, "bytes follow the request"),
    ],
)
def test_a_connection_ends_after_a_request_that_cannot_be_read(client: Client, text: bytes, reason: str) -> None:
    client.socket.sendall(text)
    status, head, _ = client.answer()
    assert status == 400
    assert reason in head["error"]
    assert client.closed()


def hold(client: Client, count: int = 1) -> None:
    """Sends a call to a model that holds it."""
    client.send("/v2/models/held/infer", call(), DATA)
    assert triton.call("wait_held", count, WAIT_LIMIT_S)


def test_a_call_is_cancelled_if_its_client_goes(client: Client) -> None:
    hold(client)
    client.socket.close()
    assert triton.call("wait_held", 0, WAIT_LIMIT_S)


def test_a_client_that_sends_before_its_answer_is_disconnected(client: Client) -> None:
    hold(client)
    client.socket.sendall(b"P")
    assert client.closed()
    assert triton.call("wait_held", 0, WAIT_LIMIT_S)


def test_a_client_that_reads_slowly_delays_no_other(connect: Callable[[], Client]) -> None:
    slow, other = connect(), connect()
    data = bytes(20_000_000)
    item = {**ITEM, "shape": [1, len(data) // 4], "parameters": {"binary_data_size": len(data)}}
    slow.send(INFER, call(item), data)
    assert other.infer(column(1)).item() == 1
    assert slow.answer()[2] == data
    assert slow.infer(column(2)).item() == 2
    # Nor does the memory of its answer, which takes long to free.
    eventually(lambda: not triton.state()["responses"])
    assert "jigsaw-listen" not in triton.state()["freed_by"]


def test_a_client_that_goes_before_it_has_read_its_answer_is_harmless(connect: Callable[[], Client]) -> None:
    data = bytes(20_000_000)
    item = {**ITEM, "shape": [1, len(data) // 4], "parameters": {"binary_data_size": len(data)}}
    client = connect()
    client.send(INFER, call(item), data)
    assert client.socket.recv(1) == b"H"
    client.socket.close()
    assert connect().infer(column(1)).item() == 1


def test_calls_in_flight_are_answered_when_the_listener_ends(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_dir / "c.sock"
    monkeypatch.setenv("JIGSAW_CALL_SOCKET", str(path))
    triton.start()
    triton.call("let_go", 0)
    listener = Model(LISTENER)
    with Client(path) as idle, Client(path) as busy, ExitStack() as stack:
        hold(busy)
        # The listener removes its file even if the mode has changed.
        path.chmod(0o660)
        stack.enter_context(triton.unloading(listener))
        assert idle.closed()
        assert not path.exists()
        triton.call("let_go", 1)
        assert busy.answer()[2] == DATA
        assert busy.closed()


def test_a_listener_leaves_the_socket_of_another_process(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fresh = run_dir / "c.sock", run_dir / "d.sock"
    monkeypatch.setenv("JIGSAW_CALL_SOCKET", str(path))
    triton.start()
    listener = Model(LISTENER)
    with Client(path) as client, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(fresh))
        # A process that starts later has a later time, if the clock has ticked meanwhile.
        os.utime(fresh, (1, 1))
        fresh.rename(path)
        assert client.infer(column(1)).item() == 1
        listener.unload()
        assert client.closed()
        assert path.exists()


@pytest.mark.slow
def test_a_socket_that_is_removed_is_made_again(path: Path, client: Client) -> None:
    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    first = path.stat()
    path.unlink()
    eventually(listens)
    # The time is the same, by which gateways recognise the process.
    assert path.stat().st_mtime_ns == first.st_mtime_ns
    with Client(path) as later:
        assert later.infer(column(2)).item() == 2
    assert client.infer(column(1)).item() == 1
    assert sum("it has been made again" in line for line in triton.state()["logs"]) == 1


@pytest.mark.slow
def test_calls_do_not_delay_the_return_of_a_removed_socket(path: Path, client: Client) -> None:
    def took_s() -> float:
        """Returns the seconds for which a socket is missing that is removed right after a look of the listener."""
        path.unlink()
        eventually(path.exists)
        path.unlink()
        began_s = time.monotonic()
        time.sleep(0.8)
        assert client.infer(column(1)).item() == 1
        eventually(path.exists)
        return time.monotonic() - began_s

    # A second after the call would be 1.8 s. The machine may be busy during some of the tries.
    assert any(took_s() < 1.5 for _ in range(5))


@pytest.mark.slow
def test_a_server_stays_out_of_service_when_its_listener_makes_the_socket_again(bench: Bench, path: Path) -> None:
    bench.route("w", model="held")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=200, retry=False)]))
    assert front.ask({"X": column(1)}).blame == "worker"
    path.unlink()
    eventually(path.exists)
    # It would answer now, but is not called.
    triton.call("let_go", 1)
    bench.worker("other")
    specs.write_route(bench.run_dir, specs.entry("w", model="held"), specs.entry("other"))
    assert [front.ask({"X": column(n)})["Y"].item() for n in range(5)] == [2 * n for n in range(5)]
    assert bench.condemned()["w"]["identity"] == path.stat().st_mtime_ns


def test_connections_wait_while_too_many_files_are_open(path: Path, client: Client) -> None:
    # The first call also opens the files of modules that are imported late.
    assert client.infer(column(1)).item() == 1
    with socket.socket(socket.AF_UNIX) as waiting:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            waiting.connect(str(path))
            # The connections that are open are served meanwhile.
            for n in range(9):
                assert client.infer(column(n)).item() == n
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        waiting.settimeout(WAIT_LIMIT_S)
        waiting.sendall(request(INFER, call(), DATA))
        assert waiting.recv(12) == b"HTTP/1.1 200"


def test_a_listener_needs_a_socket(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triton.start()
    monkeypatch.delenv("JIGSAW_CALL_SOCKET", raising=False)
    with pytest.raises(ServerError, match="JIGSAW_CALL_SOCKET is not set"):
        Model(LISTENER)
    monkeypatch.setenv("JIGSAW_CALL_SOCKET", str(run_dir / "absent" / "w.sock"))
    with pytest.raises(ServerError, match=r"cannot listen at .*/absent/w.sock: No such file"):
        Model(LISTENER)
    monkeypatch.setenv("JIGSAW_CALL_SOCKET", str(run_dir / ("x" * 108)))
    with pytest.raises(ServerError, match="the path is longer than 107 bytes; choose a shorter run directory"):
        Model(LISTENER)
    assert not triton.leaks()
