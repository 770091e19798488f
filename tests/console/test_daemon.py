import asyncio
import errno
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.console import daemon
from jigsaw_triton.console.daemon import run_controller
from jigsaw_triton.console.server import StatusServer
from jigsaw_triton.console.threads import THREADS
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.persistence.checkpoint import UnknownFormatError
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import take_lock
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.errors import StateError
from jigsaw_triton.servers.members import marks
from tests.console.conftest import Desk
from tests.controller.worlds import wanted


def test_a_deployment_has_one_controller(desk: Desk) -> None:
    take_lock(desk.paths.lock)
    socket = desk.paths.control_socket
    socket.touch()
    with pytest.raises(StateError, match="a controller is already running here") as caught:
        run_controller(desk.paths, desk.fleet.commands.installation, lambda *_: ChangeRequest(wanted()), Settings())
    assert caught.value.where == str(desk.paths.state)
    assert socket.exists()


def test_only_the_owner_can_open_the_lock(tmp_path: Path) -> None:
    take_lock(tmp_path / "lock")
    assert (tmp_path / "lock").stat().st_mode & 0o077 == 0


def test_a_controller_has_all_its_threads_from_the_start(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    # Threads of earlier tests may end meanwhile.
    others = set(threading.enumerate())

    async def adopt(_: Controller) -> None:
        counts.append(len(set(threading.enumerate()) - others))
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(100)))
        counts.append(len(set(threading.enumerate()) - others))
        raise StateError("enough")

    monkeypatch.setattr(daemon, "_log_to", lambda *_: None)
    monkeypatch.setattr(Controller, "adopt", adopt)
    with pytest.raises(StateError, match="enough"):
        run_controller(desk.paths, desk.fleet.commands.installation, lambda *_: ChangeRequest(wanted()), Settings())
    assert counts[0] == counts[1] >= THREADS


def test_a_controller_that_cannot_start_its_planning_process_yet_serves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Adopted(Exception):
        """The controller goes on after it has adopted its servers."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def serve(_: StatusServer) -> None:
        raise Adopted

    monkeypatch.setattr(daemon, "_log_to", lambda *_: None)
    monkeypatch.setattr(subprocess, "Popen", fail)
    monkeypatch.setattr(StatusServer, "start", serve)
    with pytest.raises(Adopted):
        run_controller(desk.paths, desk.fleet.commands.installation, lambda *_: ChangeRequest(wanted()), Settings())
    assert "the planning process cannot be started" in caplog.text


@pytest.fixture
def server(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A running process of the deployment."""
    monkeypatch.setattr(daemon, "_log_to", lambda *_: None)
    desk.paths.secret.write_text("0123456789abcdef")
    env = {**os.environ, **marks(desk.paths.state, "gateway")}
    with subprocess.Popen(["/bin/sleep", "60"], env=env, start_new_session=True) as process:
        yield process
        process.kill()


def test_a_controller_that_has_lost_its_state_leaves_the_servers_alone(
    desk: Desk, server: subprocess.Popen[bytes]
) -> None:
    installation = desk.fleet.commands.installation
    with pytest.raises(StateError, match="is lost") as caught:
        run_controller(desk.paths, installation, lambda *_: ChangeRequest(wanted()), Settings(), resume=True)
    assert caught.value.exit_code == daemon.UNREADABLE
    assert server.poll() is None
    assert desk.paths.run.exists() and desk.paths.secret.exists()


def test_a_controller_whose_journal_is_damaged_leaves_the_servers_alone(
    desk: Desk, server: subprocess.Popen[bytes]
) -> None:
    desk.paths.journal.unlink()
    desk.paths.journal.write_bytes(b"not a journal")
    installation = desk.fleet.commands.installation
    with pytest.raises(StateError, match="is lost"):
        run_controller(desk.paths, installation, lambda *_: ChangeRequest(wanted()), Settings(), resume=True)
    assert desk.paths.journal.with_name(f"{desk.paths.journal.name}.damaged-1").read_bytes() == b"not a journal"
    assert server.poll() is None


@pytest.mark.parametrize("resume", [True, False])
def test_a_controller_that_cannot_read_another_releases_state_leaves_the_servers_alone(
    desk: Desk, server: subprocess.Popen[bytes], resume: bool
) -> None:
    with closing(Journal(desk.paths.journal)) as journal:
        journal.keep_checkpoint("9.9.9/1000", b"state")
    installation = desk.fleet.commands.installation
    with pytest.raises(StateError, match=r"was of release 9\.9\.9") as caught:
        run_controller(desk.paths, installation, lambda *_: ChangeRequest(wanted()), Settings(), resume=resume)
    assert caught.value.exit_code == daemon.UNREADABLE
    assert server.poll() is None
    with closing(JournalReader(desk.paths.journal)) as reader:
        assert reader.checkpoint() == ("9.9.9/1000", b"state")


def test_a_deploy_is_refused_beside_servers_of_a_release_whose_state_it_cannot_read(
    desk: Desk, server: subprocess.Popen[bytes]
) -> None:
    with closing(Journal(desk.paths.journal)) as journal:
        journal.keep_checkpoint("9.9.9/1000", b"state")
    with pytest.raises(StateError, match=r"was of release 9\.9\.9") as caught:
        Deployment(desk.paths.state).adopt()
    assert "use release 9.9.9, or take them down with `jigsaw-triton down` first" in caught.value.hint
    assert server.poll() is None


@pytest.mark.parametrize("opens", ["deploy", "controller", "next controller"])
def test_a_journal_of_a_release_whose_state_cannot_be_read_stays_readable_for_that_release(
    desk: Desk, server: subprocess.Popen[bytes], opens: str
) -> None:
    desk.paths.journal.unlink()
    with closing(sqlite3.connect(desk.paths.journal, isolation_level=None)) as old:
        old.execute("CREATE TABLE checkpoint (id INTEGER PRIMARY KEY CHECK (id = 1), version TEXT, state BLOB)")
        old.execute("INSERT INTO checkpoint VALUES (1, '0.0.9/5', x'6f6c64')")
        old.execute("PRAGMA user_version=7")
        before = list(old.iterdump())
        with pytest.raises(UnknownFormatError, match=r"was of release 0\.0\.9"):
            if opens == "deploy":
                Deployment(desk.paths.state).adopt()
            else:
                installation, resume = desk.fleet.commands.installation, opens == "next controller"
                run_controller(desk.paths, installation, lambda *_: ChangeRequest(wanted()), Settings(), resume=resume)
        assert list(old.iterdump()) == before
        assert old.execute("PRAGMA user_version").fetchone() == (7,)
    assert server.poll() is None
