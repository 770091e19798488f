"""Runs the controller, and restarts it when it dies: `python -m jigsaw_triton.api.supervisor STATE_DIR`.

The servers of a deployment outlive their controller, and the next controller adopts them. The supervisor imports only
the standard library, so that it takes little memory and rarely fails itself.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

_PR_SET_CHILD_SUBREAPER = 36

CRASHED = 70
"""Exit code of a controller that met an unexpected error (EX_SOFTWARE of sysexits.h)."""

RUNS_ALREADY = 75
"""Exit code if the deployment has another controller or supervisor already (EX_TEMPFAIL of sysexits.h)."""

LOCK = "supervisor.lock"
"""Name of the lock file of the supervisor in the state folder."""

HEARTBEAT = "controller.lock"
"""Name of the file in the state folder whose modification time the controller sets while its event loop runs."""

UNREADABLE = 65
"""Exit code of a controller that cannot read the state of the one before (EX_DATAERR of sysexits.h)."""

REPLACED = 77
"""Exit code of a controller that one on another machine has replaced (EX_NOPERM of sysexits.h)."""

_LOG_FORMAT = "JIGSAW_LOG_FORMAT"
"""Environment variable with the form of the log's lines, which the controller reads, too."""

_FINAL = (0, RUNS_ALREADY, UNREADABLE, REPLACED)
"""Exit codes after which a controller that served is not started again."""

_NAP_S = 0.1
_FIRST_DELAY_S, _MAX_DELAY_S = 0.1, 30.0
"""First and longest delay of the exponential backoff between restarts, in seconds."""

_CHECK_S = 1.0
"""Seconds between two checks of a controller."""

_STANDBY_CHECKS = 30
"""Checks with a heartbeat after which a controller gets a standby. Before, it would delay the start of the controller
and of the first models."""

_LEAVE_CHECKS = 10
"""Checks after which a controller that has not ended after SIGTERM is killed."""

_START_CHECKS, _HANG_CHECKS = 60, 10
"""Checks without a heartbeat after which a controller that starts, and one that runs, is killed. Checks are counted and
not seconds, because the clock also advances while both processes are suspended. A controller costs no request."""

_ORPHAN_S = 10.0
"""Seconds that a controller whose supervisor has died may take to end after SIGTERM."""

_STABLE_S = 60.0
"""Seconds that a controller must live for the backoff to start over."""


