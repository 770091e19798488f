"""The supervisor, with shell scripts in place of the controller."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jigsaw_triton.api.supervisor import CRASHED, HEARTBEAT, LOCK, REPLACED, RUNS_ALREADY, UNREADABLE, end_orphan
from jigsaw_triton.console import daemon
from jigsaw_triton.console.options import LOG_FORMAT
from jigsaw_triton.controller.persistence.lock import AlreadyRunsError, is_locked, take_lock
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.logs import readable
from jigsaw_triton.servers.os_process import start_time

RUN = """
import os, signal, subprocess, sys
from jigsaw_triton.api import supervisor
script, *constants = sys.argv[1:]
def interrupted(command, start=subprocess.Popen, **options):
    for number in range(3) if "--standby" in command else ():
        os.utime(script + ".beat", ns=(0, 10**18 + number))
        signal.raise_signal(signal.SIGALRM)
    return start(command, **options)
supervisor.subprocess.Popen = interrupted
for name, value in (constant.split("=") for constant in constants):
    assert hasattr(supervisor, name)
    setattr(supervisor, name, float(value))
sys.exit(supervisor.Supervisor(["/bin/sh", script], script + ".beat").run())
"""
"""Supervises a script. On a busy machine, checks with heartbeats come while the supervisor starts a standby; so they do
here."""
LONG = 1e6
"""Seconds or checks that no test lasts."""


@contextmanager
def supervise(folder: Path, script: str, **constants: float) -> Iterator[subprocess.Popen[str]]:
    """Runs a supervisor of a script. The file `starts` has a line for each start of the script.

    Args:
        folder: Folder for the script and its files.
        script: Shell script.
        **constants: New values of constants of the supervisor's module.

    Yields:
        Process of the supervisor.
    """
    path = folder / "controller.sh"
    path.write_text(f'cd {folder}; echo "$*" >> starts\n{script}\n')
    changed = [f"{name}={value}" for name, value in constants.items()]
    command = [sys.executable, "-c", RUN, str(path), *changed]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            yield process
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits for a condition while a process runs."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


class Checked:
    """A supervisor whose checks the test makes, with the heartbeats of its controller.

    Args:
        folder: Folder of the script.
        process: Process of the supervisor, which makes no checks itself.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._beat = folder / "controller.sh.beat"
        self._beat.touch()
        self._beats = 0
        wait_for(lambda: bool(starts(folder)), process)

    def check(self) -> None:
        """Has the supervisor check its controller."""
        os.kill(self.process.pid, signal.SIGALRM)

    def beat(self) -> None:
        """Gives the controller a heartbeat, and has the supervisor check it."""
        self._beats += 1
        os.utime(self._beat, ns=(self._beats, self._beats))
        self.check()


def starts(folder: Path) -> list[str]:
    """Returns the arguments of each start so far."""
    path = folder / "starts"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("code", [0, 2, 75])
def test_a_controller_that_ends_in_an_orderly_way_is_not_restarted(tmp_path: Path, code: int) -> None:
    with supervise(tmp_path, f"exit {code}") as process:
        assert process.wait(timeout=30) == code
    assert starts(tmp_path) == [""]


@pytest.mark.parametrize("death", ["kill -9 $$", f"exit {CRASHED}"])
def test_a_controller_that_dies_is_restarted_to_resume(tmp_path: Path, death: str) -> None:
    with supervise(tmp_path, f"[ $(wc -l < starts) = 3 ] && exit 0\n{death}") as process:
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0
    assert starts(tmp_path) == ["", "--resume", "--resume"]
    assert "it is restarted in 0.1 s" in stderr and "it is restarted in 0.2 s" in stderr


