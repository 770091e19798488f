"""Options of the controller's process, with a real controller that serves nothing."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from jigsaw_triton.api import controller
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.errors import InputError
from tests.e2e.system import free_ports
from tests.waiting import WAIT_LIMIT_S


@contextmanager
def started(deployment: Deployment) -> Iterator[None]:
    deployment.start()
    try:
        yield
    finally:
        controller.kill(deployment.paths)


@pytest.mark.slow
def test_a_controller_serves_metrics_on_a_port_and_logs_json(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    deployment = Deployment(tmp_path / "state", log_format="json", controller_metrics=port)
    with started(deployment):
        assert deployment.status()["controller"]["metrics"] == f"127.0.0.1:{port}"
        assert deployment.status()["controller"]["log_format"] == "json"
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_LIMIT_S) as answer:
            assert b'\njigsaw_controller_state{state="idle"} 1\n' in answer.read()
    (line,) = deployment.paths.log("controller").read_text().splitlines()
    assert json.loads(line)["message"] == f"the controller's metrics are served on http://127.0.0.1:{port}/metrics"


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        deployment = Deployment(tmp_path / "state", controller_metrics=f"127.0.0.1:{port}")
        with pytest.raises(InputError, match=f"port {port} is already in use"):
            deployment.start()
    assert not deployment.paths.state.exists()


@pytest.mark.parametrize(("option", "value"), [("log_format", "xml"), ("controller_metrics", "http")])
def test_a_wrong_option_is_named(option: str, value: str) -> None:
    with pytest.raises(InputError, match=value) as caught:
        Deployment(**{option: value})  # type: ignore[arg-type]
    assert caught.value.where == option