class Supervisor:
    """Keeps one controller running.

    A standby is a controller that has done its imports, which take most of the time of a start, and waits for a line on
    its stdin. It ends at the end of its stdin, and so with the supervisor.

    Args:
        command: Command line of the controller. Restarts add `--resume` to it, and `--standby` if they wait for a line.
        heartbeat: Path of the file whose modification time the controller sets at least once between two checks.
    """

    def __init__(self, command: Sequence[str], heartbeat: str) -> None:
        self._command = command
        self._heartbeat = heartbeat
        self._controller: subprocess.Popen[bytes] | None = None
        self._standby: subprocess.Popen[bytes] | None = None
        self._leaving = False
        self._starts_standby = False
        self._beats = 0
        self._seen_ns = 0
        self._checks_left = 0

    def run(self) -> int:
        """Runs controllers until one ends in an orderly way or cannot start; returns its exit code."""
        try:
            return self._run()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if self._standby is not None:
                self._standby.kill()
                self._standby.wait()

    def _run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._leave)
        signal.signal(signal.SIGALRM, self._check)
        signal.setitimer(signal.ITIMER_REAL, _CHECK_S, _CHECK_S)
        delay_s, resume = _FIRST_DELAY_S, False
        while True:
            began_s = time.monotonic()
            try:
                status = self._run_once(resume)
            except OSError:  # The machine has no memory, or no process id, for another controller.
                if not resume:
                    raise
                status = CRASHED
            # A controller that has served is restarted after any error, since a cause such as a full disk may pass.
            dead = status not in _FINAL if resume else status < 0 or status == CRASHED
            if not dead or self._leaving:
                return max(status, 0)
            if time.monotonic() - began_s > _STABLE_S:
                delay_s = _FIRST_DELAY_S
            with contextlib.suppress(OSError):  # The log's disk may be full.
                sys.stderr.write(_line(f"the controller ended with status {status}; it is restarted in {delay_s:g} s"))
                sys.stderr.flush()
            if self._left_within(delay_s):
                return 0
            delay_s, resume = min(2 * delay_s, _MAX_DELAY_S), True

    def _left_within(self, seconds: float) -> bool:
        """Waits; returns True as soon as a signal has arrived."""
        end_s = time.monotonic() + seconds
        while not self._leaving and time.monotonic() < end_s:
            time.sleep(min(_NAP_S, seconds))
        return self._leaving

    def _run_once(self, resume: bool) -> int:
        """Runs a controller to its end; returns its exit status, negative for a signal."""
        self._seen_ns, self._checks_left, self._beats = self._last_beat_ns(), _START_CHECKS, 0
        self._controller = self._promoted() or subprocess.Popen([*self._command, *(["--resume"] if resume else [])])
        if self._leaving:
            # The signal came before there was a controller to forward it to.
            self._checks_left = _LEAVE_CHECKS
            self._end_controller(signal.SIGTERM)
        while True:
            # Servers of controllers that have died are children of this process now, and are reaped here too.
            pid, status = os.wait()
            if self._standby is not None and pid == self._standby.pid:
                self._standby = None
            if pid == self._controller.pid:
                self._controller.returncode = os.waitstatus_to_exitcode(status)
                return self._controller.returncode

    def _promoted(self) -> "subprocess.Popen[bytes] | None":
        """Makes the standby the controller; returns None if there is none."""
        standby, self._standby = self._standby, None
        if standby is None or standby.stdin is None:
            return None
        try:
            with standby.stdin as line:
                line.write(b"go\n")
        except OSError:
            return None
        return standby

    def _leave(self, _number: int, _frame: FrameType | None) -> None:
        """Ends the controller and this process; the servers continue."""
        self._leaving, self._checks_left = True, _LEAVE_CHECKS
        self._end_controller(signal.SIGTERM)

    def _check(self, _number: int, _frame: FrameType | None) -> None:
        """Kills a controller that does not end or has no heartbeat."""
        beat_ns = self._last_beat_ns()
        if beat_ns != self._seen_ns and not self._leaving:
            self._seen_ns, self._checks_left, self._beats = beat_ns, _HANG_CHECKS, self._beats + 1
            # On a busy machine, the next check may interrupt this one while it starts the standby.
            if self._standby is None and self._beats > _STANDBY_CHECKS and not self._starts_standby:
                self._starts_standby = True
                command = [*self._command, "--resume", "--standby"]
                with contextlib.suppress(OSError):  # If memory is short now, a later check tries again.
                    self._standby = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
                self._starts_standby = False
        self._checks_left -= 1
        if self._checks_left <= 0:
            self._end_controller(signal.SIGKILL)

    def _last_beat_ns(self) -> int:
        """Returns the modification time of the heartbeat's file; 0 if there is no such file yet."""
        try:
            return os.stat(self._heartbeat).st_mtime_ns  # noqa: PTH116 - pathlib takes memory and time to import
        except OSError:
            return 0

    def _end_controller(self, number: signal.Signals) -> None:
        if self._controller is not None and self._controller.returncode is None:
            # Popen.terminate() could reap the process, for which os.wait() would then wait forever.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._controller.pid, number)


def _line(text: str) -> str:
    """Returns a line of the log, in the form of `logs.py`."""
    if os.environ.get(_LOG_FORMAT) != "json":
        return f"{text}\n"
    now_s = time.time()
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now_s))}.{int(now_s * 1000) % 1000:03}Z"
    entry = {"time": at, "level": "WARNING", "logger": "jigsaw_triton.api.supervisor", "message": text}
    return f"{json.dumps(entry)}\n"


def end_orphan(lock: str, grace_s: float = _ORPHAN_S) -> None:
    """Ends a controller whose supervisor has died, so that the next controller adopts its servers.

    A process that holds the lock without being a controller, such as `down`, is only waited for.

    Args:
        lock: Lock file of the controller, which holds its process id.
        grace_s: Seconds after which the controller is killed, and no longer waited for.
    """
    try:
        file = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    end_s = time.monotonic() + grace_s
    asked = ""
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            late = time.monotonic() > end_s
            owner = os.pread(file, 20, 0).decode("ascii", "replace").strip()
            # A second SIGTERM could kill a controller that has just ended its work.
            if owner and (late or owner != asked):
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(owner), signal.SIGKILL if late else signal.SIGTERM)
                asked = owner
            if late:
                return
            time.sleep(_NAP_S)
    finally:
        os.close(file)


def main(state: str) -> int:
    """Supervises the controller of a deployment; returns the exit code."""
    lock = os.open(f"{state}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return RUNS_ALREADY
    end_orphan(f"{state}/{HEARTBEAT}")
    # Children of a dead controller become children of this process, which reaps them.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return Supervisor([sys.executable, "-P", "-m", "jigsaw_triton.api.daemon", state], f"{state}/{HEARTBEAT}").run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