def test_a_restart_is_logged_as_json_if_the_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_FORMAT, "json")
    with supervise(tmp_path, "[ $(wc -l < starts) = 2 ] && exit 0\nkill -9 $$") as process:
        _, stderr = process.communicate(timeout=30)
    message = "the controller ended with status -9; it is restarted in 0.1 s"
    entry = json.loads(stderr)
    assert entry["message"] == message
    assert readable(stderr.rstrip()) == f"{entry['time']} WARNING jigsaw_triton.api.supervisor: {message}"
    assert time.strptime(entry["time"].partition(".")[0], "%Y-%m-%dT%H:%M:%S")


@pytest.mark.parametrize("code", [1, 2, 4])
def test_a_failed_first_start_is_final_and_a_failed_resume_is_retried(tmp_path: Path, code: int) -> None:
    with supervise(tmp_path, f"exit {code}") as process:
        assert process.wait(timeout=30) == code
    assert starts(tmp_path) == [""]
    (tmp_path / "starts").unlink()
    script = f"[ $(wc -l < starts) = 1 ] && kill -9 $$\n[ $(wc -l < starts) = 2 ] && exit {code}\nexit 0"
    with supervise(tmp_path, script) as process:
        assert process.wait(timeout=30) == 0
    assert len(starts(tmp_path)) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_supervisor_and_controller(tmp_path: Path, number: signal.Signals) -> None:
    script = "trap 'echo left > left; exit 0' TERM; echo > ready; while :; do sleep 0.01; done"
    with supervise(tmp_path, script) as process:
        wait_for((tmp_path / "ready").exists, process)
        os.kill(process.pid, number)
        assert process.wait(timeout=30) == 0
    assert (tmp_path / "left").exists()
    assert starts(tmp_path) == [""]


@pytest.mark.slow
def test_a_controller_that_does_not_end_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; echo > ready; while :; do sleep 0.01; done"
    with supervise(tmp_path, script, _LEAVE_CHECKS=1) as process:
        wait_for((tmp_path / "ready").exists, process)
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_controller_without_heartbeat_is_killed_and_the_next_one_resumes(tmp_path: Path) -> None:
    script = 'while [ ! "$1" ] || [ ! -e end ]; do sleep 0.01; done'
    # A check that is late sees the next heartbeat too, and the check after it none.
    constants = {"_CHECK_S": LONG, "_START_CHECKS": LONG, "_STANDBY_CHECKS": LONG, "_HANG_CHECKS": 3}
    with supervise(tmp_path, script, **constants) as process:
        checked = Checked(tmp_path, process)
        for _ in range(10):
            checked.beat()
            time.sleep(0.01)
        assert starts(tmp_path) == [""]
        while len(starts(tmp_path)) == 1:
            checked.check()
            time.sleep(0.01)
        (tmp_path / "end").touch()
        assert process.wait(timeout=30) == 0
    assert starts(tmp_path) == ["", "--resume"]


STANDBY = """
if [ "$2" ]; then echo $$ > standby.part; mv standby.part standby; read go || exit 0; echo "$go" > went; exit 0; fi
[ "$1" ] && exit 0
while [ ! -e end ]; do sleep 0.01; done
"""
"""Script of a controller that ends in some way once there is a file `end`, and of its standby."""


@contextmanager
def with_standby(folder: Path, end: str) -> Iterator[int]:
    """Supervises a controller until it has a standby. Then has it end, and expects the supervisor to end in order.

    Yields:
        Process id of the standby.
    """
    with supervise(folder, STANDBY + end, _CHECK_S=LONG, _STANDBY_CHECKS=1, _HANG_CHECKS=LONG) as process:
        checked = Checked(folder, process)
        while not (folder / "standby").exists():
            assert process.poll() is None
            checked.beat()
            time.sleep(0.01)
        yield int((folder / "standby").read_text())
        (folder / "end").touch()
        assert process.wait(timeout=30) == 0


def test_a_standby_takes_the_place_of_a_controller_that_dies(tmp_path: Path) -> None:
    with with_standby(tmp_path, "kill -9 $$"):
        pass
    assert (tmp_path / "went").read_text() == "go\n"
    assert starts(tmp_path) == ["", "--resume --standby"]


