import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.controller.persistence.lock import AlreadyRunsError, end_owner, is_locked, take_over
from jigsaw_triton.errors import StateError

OWNER = """
import sys, time
from pathlib import Path
from jigsaw_triton.controller.persistence.lock import beat, begin_heartbeat, take_lock
lock = take_lock(Path(sys.argv[1]))
if sys.argv[2] == "beats":
    begin_heartbeat(lock)
print(flush=True)
while True:
    if sys.argv[2] == "beats":
        beat(lock)
    time.sleep(0.05)
"""


BEATS = pytest.mark.parametrize("owner", ["beats"], indirect=True)


@pytest.fixture
def owner(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    command = [sys.executable, "-c", OWNER, str(tmp_path / "lock"), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@BEATS
def test_an_owner_that_hangs_is_killed(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    owner.send_signal(signal.SIGSTOP)
    lock, killed = take_over(tmp_path / "lock", hang_s=0.3)
    assert killed == owner.pid
    assert owner.wait(timeout=10) == -signal.SIGKILL
    assert is_locked(tmp_path / "lock")
    os.close(lock)


@pytest.mark.parametrize("owner", ["beats", "silent"], indirect=True)
def test_an_owner_that_runs_or_never_had_a_heartbeat_keeps_its_lock(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    with pytest.raises(AlreadyRunsError):
        take_over(tmp_path / "lock", hang_s=0.3)
    assert owner.poll() is None


@BEATS
def test_a_dead_owner_does_not_keep_its_lock(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.wait(timeout=10)
    lock, killed = take_over(tmp_path / "lock")
    assert killed is None
    # The heartbeat of the dead owner is not that of the new one.
    assert (tmp_path / "lock").read_text() == ""
    os.close(lock)


@BEATS
@pytest.mark.parametrize("hangs", [False, True])
def test_an_owner_is_ended(tmp_path: Path, owner: subprocess.Popen[str], hangs: bool) -> None:
    if hangs:
        owner.send_signal(signal.SIGSTOP)
        # Until it has stopped, SIGTERM would end it.
        os.waitid(os.P_PID, owner.pid, os.WSTOPPED | os.WNOWAIT)
    end_owner(tmp_path / "lock", 0.5 if hangs else 60.0)
    assert owner.wait(60) == -(signal.SIGKILL if hangs else signal.SIGTERM)
    end_owner(tmp_path / "lock", 0.0)


@pytest.mark.parametrize("owner", ["silent"], indirect=True)
def test_an_owner_that_does_not_name_itself_is_not_ended(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    with pytest.raises(StateError, match="the process that holds this lock does not end"):
        end_owner(tmp_path / "lock", 0.05)
    assert owner.poll() is None
