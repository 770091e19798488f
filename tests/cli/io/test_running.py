"""The running controller as commands see it, where no tritonserver is needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.running import Deployment, event_line, raise_failure, require_paths
from jigsaw_triton.console.client import ControllerGoneError
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.lock import take_lock
from jigsaw_triton.errors import InputError, JigsawError, StateError
from tests.cli.conftest import Run


class Controller:
    """Answers calls for events one after the other, and is gone after the last."""

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
    return {"events": events, "state": state, "queued": False, "error": error, "error_code": 1 if error else 0}


def stopped(state: dict[str, Any]) -> bool:
    return bool(state["state"] == "stopped")


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment.at(tmp_path / "state")
    deployment.paths.create()
    yield deployment
    for folder in (deployment.paths.run / "workers", deployment.paths.run):
        folder.rmdir()


@pytest.fixture
def journal(deployment: Deployment) -> Iterator[Journal]:
    journal = Journal(deployment.paths.journal)
    yield journal
    journal.close()


def speaking_to(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setattr(Deployment, "client", property(lambda _: controller))
    return controller


# --- nothing there --------------------------------------------------------------------------------------------------


def test_where_nothing_is_deployed_nothing_is_known_and_nothing_is_made(tmp_path: Path) -> None:
    deployment = Deployment.at(tmp_path / "state")
    assert deployment.status() is None
    assert deployment.recorded() == ()
    assert deployment.last_event() == 0
    assert not deployment.take_down(lambda _: None)
    with pytest.raises(StateError, match="nothing is deployed here") as caught:
        deployment.required_status()
    assert caught.value.where == str(tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", ["status", "events", "logs", "down"])
def test_commands_say_that_nothing_is_deployed(run: Run, tmp_path: Path, command: str) -> None:
    result = run(command, "--state", tmp_path / "state")
    assert result.exit_code == 4
    assert "nothing is deployed here" in result.stderr


def test_waiting_for_the_end_of_nothing_is_over_at_once(run: Run, tmp_path: Path) -> None:
    assert run("status", "--wait", "stopped", "--state", tmp_path / "state").exit_code == 0
    result = run("status", "--wait", "ready", "--timeout", "0", "--state", tmp_path / "state")
    assert result.exit_code == 4
    assert "nothing is deployed here" in result.stderr


def test_down_leaves_a_controller_alone_that_does_not_answer_yet(
    run: Run, deployment: Deployment, journal: Journal
) -> None:
    take_lock(deployment.paths.lock)
    result = run("down", "--state", deployment.paths.state)
    assert result.exit_code == 4
    assert "a controller is just starting or ending" in result.stderr
    assert deployment.paths.run.exists()


# --- what stays -----------------------------------------------------------------------------------------------------


def test_events_stay_when_the_controller_has_gone(run: Run, deployment: Deployment, journal: Journal) -> None:
    for text in ("one", "two", "three"):
        journal.event("plan", text)
    result = run("events", "-n", "2", "--state", deployment.paths.state)
    assert result.exit_code == 0
    assert [line.split()[1:] for line in result.stdout.splitlines()] == [["plan", "two"], ["plan", "three"]]
    assert [event.text for event in deployment.recorded(after=1)] == ["two", "three"]
    assert deployment.last_event() == 3


def test_logs_stay_and_a_name_that_is_unknown_is_told(run: Run, deployment: Deployment) -> None:
    state = deployment.paths.state
    deployment.paths.log("gateway").write_text("a\nb\n")
    deployment.paths.log("n-0-1g-0").write_text("c\n")
    assert run("logs", "--state", state).stdout == "gateway: a\ngateway: b\nn-0-1g-0: c\n"
    assert run("logs", "gateway", "-n", "1", "--state", state).stdout == "b\n"
    result = run("logs", "gatewy", "--state", state)
    assert result.exit_code == 2
    assert "'gateway'" in result.stderr


# --- following ------------------------------------------------------------------------------------------------------


def test_events_are_told_once_until_the_state_has_come(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = speaking_to(
        Controller(answer("solving", "a", "b"), answer("changing", "c", first=3), answer("ready"), answer("ready")),
        monkeypatch,
    )
    told: list[str] = []
    last = deployment.follow(told.append, 0, lambda state: bool(state["state"] == "ready"))
    assert last["state"] == "ready"
    assert [line.split()[-1] for line in told] == ["a", "b", "c"]
    assert controller.asked == [0, 2, 3]


def test_the_error_of_a_controller_that_has_gone_is_found_though_it_was_told_before(
    deployment: Deployment, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.event("error", "of an earlier change", 1)
    journal.event("error", "port 8000 is taken", 2)
    journal.event("stopped", "nothing runs any more")
    speaking_to(Controller(answer("stopping", "port 8000 is taken", first=2, error="x")), monkeypatch)
    told: list[str] = []
    last = deployment.follow(told.append, 1, stopped)
    assert (last["state"], last["error"], last["error_code"]) == ("stopped", "port 8000 is taken", 2)
    assert len(told) == 2
    assert told[-1].endswith("nothing runs any more")


def test_a_controller_that_was_taken_down_has_no_error(
    deployment: Deployment, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.event("error", "worker n-0-1g-0 ended unexpectedly (signal 9)")
    journal.event("down", "asked for by the user")
    speaking_to(Controller(), monkeypatch)
    assert deployment.follow(lambda _: None, 0, stopped)["error"] == ""


def test_an_event_is_a_line() -> None:
    assert event_line("2026-01-02T03:04:05.678+00:00", "plan", "generation 1") == "03:04:05 plan       generation 1"


# --- starting -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_controller_that_somebody_else_has_just_started_is_left_alone(deployment: Deployment) -> None:
    take_lock(deployment.paths.lock)
    with pytest.raises(StateError, match="another deploy is under way"):
        deployment.start()


@pytest.mark.slow
def test_a_controller_that_does_not_start_says_why(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("JIGSAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(JigsawError, match=r"did not start; its log ends:\n(?s:.*)cache") as caught:
        deployment.start()
    assert caught.value.where == str(deployment.paths.log("controller"))


# --- errors ---------------------------------------------------------------------------------------------------------


def test_standard_input_cannot_be_deployed() -> None:
    with pytest.raises(InputError, match="standard input"):
        require_paths(["app", "-"])


def test_what_the_controller_is_to_read_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert require_paths(["app", "/other"]) == [str(tmp_path / "app"), "/other"]


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), (2, 2), (0, 1)])
def test_the_exit_code_of_a_failed_change_is_its_errors(code: int, exit_code: int) -> None:
    with pytest.raises(JigsawError, match="no room") as caught:
        raise_failure({"error": "no room", "error_code": code}, Output())
    assert caught.value.exit_code == exit_code


def test_no_error_raises_nothing() -> None:
    raise_failure({"error": "", "error_code": 0}, Output())