def test_a_standby_ends_with_its_controller(tmp_path: Path) -> None:
    with with_standby(tmp_path, "exit 0") as standby:
        pass
    assert not (tmp_path / "went").exists()
    assert start_time(standby) is None


def test_a_standby_that_has_died_is_not_counted_on(tmp_path: Path) -> None:
    with with_standby(tmp_path, "kill -9 $$") as standby:
        os.kill(standby, signal.SIGKILL)
    assert starts(tmp_path) == ["", "--resume --standby", "--resume"]


def test_a_deployment_has_one_supervisor(tmp_path: Path) -> None:
    assert deployment_paths(tmp_path).lock == tmp_path / HEARTBEAT
    lock = deployment_paths(tmp_path).supervisor_lock
    assert lock == tmp_path / LOCK
    assert not is_locked(lock)
    take_lock(lock)
    assert is_locked(lock)
    command = [sys.executable, "-m", "jigsaw_triton.api.supervisor", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == RUNS_ALREADY == AlreadyRunsError.exit_code


ORPHAN = """
import os, signal, sys, time
from pathlib import Path
from jigsaw_triton.controller.persistence.lock import begin_heartbeat, take_lock

def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(0.5 if "slow" in sys.argv else 0)
    sys.exit(7)

signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else end)
lock = take_lock(Path(sys.argv[1]))
if "mute" not in sys.argv:
    begin_heartbeat(lock)
print(flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [("", 7), ("slow", 7), ("deaf", -signal.SIGKILL)])
def test_a_controller_whose_supervisor_has_died_is_ended(tmp_path: Path, kind: str, code: int) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path / HEARTBEAT), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None
        orphan.stdout.readline()
        end_orphan(str(tmp_path / HEARTBEAT), grace_s=0.5 if kind == "deaf" else 30)
        assert orphan.wait(timeout=30) == code


def test_a_process_that_is_no_controller_keeps_its_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path / HEARTBEAT), "mute"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        end_orphan(str(tmp_path / HEARTBEAT), grace_s=0.2)
        assert other.poll() is None
        other.kill()


def test_without_a_controller_nothing_is_ended(tmp_path: Path) -> None:
    end_orphan(str(tmp_path / HEARTBEAT))
    (tmp_path / HEARTBEAT).write_text(str(os.getpid()))
    end_orphan(str(tmp_path / HEARTBEAT))


@pytest.mark.parametrize("code", [UNREADABLE, REPLACED])
def test_a_state_that_cannot_be_read_and_a_successor_elsewhere_are_final(tmp_path: Path, code: int) -> None:
    assert (UNREADABLE, REPLACED) == (daemon.UNREADABLE, daemon.REPLACED_EXIT)
    with supervise(tmp_path, f"[ $(wc -l < starts) = 1 ] && kill -9 $$\nexit {code}") as process:
        assert process.wait(timeout=30) == code
    assert len(starts(tmp_path)) == 2


def test_a_signal_between_two_controllers_starts_no_other(tmp_path: Path) -> None:
    with supervise(tmp_path, "kill -9 $$", _FIRST_DELAY_S=LONG, _MAX_DELAY_S=LONG) as process:
        assert process.stderr is not None
        assert "it is restarted in" in process.stderr.readline()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert starts(tmp_path) == [""]


def test_a_log_on_a_full_disk_does_not_end_the_supervisor(tmp_path: Path) -> None:
    script = tmp_path / "controller.sh"
    script.write_text(f"cd {tmp_path}; echo >> starts; [ $(wc -l < starts) = 2 ] && exit 0\nkill -9 $$\n")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([sys.executable, "-c", RUN, str(script)], stderr=full, check=False, timeout=60)
    assert len(starts(tmp_path)) == 2
    assert ended.returncode == 0
