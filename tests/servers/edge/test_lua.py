"""Tests the edge's Lua code in a real HAProxy, in front of a server that records the requests that reach it."""

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, GatewayPorts
from jigsaw_triton.servers.edge.config import files, live
from jigsaw_triton.servers.haproxy.config import Place
from jigsaw_triton.servers.haproxy.process import haproxy_argv, write_files
from jigsaw_triton.servers.haproxy.program import find_haproxy
from tests.e2e.system import free_ports
from tests.waiting import WAIT_LIMIT_S

_IDLE_S = 1


class _Handler(BaseHTTPRequestHandler):
    def address_string(self) -> str:
        return "edge"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"{}")

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        content = self.rfile.read(size)
        if len(content) < size:
            return
        if content:
            self.server.received.append(content)  # type: ignore[attr-defined]
        self._answer(json.dumps({"type": self.headers["content-type"]}).encode())

    def _answer(self, content: bytes) -> None:
        busy = self.path == "/busy"
        if self.path == "/slow":
            time.sleep(_IDLE_S + 0.3)
        self.send_response(503 if busy else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Stub(ThreadingUnixStreamServer):
    """A gateway that records the bodies of complete requests."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.received: list[bytes] = []
        super().__init__(str(path), _Handler)

    def handle_error(self, *_: object) -> None:
        pass


class Front:
    """A HAProxy and the server behind it."""

    def __init__(self, port: int, place: Place) -> None:
        self.port = port
        self.place = place
        self.stub = Stub(live(place, "http"))
        threading.Thread(target=self.stub.serve_forever, args=(0.05,), daemon=True).start()

    def post(
        self, content: bytes | str, headers: Mapping[str, str] | None = None, path: str = "/v2/models/m/infer"
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Returns the status, the JSON and the headers of an answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_LIMIT_S)) as connection:
            connection.request("POST", path, content, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), {k.lower(): v for k, v in answer.getheaders()}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    http_port, grpc_port, exporter = free_ports(3)
    place = Place(tmp_path_factory.mktemp("edge"), files=2048)
    edge = Edge(limits=EdgeLimits(body_mib=4, queue_s=1, idle_s=_IDLE_S), metrics=exporter)
    write_files(place, files(edge, GatewayPorts(http_port, grpc_port), place, None), {})
    front = Front(http_port, place)
    with (
        (place.folder / "log").open("wb") as log,
        subprocess.Popen(
            haproxy_argv(find_haproxy(), place), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        ) as haproxy,
    ):
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        while True:
            try:
                if front.post("{}")[0] == 200:
                    break
            except OSError:
                pass
            assert time.monotonic() < give_up_at, (place.folder / "log").read_text()
            time.sleep(0.02)
        yield front
        haproxy.kill()
    front.stub.shutdown()
    front.stub.server_close()


def tensor(shape: object, data: object, **more: object) -> dict[str, object]:
    return {"name": "X", "datatype": "FP32", "shape": shape, "data": data, **more}


def body(*inputs: object) -> str:
    return json.dumps({"id": "a, [b] {c}", "inputs": inputs, "outputs": [{"name": "Y"}]})


@pytest.mark.parametrize(
    "content",
    [
        body(tensor([1, 3], [1, 2, 3])),
        body(tensor([2, 2], [[1.5, -2e3], [3, 4]])),
        body(tensor([], [7]), tensor([0], []), tensor([1, 0], [])),
        body(tensor([2], ['a,"b"', "[c]"])),
        body(tensor([3], [True, False, True], parameters={"shape": [9, 9], "data": [1]})),
        body({"name": "X", "datatype": "FP32", "shape": [1, 1000], "parameters": {"binary_data_size": 4000}}),
        '{"text_input": "shape", "shape": [1, 4000000000], "data": [1]}',
        '{"outputs": [{"shape": [1, 4000000000], "data": [1]}]}',
        body(tensor([50_000], [number / 7 for number in range(50_000)])),
    ],
)
def test_a_request_with_as_much_data_as_it_claims_passes(front: Front, content: str) -> None:
    status, _, _ = front.post(content)
    assert status == 200
    assert front.stub.received[-1] == content.encode()


@pytest.mark.parametrize(
    "content",
    [
        '{"inputs":[{"name":"X","shape":[1,4000000000],"datatype":"FP32","data":[1]}]}',
        body(tensor([1, 4], [1, 2, 3])),
        body(tensor([1, 1], [1]), tensor([3, 1], ["a,b", "c"])),
        '{"inputs":[{"data":[1],"shape":[99],"name":"X","datatype":"FP32"}]}',
        '{"inputs":[{"shape":[1],"shape":[99],"data":[1]}]}',
        '{"inputs":[{"shape":[99],"data":[1],"data":[1,1,1,1]}]}',
        '{"inputs":[],"inputs":[{"shape":[99],"data":[1]}]}',
        '{"inputs":[{"sh\\u0061pe":[99],"data":[1]}]}',
        '{"in\\u0070uts":[{"shape":[99],"data":[1]}]}',
        body(tensor([-1], [1])),
        body(tensor([1.5], [1])),
        body(tensor(["99"], [1])),
        '{"inputs":[{"shape":[9e9],"data":[1]}]}',
        '{"inputs":[{"shape":[99999999999999999999],"data":[1]}]}',
        '{"inputs":[{"shape":[4294967296,4294967296],"data":[1]}]}',
        body(tensor([50_001], [number / 7 for number in range(50_000)])),
        "[" * 100,
        "]",
    ],
)
def test_a_false_claim_never_reaches_the_gateway(front: Front, content: str) -> None:
    before = len(front.stub.received)
    status, answer, headers = front.post(content)
    assert (status, "claims more elements" in answer["error"]) == (400, True)
    assert headers["x-request-id"]
    assert front.post(body(tensor([1], [1])))[0] == 200
    assert len(front.stub.received) == before + 1


def test_only_the_json_of_a_binary_request_is_scanned(front: Front) -> None:
    head = body(tensor([1], [1]))
    length = {"Inference-Header-Content-Length": str(len(head))}
    assert front.post(head.encode() + b'{"inputs":[{"shape":[9],"data":[1]}]}\0"[', length)[0] == 200
    claim = body(tensor([9], [1]))
    assert front.post(claim.encode() + bytes(9), {"Inference-Header-Content-Length": str(len(claim))})[0] == 400
    assert front.post(head, {"Inference-Header-Content-Length": "all"})[0] == 400


def test_requests_that_hide_their_size_are_refused(front: Front) -> None:
    assert front.post("{}", {"Content-Encoding": "gzip"})[0] == 415
    assert front.post("{}", {"Content-Encoding": "identity"})[0] == 200
    assert front.post("", {"Content-Length": str(4 * 2**20 + 1)})[0] == 413
    with closing(http.client.HTTPConnection("127.0.0.1", front.port, timeout=WAIT_LIMIT_S)) as connection:
        connection.putrequest("POST", "/v2/models/m/infer")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        assert connection.getresponse().status == 411


def test_the_content_type_of_form_data_is_replaced_by_json(front: Front) -> None:
    _, answer, _ = front.post("{}", {"Content-Type": "application/x-www-form-urlencoded"})
    assert answer["type"] == "application/json"


def test_a_refusal_of_the_gateway_gets_a_retry_after_header(front: Front) -> None:
    status, _, headers = front.post("{}", path="/busy")
    assert (status, headers["retry-after"]) == (503, "1")


@pytest.mark.slow
def test_an_answer_may_take_longer_than_the_idle_timeout(front: Front) -> None:
    assert front.post("{}", path="/slow")[0] == 200


@pytest.mark.slow
def test_requests_wait_for_the_gateway_before_they_are_refused(front: Front) -> None:
    socket = live(front.place, "http")
    away = socket.with_name("away")
    socket.rename(away)
    status, answer, headers = front.post("{}")
    assert (status, answer["error"], headers["retry-after"]) == (503, "the gateway is not ready", "1")
    back = threading.Timer(0.2, lambda: away.rename(socket))
    back.start()
    assert front.post("{}")[0] == 200
    back.join()
