"""Drift of a deployment, from its status and from the metrics of its gateway."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api.drift import live_drifts
from jigsaw_triton.api.observed import ObservedDeployment
from jigsaw_triton.errors import StateError
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.problems import row
from tests.fakes.raw_server import answering

TABLE = ProfileTable([row("t0", "a", instances=2, batch=batch) for batch in (1, 4)])


class Observed(ObservedDeployment):
    """Deployment with a given status."""

    def __init__(self, state: Path, status: dict[str, Any]) -> None:
        super().__init__(state)
        self._status = status

    def status(self) -> dict[str, Any]:
        return self._status


def worker(name: str, *, start: int = 0, instances: int = 2) -> dict[str, Any]:
    model = {"graph": "app", "task": "t0", "variant": "a", "instances": instances, "batch": 4}
    return {
        **{"name": name, "node": "n", "gpu": 0, "model": "cpu", "slice": "1g", "start": start},
        "models": [model],
    }


def times(worker: str, batch: int, batches: int, ratio: float, *, graph: str = "app") -> str:
    labels = f'graph="{graph}",task="t0",variant="a",worker="{worker}",batch="{batch}"'
    values = {"batches": float(batches), "seconds": ratio * 0.008 * batches, "profiled_seconds": 0.008 * batches}
    return "".join(f"jigsaw_service_{name}_total{{{labels}}} {value}\n" for name, value in values.items())


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[str]]]:
    """Serves the lines of a list as metrics; returns its address and the list."""
    lines: list[str] = []

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write("".join(lines).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics", lines
    server.shutdown()
    thread.join()
    server.server_close()


def observed(tmp_path: Path, url: str | None, *workers: dict[str, Any]) -> Observed:
    return Observed(tmp_path, {"graphs": {"app": {}}, "gateway": {"metrics": url}, "workers": list(workers)})


def test_each_batch_size_of_all_workers_is_compared_with_its_row(
    tmp_path: Path, gateway: tuple[str, list[str]]
) -> None:
    url, lines = gateway
    lines += ["# HELP x\n", times("w0", 1, 300, 2.0), times("w1", 1, 100, 2.0), times("w1", 4, 50, 1.0)]
    lines += [times("w0", 1, 999, 9.0, graph="other"), times("gone", 1, 999, 9.0)]
    one, four = live_drifts("app", TABLE, observed(tmp_path, url, worker("w0"), worker("w1", start=1)))
    assert (one.key, one.workers, one.batches, one.verdict) == (TABLE.rows()[0].key, 2, 400, "slower")
    assert (four.key, four.workers, four.verdict) == (TABLE.rows()[1].key, 1, "too few batches")


def test_processes_of_one_slice_are_the_instances_of_a_row(tmp_path: Path, gateway: tuple[str, list[str]]) -> None:
    url, lines = gateway
    lines += [times("w0", 1, 300, 1.0), times("w1", 1, 300, 1.0)]
    (found,) = live_drifts("app", TABLE, observed(tmp_path, url, worker("w0", instances=1), worker("w1", instances=1)))
    assert (found.key.instances, found.workers) == (2, 2)


def test_a_proxy_of_the_environment_is_not_asked(
    tmp_path: Path, gateway: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    url, lines = gateway
    lines.append(times("w0", 1, 300, 1.0))
    (found,) = live_drifts("app", TABLE, observed(tmp_path, url, worker("w0")))
    assert found.batches == 300


def test_an_answer_that_is_not_http_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        deployment = observed(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}/metrics")
        with (
            answering(server, b"no status line\r\n\r\n"),
            pytest.raises(StateError, match="the metrics of the gateway cannot be read"),
        ):
            live_drifts("app", TABLE, deployment)


def test_too_few_batches_everywhere_is_an_error(tmp_path: Path, gateway: tuple[str, list[str]]) -> None:
    url, lines = gateway
    with pytest.raises(StateError, match="has answered 100 batches yet, the busiest 0"):
        live_drifts("app", TABLE, observed(tmp_path, url, worker("w0")))
    lines.append(times("w0", 1, 99, 1.0))
    with pytest.raises(StateError, match="has answered 100 batches yet, the busiest 99"):
        live_drifts("app", TABLE, observed(tmp_path, url, worker("w0")))


def test_a_graph_that_is_not_served_and_a_gateway_that_is_gone_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="the graph other is not served here; served are: app"):
        live_drifts("other", TABLE, observed(tmp_path, None))
    with pytest.raises(StateError, match="the deployment has no gateway"):
        live_drifts("app", TABLE, observed(tmp_path, None))
    with pytest.raises(StateError, match="the metrics of the gateway cannot be read"):
        live_drifts("app", TABLE, observed(tmp_path, "http://127.0.0.1:9/metrics"))
