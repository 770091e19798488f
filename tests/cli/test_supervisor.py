"""The supervisor, with shell scripts in the place of the controller."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jigsaw_triton.cli.supervisor import CRASHED, LOCK, RUNS_ALREADY
from jigsaw_triton.controller.lock import AlreadyRunsError, is_locked, take_lock
from jigsaw_triton.controller.paths import deployment_paths

RUN = """
import sys
from jigsaw_triton.cli.supervisor import Supervisor
sys.exit(Supervisor(["/bin/sh", sys.argv[1]]).run())
"""


def supervise(folder: Path, script: str) -> subprocess.Popen[str]:
    """A supervisor of a script, which finds in `starts` how often it was started."""
    path = folder / "controller.sh"
    path.write_text(f'cd {folder}; echo "$1" >> starts\n{script}\n')
    return subprocess.Popen([sys.executable, "-c", RUN, str(path)], stderr=subprocess.PIPE, text=True)


def starts(folder: Path) -> list[str]:
    """Arguments of each start so far."""
    path = folder / "starts"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("code", [0, 2, 75])
def test_a_controller_that_ends_in_order_is_not_started_again(tmp_path: Path, code: int) -> None:
    with supervise(tmp_path, f"exit {code}") as process:
        assert process.wait(timeout=30) == code
    assert starts(tmp_path) == [""]


@pytest.mark.parametrize("death", ["kill -9 $$", f"exit {CRASHED}"])
def test_a_controller_that_dies_is_started_again_to_go_on(tmp_path: Path, death: str) -> None:
    with supervise(tmp_path, f"[ $(wc -l < starts) = 3 ] && exit 0\n{death}") as process:
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
    assert starts(tmp_path) == ["", "--resume", "--resume"]
    assert "it is started again in 0.1 s" in said and "it is started again in 0.2 s" in said


def test_what_cannot_start_at_first_is_not_tried_again_and_what_cannot_go_on_is(tmp_path: Path) -> None:
    with supervise(tmp_path, "exit 1") as process:
        assert process.wait(timeout=30) == 1
    assert starts(tmp_path) == [""]
    (tmp_path / "starts").unlink()
    script = "[ $(wc -l < starts) = 1 ] && kill -9 $$\n[ $(wc -l < starts) = 2 ] && exit 1\nexit 0"
    with supervise(tmp_path, script) as process:
        assert process.wait(timeout=30) == 0
    assert len(starts(tmp_path)) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_both(tmp_path: Path, number: signal.Signals) -> None:
    script = "trap 'echo left > left; exit 0' TERM; echo > ready; while :; do sleep 0.01; done"
    with supervise(tmp_path, script) as process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(process.pid, number)
        assert process.wait(timeout=30) == 0
    assert (tmp_path / "left").exists()
    assert starts(tmp_path) == [""]


def test_one_deployment_has_one_supervisor(tmp_path: Path) -> None:
    lock = deployment_paths(tmp_path).supervisor_lock
    assert lock == tmp_path / LOCK
    assert not is_locked(lock)
    take_lock(lock)
    assert is_locked(lock)
    command = [sys.executable, "-m", "jigsaw_triton.cli.supervisor", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == RUNS_ALREADY == AlreadyRunsError.exit_code
