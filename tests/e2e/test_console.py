"""The web console of a deployment, as a browser uses it."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

import numpy as np
import pytest

from jigsaw_triton.console.web.running import ASSETS_VARIABLE, running_console
from jigsaw_triton.controller.persistence.paths import deployment_paths
from tests.e2e.clients import Client
from tests.e2e.system import System, free_ports
from tests.waiting import WAIT_LIMIT_S, eventually

pytestmark = pytest.mark.e2e

FRAME = np.zeros((1, 640, 640, 3), np.uint8)
_POLL_S = 0.1


class Browser:
    """A browser that has opened the console.

    Args:
        url: URL that the console printed.
    """

    def __init__(self, url: str) -> None:
        self.origin = url.partition("/login")[0]
        self._opener: OpenerDirector = build_opener(HTTPCookieProcessor(CookieJar()))
        with self._opener.open(url, timeout=WAIT_LIMIT_S) as page:
            assert page.url == f"{self.origin}/"

    def get(self, path: str) -> Any:
        """Returns what the API answers."""
        with self._opener.open(f"{self.origin}{path}", timeout=WAIT_LIMIT_S) as response:
            return json.loads(response.read())

    def post(self, path: str, body: object) -> Any:
        """Posts JSON, and returns what the API answers."""
        headers = {"Content-Type": "application/json", "Origin": self.origin}
        request = Request(f"{self.origin}{path}", json.dumps(body).encode(), headers)
        with self._opener.open(request, timeout=WAIT_LIMIT_S) as response:
            return json.loads(response.read())

    def stream(self) -> Iterator[tuple[str, Any]]:
        """Yields server-sent events."""
        with self._opener.open(f"{self.origin}/api/stream", timeout=WAIT_LIMIT_S) as response:
            kind = ""
            for line in response:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

    def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Asks until the answer holds."""
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        while not holds(found := self.get(path)):
            assert time.monotonic() < give_up_at, found
            time.sleep(_POLL_S)
        return found


def first(stream: Iterator[tuple[str, Any]], kind: str, holds: Callable[[Any], bool] = lambda _: True) -> Any:
    give_up_at = time.monotonic() + WAIT_LIMIT_S
    for got, data in stream:
        if got == kind and holds(data):
            return data
        assert time.monotonic() < give_up_at
    raise AssertionError(f"the stream ended without {kind}")


def ask(system: System, request_id: str) -> bool:
    """Sends a request. Returns False, so that it may stand in a condition."""
    with Client(system, "grpc") as client:
        client.ask("traffic", {"FRAME": FRAME}, ("MAKE", "PERSON"), request_id=request_id)
    return False


def _arrivals(history: Any) -> list[float]:
    found: list[float] = history["samples"]["graphs"].get("traffic", {}).get("arrivals_rps", [])
    return found


def test_a_console_follows_a_deployment_to_its_end(system: System, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.html").write_text("<!doctype html><title>console</title>")
    system.set_variable(ASSETS_VARIABLE, tmp_path / "pages")
    app, (port,) = tmp_path / "crossing", free_ports(1)
    assert system.run("init", app, "--from", "traffic").code == 0
    gpus = ("--gpus", "1xH100-80GB", "--driver", "emulated", "--demand", "5")
    deployed = system.run("deploy", app, *gpus, *system.ports, "--detach", "--console", port)
    assert deployed.code == 0, deployed.err
    found = re.search(r"web console: (http://127\.0\.0\.1:\d+/login\?token=\S+)", deployed.err)
    assert found is not None, deployed.err
    browser = Browser(found[1])
    with pytest.raises(HTTPError, match="403"):
        Browser(found[1])

    stream = browser.stream()
    state = first(stream, "state")
    assert (state["deployment"]["state"], state["deployment"]["generation"]) == ("ready", 1)
    assert "detect" in state["graphs"]["traffic"]["tasks"]
    (gpu,) = state["gpus"].values()
    assert {piece["worker"] for piece in gpu["slices"]} == {n for n, w in state["workers"].items() if w["gpu"]}

    ask(system, "seen")
    sample = first(stream, "sample", lambda s: s["graphs"]["traffic"]["arrivals_rps"] > 0)
    assert sample["slices"] > 0
    # The controller writes samples to the disk a moment after it has sent them.
    history = browser.until("/api/history", lambda h: any(_arrivals(h)))
    assert [change["generation"] for change in history["changes"]] == [1]
    (trace,) = browser.until("/api/traces", lambda traces: bool(traces))
    assert trace["request"] == "seen"
    assert "plan" in browser.get("/api/events")["kinds"]
    assert "gateway" in browser.get("/api/servers")
    assert browser.post("/api/whatif", {"demand": {"traffic": 6}})["feasible"]

    # A controller that is killed is started again, and the open page goes on.
    os.kill(system.controller_pid(), signal.SIGKILL)
    assert first(stream, "event", lambda event: event["kind"] == "adopt")
    system.wait_started()
    # The first reading of the new controller is where its counting begins, so one request may be missed.
    assert first(stream, "sample", lambda s: s["graphs"]["traffic"]["arrivals_rps"] > 0 or ask(system, "later"))

    again = system.run("console")
    assert again.code == 0, again.err
    assert Browser(again.out.strip()).get("/api/session")["allow_changes"] is False

    assert system.run("down").code == 0
    eventually(lambda: running_console(deployment_paths(system.state)) is None)
