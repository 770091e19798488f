"""Controllers that run and do not answer. These controllers are real; `sleep` takes the place of their servers."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api import controller
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.reporting import Reporter
from jigsaw_triton.console.client import ControllerClient, ControllerHungError
from jigsaw_triton.controller.persistence.lock import is_locked
from jigsaw_triton.errors import StateError
from jigsaw_triton.servers.members import marks, members

pytestmark = pytest.mark.slow

WAIT_LIMIT_S = 1.0


class Notes(Reporter):
    """Reporter that keeps its notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment whose controller has just been started, seen by a client that waits a second."""
    deployment = Deployment(tmp_path / "state")
    deployment.start()
    monkeypatch.setattr(
        Deployment, "client", property(lambda self: ControllerClient(self.paths.control_socket, WAIT_LIMIT_S))
    )
    yield deployment
    controller.kill(deployment.paths)
    shutil.rmtree(deployment.paths.run, ignore_errors=True)


@pytest.fixture
def server(deployment: Deployment) -> Iterator["subprocess.Popen[bytes]"]:
    env = {**os.environ, **marks(deployment.paths.state, "a-0-1g-0")}
    with subprocess.Popen(["sleep", "1000"], env=env, start_new_session=True) as process:
        yield process
        process.kill()


def pids(deployment: Deployment) -> tuple[int, int]:
    """Process ids of the supervisor and of the controller."""
    status: dict[str, Any] = ControllerClient(deployment.paths.control_socket).status()["controller"]
    return status["supervisor"], status["pid"]


@pytest.mark.parametrize("stopped", ["controller", "both"])
def test_down_kills_a_controller_that_does_not_answer_and_ends_its_servers(
    deployment: Deployment, server: "subprocess.Popen[bytes]", stopped: str
) -> None:
    supervisor, pid = pids(deployment)
    for each in (pid, supervisor) if stopped == "both" else (pid,):
        os.kill(each, signal.SIGSTOP)
    notes = Notes()
    deployment.down(reporter=notes)
    assert notes.lines == ["the controller does not answer: it is killed, and its servers are ended without it"]
    assert server.wait() == -signal.SIGKILL
    paths = deployment.paths
    assert not (is_locked(paths.lock) or is_locked(paths.supervisor_lock))
    assert members(paths.state) == ()
    assert not paths.run.exists()
    last = deployment.events(limit=1)[0]
    assert (last.kind, last.text) == ("stopped", "all servers of the deployment were ended without their controller")
    with pytest.raises(StateError, match="nothing is deployed here"):
        deployment.down()


def test_a_controller_that_hangs_while_it_ends_is_killed(deployment: Deployment) -> None:
    _, pid = pids(deployment)
    client = deployment.client

    class HangsAtDown(ControllerClient):
        def down(self) -> None:
            os.kill(pid, signal.SIGSTOP)
            client.down()

    hangs = HangsAtDown(deployment.paths.control_socket, WAIT_LIMIT_S)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deployment, "client", property(lambda _: hangs))
        deployment.down()
    assert not is_locked(deployment.paths.lock)


def test_a_controller_that_always_dies_is_ended_with_its_supervisor(
    deployment: Deployment, server: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pid = pids(deployment)
    deployment.paths.gateway_repository.rmdir()
    deployment.paths.gateway_repository.write_text("no controller can create its folders")
    os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr("jigsaw_triton.api.observed._RESTART_S", 2.0)
    deployment.down()
    assert server.wait() == -signal.SIGKILL
    assert not is_locked(deployment.paths.supervisor_lock)


def test_status_says_that_the_controller_does_not_answer(deployment: Deployment) -> None:
    _, pid = pids(deployment)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ControllerHungError, match="the controller is running, but does not answer") as caught:
        deployment.status()
    assert caught.value.exit_code == 4
    assert "`jigsaw-triton down` ends the controller and the servers" in caught.value.hint
    assert not deployment.running


def test_a_wait_outlasts_a_controller_that_does_not_answer_until_its_timeout(deployment: Deployment) -> None:
    _, pid = pids(deployment)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ControllerHungError):
        deployment.wait("stopped", timeout_s=0.0)
    killing = threading.Timer(2 * WAIT_LIMIT_S, controller.kill, (deployment.paths,))
    killing.start()
    deployment.wait("stopped", timeout_s=60.0)
    killing.join()


def test_whoever_follows_the_events_waits_for_a_controller_that_does_not_answer(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.api.observed._EVENT_WAIT_S", 0.1)
    _, pid = pids(deployment)
    os.kill(pid, signal.SIGSTOP)
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        os.kill(pid, signal.SIGCONT)

    following = threading.Thread(target=deployment.follow, args=(report, 0, lambda _: True))
    following.start()
    following.join(timeout=60)
    assert not following.is_alive()
    (line,) = lines
    assert line.split(maxsplit=2)[1:] == ["error", "the controller is running, but does not answer; the servers go on"]
    assert time.strptime(line[:8], "%H:%M:%S")
