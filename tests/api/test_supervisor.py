"""The supervisor, with shell scripts in place of the controller."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jigsaw_triton.api.supervisor import CRASHED, HEARTBEAT, LOCK, RUNS_ALREADY, UNREADABLE, end_orphan
from jigsaw_triton.console import daemon
from jigsaw_triton.controller.persistence.lock import AlreadyRunsError, is_locked, take_lock
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.servers.os_process import start_time

RUN = """
import sys
from jigsaw_triton.api.supervisor import Supervisor
sys.exit(Supervisor(["/bin/sh", sys.argv[1]], sys.argv[1] + ".beat").run())
"""


def supervise(folder: Path, script: str) -> subprocess.Popen[str]:
    """Starts a supervisor of a script. The file `starts` has a line for each start of the script."""
    path = folder / "controller.sh"
    path.write_text(f'cd {folder}; echo "$1" >> starts\n{script}\n')
    return subprocess.Popen([sys.executable, "-c", RUN, str(path)], stderr=subprocess.PIPE, text=True)


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
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(process.pid, number)
        assert process.wait(timeout=30) == 0
    assert (tmp_path / "left").exists()
    assert starts(tmp_path) == [""]


def test_a_controller_that_does_not_end_is_killed(tmp_path: Path) -> None:
    code = RUN.replace("sys.exit(", "from jigsaw_triton.api import supervisor; supervisor._LEAVE_CHECKS = 1; sys.exit(")
    (tmp_path / "controller.sh").write_text(f"trap '' TERM; echo > {tmp_path}/ready; while :; do sleep 0.01; done")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "controller.sh")]) as process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_controller_without_heartbeat_is_killed_and_the_next_one_resumes(tmp_path: Path) -> None:
    code = RUN.replace("sys.exit(", "from jigsaw_triton.api import supervisor; supervisor._HANG_CHECKS = 2; sys.exit(")
    script = tmp_path / "controller.sh"
    # The first one stops after some heartbeats.
    script.write_text(
        f'cd {tmp_path}; echo "$1" >> starts; [ "$1" ] && exit 0\n'
        f"for _ in 1 2 3 4 5 6; do touch {script}.beat; sleep 0.5; done; echo > beaten; kill -STOP $$\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(script)], check=False, timeout=60)
    assert ended.returncode == 0
    assert (tmp_path / "beaten").exists()
    assert starts(tmp_path) == ["", "--resume"]


IMPATIENT = RUN.replace(
    "sys.exit(",
    "from jigsaw_triton.api import supervisor; supervisor._CHECK_S = 0.1; supervisor._STANDBY_CHECKS = 1; sys.exit(",
)
STANDBY = """
cd {folder}; echo "$*" >> starts
if [ "$2" ]; then echo $$ > standby; read go || exit 0; echo "$go" > went; exit 0; fi
while [ ! -e standby ]; do touch {folder}/controller.sh.beat; sleep 0.05; done
{end}
"""


def supervise_with_standby(folder: Path, end: str) -> int:
    """Supervises a controller that ends once it has a standby; returns the supervisor's exit code."""
    (folder / "controller.sh").write_text(STANDBY.format(folder=folder, end=end))
    command = [sys.executable, "-c", IMPATIENT, str(folder / "controller.sh")]
    return subprocess.run(command, check=False, timeout=60).returncode


def test_a_standby_takes_the_place_of_a_controller_that_dies(tmp_path: Path) -> None:
    assert supervise_with_standby(tmp_path, "kill -9 $$") == 0
    assert (tmp_path / "went").read_text() == "go\n"
    assert starts(tmp_path) == ["", "--resume --standby"]


def test_a_standby_ends_with_its_controller(tmp_path: Path) -> None:
    assert supervise_with_standby(tmp_path, "exit 0") == 0
    assert not (tmp_path / "went").exists()
    assert start_time(int((tmp_path / "standby").read_text())) is None


def test_a_standby_that_has_died_is_not_counted_on(tmp_path: Path) -> None:
    end = "kill -9 $(cat standby); sleep 0.3; kill -9 $$"
    script = STANDBY.replace('if [ "$2" ]', '[ $(wc -l < starts) = 3 ] && exit 0\nif [ "$2" ]')
    (tmp_path / "controller.sh").write_text(script.format(folder=tmp_path, end=end))
    command = [sys.executable, "-c", IMPATIENT, str(tmp_path / "controller.sh")]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
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
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else lambda *_: sys.exit(7))
lock = take_lock(Path(sys.argv[1]))
if "mute" not in sys.argv:
    begin_heartbeat(lock)
print(flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("kind", "code"), [("", 7), ("deaf", -signal.SIGKILL)])
def test_a_controller_whose_supervisor_has_died_is_ended(tmp_path: Path, kind: str, code: int) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path / HEARTBEAT), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None
        orphan.stdout.readline()
        end_orphan(str(tmp_path / HEARTBEAT), patience_s=0.5 if kind == "deaf" else 30)
        assert orphan.wait(timeout=30) == code


def test_a_process_that_is_no_controller_keeps_its_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path / HEARTBEAT), "mute"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        end_orphan(str(tmp_path / HEARTBEAT), patience_s=0.2)
        assert other.poll() is None
        other.kill()


def test_without_a_controller_nothing_is_ended(tmp_path: Path) -> None:
    end_orphan(str(tmp_path / HEARTBEAT))
    (tmp_path / HEARTBEAT).write_text(str(os.getpid()))
    end_orphan(str(tmp_path / HEARTBEAT))


def test_a_state_that_cannot_be_read_is_final(tmp_path: Path) -> None:
    assert UNREADABLE == daemon.UNREADABLE
    with supervise(tmp_path, f"[ $(wc -l < starts) = 1 ] && kill -9 $$\nexit {UNREADABLE}") as process:
        assert process.wait(timeout=30) == UNREADABLE
    assert len(starts(tmp_path)) == 2


def test_a_signal_between_two_controllers_starts_no_other(tmp_path: Path) -> None:
    with supervise(tmp_path, "kill -9 $$") as process:
        # The fifth restart comes 1.6 s after the fourth.
        while len(starts(tmp_path)) < 5:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert len(starts(tmp_path)) == 5


def test_a_log_on_a_full_disk_does_not_end_the_supervisor(tmp_path: Path) -> None:
    script = tmp_path / "controller.sh"
    script.write_text(f"cd {tmp_path}; echo >> starts; [ $(wc -l < starts) = 2 ] && exit 0\nkill -9 $$\n")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([sys.executable, "-c", RUN, str(script)], stderr=full, check=False, timeout=60)
    assert len(starts(tmp_path)) == 2
    assert ended.returncode == 0
