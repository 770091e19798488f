"""Observation of deployments, without tritonservers."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jigsaw_triton.api import controller, observed
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.observed import event_line, raise_failure
from jigsaw_triton.console.client import ControllerGoneError
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import take_lock
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import IDENTITY_FACT, REPLACED_FACT
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.servers.members import marks
from tests.cli.conftest import Run
from tests.fakes.controller import FakeController


class EventSource:
    """Controller that returns one answer for each call of `events`, and is gone after the last."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)
        self.asked: list[int] = []

    def status(self) -> dict[str, Any]:
        raise ControllerGoneError("gone")

    def events(self, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]:
        self.asked.append(after)
        if not self._answers:
            raise ControllerGoneError("gone")
        return self._answers.pop(0)


def answer(state: str, *texts: str, first: int = 1, error: str = "") -> dict[str, Any]:
    events = [
        {"id": first + i, "at": "2026-01-02T03:04:05.678+00:00", "kind": "note", "text": text}
        for i, text in enumerate(texts)
    ]
    code = 1 if error else 0
    asked = {"asked_error": error, "asked_error_code": code}
    return {"events": events, "state": state, "queued": False, "error": error, "error_code": code, **asked}


def stopped(state: dict[str, Any]) -> bool:
    return bool(state["state"] == "stopped")


def connect(controller: EventSource, monkeypatch: pytest.MonkeyPatch) -> EventSource:
    monkeypatch.setattr(Deployment, "client", property(lambda _: controller))
    return controller


# --- nothing is deployed ----------------------------------------------------------------------------------------------


