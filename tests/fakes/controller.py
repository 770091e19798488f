"""A stand-in for the controller's process that plans nothing and starts no server."""

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api import controller, deployment, programs
from jigsaw_triton.api.request import Request
from jigsaw_triton.console.client import ControllerGoneError
from jigsaw_triton.console.options import DEFAULTS
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.persistence.checkpoint import Checkpoints
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.errors import StateError
from tests.controller.worlds import bundle, plan


def keep_deployed(state: Path, request: Request) -> None:
    """Writes the checkpoint of a deployment that serves the graphs of a request, with plans for their demands.

    Args:
        state: Folder of the deployment.
        request: Request that was carried out.
    """
    paths, wanted = deployment_paths(state), request.read()
    paths.create()
    graphs = {name: plan(rps).graphs["app"] for name, rps in wanted.demand_rps.items()}
    running = Generation(wanted, replace(plan(1.0), graphs=graphs), bundle(1, []))
    with closing(Journal(paths.journal)) as journal:
        Checkpoints(journal).save(State(running=running))


class FakeController:
    """Accepts requests, and answers as a controller whose changes take no time.

    Args:
        error: Error that every change ends with; empty for success.

    Attributes:
        requests: Requests to deploy, in order.
        rollbacks: Generations to return to, in order.
        canary: True while a canary is in progress, which every rollback ends.
        paused: True while the load causes no change.
        refusing: True while another user's change is in progress, so that requests are refused.
        running: True between the start and the end.
        starts: Number of times that the controller was started.
        state: State while the controller is running.
        serving: True if all graphs are served.
        graphs: Names of the graphs that are served; by default `hello`, after the first request.
        nodes: Names of the machines.
        cordoned: Names of the machines that are withdrawn.
        interrupt: Function that is called when a user follows the events of a deployment that serves.
    """

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.requests: list[Mapping[str, Any]] = []
        self.rollbacks: list[int | None] = []
        self.canary = False
        self.paused = False
        self.refusing = False
        self.running = False
        self.starts = 0
        self.state = "ready"
        self.serving = True
        self.graphs: list[str] = []
        self.nodes: list[str] = []
        self.cordoned: set[str] = set()
        self.interrupt: Callable[[], None] = lambda: None
        self._reported = False

    def install(self, monkeypatch: pytest.MonkeyPatch, *, check_ports: bool = False) -> "FakeController":
        """Takes the place of the controller of every deployment.

        Args:
            monkeypatch: Fixture of the test.
            check_ports: True to check that ports are free. Another process of the machine may have the default ones.
        """
        monkeypatch.setattr(controller, "start", self._start)
        if not check_ports:
            monkeypatch.setattr(controller, "check_ports_free", lambda _: None)
        monkeypatch.setattr(programs, "ensure_programs", lambda *_: None)
        monkeypatch.setattr(deployment.Deployment, "client", property(lambda _: self))
        return self

    def _start(self, *_: object) -> None:
        self.running = True
        self.starts += 1

    def status(self) -> dict[str, Any]:
        if not self.running:
            raise ControllerGoneError("gone")
        names = self.graphs or (["hello"] if self.requests else [])
        return {
            "state": self.state,
            "generation": 0 if self.error else len(self.requests),
            "controller": {"pid": 1, "supervisor": 2, **DEFAULTS.to_json()},
            "plan": None,
            "graphs": {name: {"base_rps": 20.0, "rows": []} for name in names},
            "serving": self.serving,
            "reasons": [] if self.serving else ["the gateway does not serve"],
            "workers": [],
            "nodes": [self._node(name) for name in self.nodes],
            "gateway": {"state": "absent"},
        }

    def _node(self, name: str) -> dict[str, Any]:
        state = "cordoned" if name in self.cordoned else "ready"
        return {"name": name, "state": state, "agent": None, "topology": {}, "gpus": {"cpu": 1}, "workers": []}

    def cordon(self, node: str, *, cordoned: bool, drain: bool = False) -> None:
        assert node in self.nodes
        (self.cordoned.add if cordoned else self.cordoned.discard)(node)

    def _check_free(self) -> None:
        if self.refusing:
            raise StateError("another deploy is under way")

    def deploy(self, request: Mapping[str, Any], copying_s: float = 0.0) -> None:
        self._check_free()
        self.requests.append(request)
        self.state = "ready" if self.state == "idle" else self.state
        self._reported = False

    def events(self, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]:
        if self.running and self._reported:
            self.interrupt()
        self._reported = True
        state = self.state if self.running else "stopped"
        code = int(bool(self.error))
        asked = {"asked_error": self.error, "asked_error_code": code}
        return {"events": [], "state": state, "queued": False, "error": self.error, "error_code": code, **asked}

    def rollback(self, generation: int | None) -> bool:
        self.rollbacks.append(generation)
        self._reported = False
        return self.canary

    def pause(self, paused: bool) -> None:
        self.paused = paused

    def remove_all(self, names: Collection[str]) -> None:
        self._check_free()
        assert set(names) == self.status()["graphs"].keys()
        self.running = False

    def down(self) -> None:
        self.running = False
