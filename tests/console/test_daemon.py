import os
import subprocess
from pathlib import Path

import pytest

from jigsaw_triton.console import daemon
from jigsaw_triton.console.daemon import run_controller
from jigsaw_triton.controller.core.generation import Request
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.persistence.lock import take_lock
from jigsaw_triton.errors import StateError
from jigsaw_triton.servers.members import marks
from tests.console.conftest import Desk
from tests.controller.worlds import wanted


def test_a_deployment_has_one_controller(desk: Desk) -> None:
    take_lock(desk.paths.lock)
    socket = desk.paths.control_socket
    socket.touch()
    with pytest.raises(StateError, match="a controller is already running here") as caught:
        run_controller(desk.paths, desk.fleet.commands.installation, lambda _: Request(wanted()), Settings())
    assert caught.value.where == str(desk.paths.state)
    assert socket.exists()


def test_only_the_owner_can_open_the_lock(tmp_path: Path) -> None:
    take_lock(tmp_path / "lock")
    assert (tmp_path / "lock").stat().st_mode & 0o077 == 0


def test_a_controller_that_has_lost_its_state_leaves_the_servers_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_log_to", lambda _: None)
    desk.paths.secret.write_text("0123456789abcdef")
    env = {**os.environ, **marks(desk.paths.state, "gateway")}
    with subprocess.Popen(["/bin/sleep", "60"], env=env, start_new_session=True) as server:
        try:
            installation = desk.fleet.commands.installation
            with pytest.raises(StateError, match="is lost") as caught:
                run_controller(desk.paths, installation, lambda _: Request(wanted()), Settings(), resume=True)
            assert caught.value.exit_code == daemon.UNREADABLE
            assert server.poll() is None
            assert desk.paths.run.exists() and desk.paths.secret.exists()
        finally:
            server.kill()