def test_looking_for_a_deployment_creates_nothing(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "state")
    assert deployment.find_status() is None
    assert not deployment.running
    assert deployment.events() == ()
    assert deployment.last_event() == 0
    deployment.down(missing_ok=True)
    for call in (deployment.status, deployment.plan, deployment.down):
        with pytest.raises(StateError, match="nothing is deployed here") as caught:
            call()
    assert caught.value.where == str(tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", ["status", "events", "logs", "down"])
def test_commands_say_that_nothing_is_deployed(run: Run, tmp_path: Path, command: str) -> None:
    result = run(command, "--state", tmp_path / "state")
    assert result.exit_code == 4
    assert "nothing is deployed here" in result.stderr


def test_waiting_for_the_end_returns_at_once_if_nothing_is_deployed(run: Run, tmp_path: Path) -> None:
    assert run("status", "--wait", "stopped", "--state", tmp_path / "state").exit_code == 0
    result = run("status", "--wait", "ready", "--timeout", "0", "--state", tmp_path / "state")
    assert result.exit_code == 4
    assert "nothing is deployed here" in result.stderr


def test_down_leaves_alone_a_controller_that_does_not_answer_yet(
    run: Run, deployment: Deployment, journal: Journal
) -> None:
    take_lock(deployment.paths.lock)
    result = run("down", "--state", deployment.paths.state)
    assert result.exit_code == 4
    assert "a controller is starting or ending" in result.stderr
    assert deployment.paths.run.exists()


def test_a_deployment_whose_controller_was_replaced_says_so_until_it_is_taken_down(deployment: Deployment) -> None:
    with closing(Journal(deployment.paths.journal)) as journal:
        journal.keep_fact(REPLACED_FACT, "the controller on m2 has replaced this one since noon")
        journal.keep_fact(IDENTITY_FACT, "d")
    with pytest.raises(StateError, match="the controller on m2 has replaced this one since noon") as caught:
        deployment.status()
    assert caught.value.where == str(deployment.paths.state) and "jigsaw-triton takeover" in caught.value.hint
    # The workers on other machines belong to the other controller now.
    assert not controller.agents_serve(deployment.paths)
    deployment.down()
    with pytest.raises(StateError, match="nothing is deployed here"):
        deployment.status()
    with pytest.raises(StateError, match="nothing is deployed here"):
        deployment.down()
    with closing(JournalReader(deployment.paths.journal)) as journal:
        # The agents keep serving, and would take the next deployment for this one if it had the same identity.
        assert journal.fact(IDENTITY_FACT) == ""


# --- after the end ----------------------------------------------------------------------------------------------------


def test_events_outlive_the_controller(run: Run, deployment: Deployment, journal: Journal) -> None:
    for text in ("one", "two", "three"):
        journal.event("plan", text)
    result = run("events", "-n", "2", "--state", deployment.paths.state)
    assert result.exit_code == 0
    assert [line.split()[1:] for line in result.stdout.splitlines()] == [["plan", "two"], ["plan", "three"]]
    assert [event.text for event in deployment.events(after=1)] == ["two", "three"]
    assert deployment.last_event() == 3


def test_logs_outlive_the_controller_and_an_unknown_name_is_refused(run: Run, deployment: Deployment) -> None:
    state = deployment.paths.state
    deployment.paths.log("gateway").write_text("a\nb\n")
    deployment.paths.log("n-0-1g-0").write_text("c\n")
    assert run("logs", "--state", state).stdout == "gateway: a\ngateway: b\nn-0-1g-0: c\n"
    assert run("logs", "gateway", "-n", "1", "--state", state).stdout == "b\n"
    result = run("logs", "gatewy", "--state", state)
    assert result.exit_code == 2
    assert "'gateway'" in result.stderr


def test_logs_show_lines_of_json_as_text(run: Run, deployment: Deployment) -> None:
    entry = {"time": "T", "level": "INFO", "logger": "m", "message": "ready", "worker": "w0"}
    line = json.dumps(entry)
    deployment.paths.log("controller").write_text(f"plain\n{line}\n")
    state = deployment.paths.state
    assert run("logs", "--state", state).stdout == "plain\nT INFO m: ready (worker w0)\n"
    made = json.loads(run("logs", "-o", "json", "--state", state).stdout)
    assert made == {"logs": {"controller": ["plain", line]}}


# --- following ------------------------------------------------------------------------------------------------------


def test_events_are_reported_once_until_the_wanted_state(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = connect(
        EventSource(answer("solving", "a", "b"), answer("changing", "c", first=3), answer("ready"), answer("ready")),
        monkeypatch,
    )
    lines: list[str] = []
    last = deployment.follow(lines.append, 0, lambda state: bool(state["state"] == "ready"))
    assert last["state"] == "ready"
    assert [line.split()[-1] for line in lines] == ["a", "b", "c"]
    assert controller.asked == [0, 2, 3]


def test_the_error_of_a_controller_that_has_ended_is_found_in_events_that_were_reported(
    deployment: Deployment, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.event("error", "of an earlier change", 1)
    journal.event("error", "port 8000 is taken", 2)
    journal.event("stopped", "nothing runs any more")
    connect(EventSource(answer("stopping", "port 8000 is taken", first=2, error="x")), monkeypatch)
    lines: list[str] = []
    last = deployment.follow(lines.append, 1, stopped)
    assert (last["state"], last["error"], last["error_code"]) == ("stopped", "port 8000 is taken", 2)
    assert len(lines) == 2
    assert lines[-1].endswith("nothing runs any more")


def test_a_controller_that_was_stopped_has_no_error(
    deployment: Deployment, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.event("error", "worker n-0-1g-0 ended unexpectedly (signal 9)")
    journal.event("down", "asked for by the user")
    journal.event("stopped", "nothing runs any more")
    connect(EventSource(), monkeypatch)
    assert deployment.follow(lambda _: None, 0, stopped)["error"] == ""


def test_a_controller_that_died_has_an_error(
    deployment: Deployment, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.event("transition", "start servers and load models where there is room")
    connect(EventSource(), monkeypatch)
    last = deployment.follow(lambda _: None, 0, stopped)
    assert last["error"].startswith("the controller ended unexpectedly")
    assert (last["state"], last["error_code"]) == ("gone", 1)


@pytest.mark.parametrize(
    ("kind", "code", "word"),
    [
        ("stopped", 0, ""),
        ("left", 4, "error: the last event"),
        ("transition", 1, "error: the controller ended unexpectedly"),
    ],
)
def test_following_the_events_ends_with_the_reason(
    deployment: Deployment, journal: Journal, monkeypatch: pytest.MonkeyPatch, run: Run, kind: str, code: int, word: str
) -> None:
    journal.event(kind, "the last event")
    connect(EventSource(answer("ready"), answer("ready")), monkeypatch)
    result = run("events", "--follow", "--state", deployment.paths.state)
    assert (result.exit_code, re.split(r"[;\n]", result.stderr)[0]) == (code, word)


def test_an_event_is_printed_on_one_line() -> None:
    assert event_line("2026-01-02T03:04:05.678+00:00", "plan", "generation 1") == "03:04:05 plan       generation 1"


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_deployment_that_does_not_serve_is_not_ready(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = FakeController().install(monkeypatch)
    controller.running, controller.serving = True, False
    with pytest.raises(StateError, match="not ready within 0 s: ready; the gateway does not serve"):
        deployment.wait("ready", timeout_s=0.0)
    controller.serving = True
    deployment.wait("ready", timeout_s=0.0)


@pytest.fixture
def server(deployment: Deployment) -> Iterator[None]:
    """A server of the deployment that has no controller."""
    env = {**os.environ, **marks(deployment.paths.state, "a-0-1g-0")}
    with subprocess.Popen(["sleep", "1000"], env=env, start_new_session=True) as process:
        # `Popen` returns while the kernel still sets up the environment.
        while not Path(f"/proc/{process.pid}/environ").read_bytes():
            time.sleep(0.001)
        yield
        process.kill()


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("state", ["ready", "stopped"])
def test_servers_without_a_controller_are_neither_ready_nor_stopped(
    run: Run, deployment: Deployment, state: str
) -> None:
    result = run("status", "--wait", state, "--timeout", "0", "--state", deployment.paths.state)
    assert result.exit_code == 4
    assert "no controller is running here, but 1 servers are: a-0-1g-0" in result.stderr


@pytest.mark.usefixtures("server")
def test_following_lasts_until_the_servers_are_ended_without_their_controller(
    deployment: Deployment, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(EventSource(), monkeypatch)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        if not waits:
            controller.end_orphans(deployment.paths)
        waits.append(seconds)

    monkeypatch.setattr(observed, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=wait))
    lines: list[str] = []
    assert deployment.follow(lines.append, 0, stopped)["state"] == "stopped"
    assert lines[-1].endswith("all servers of the deployment were ended without their controller")
    assert waits


def test_an_interrupted_wait_says_so(run: Run, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Deployment) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Deployment, "find_status", interrupted)
    result = run("status", "--wait", "ready", "--state", deployment.paths.state)
    assert result.exit_code == 130
    assert "interrupted before the deployment was ready" in result.stderr


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), (2, 2), (0, 1)])
def test_a_failed_change_has_the_exit_code_of_its_error(code: int, exit_code: int) -> None:
    with pytest.raises(JigsawError, match="no room") as caught:
        raise_failure({"error": "no room", "error_code": code})
    assert caught.value.exit_code == exit_code


def test_a_change_that_failed_is_reported_although_a_later_one_succeeded(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(EventSource({**answer("ready"), "asked_error": "no room", "asked_error_code": 3}), monkeypatch)
    with pytest.raises(JigsawError, match="no room") as caught:
        deployment.wait_settled(0)
    assert caught.value.exit_code == 3


def test_an_error_of_a_change_that_nobody_asked_for_is_not_reported(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(EventSource({**answer("ready", error="no room"), "asked_error": "", "asked_error_code": 0}), monkeypatch)
    deployment.wait_settled(0)


def test_a_change_without_an_error_raises_nothing() -> None:
    raise_failure({"error": "", "error_code": 0})
