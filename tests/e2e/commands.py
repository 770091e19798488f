"""Commands in forks of a process that has imported them.

A new Python process takes half a second of a processor to import what `deploy`, `down` and `agent` need, and the tests
run hundreds of them. `python -m tests.e2e.commands FD` is the process that forks, and does nothing else. A command in a
fork has its own arguments, environment, working directory, process group and outputs. `tests/e2e/forks.py` has the
processes that commands start.
"""

import atexit
import contextlib
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.e2e import forks

_CLI = "jigsaw_triton.cli.main"

IMPORTED = (
    "jigsaw_triton.cli.commands.agent",
    "jigsaw_triton.cli.commands.deploy",
    "jigsaw_triton.cli.commands.down",
    "jigsaw_triton.cli.commands.status",
    _CLI,
    "jigsaw_triton.controller.fleet.orphans",
    "jigsaw_triton.planner.solver.highs",
    *(forks.SUPERVISOR, forks.CONTROLLER, forks.PLANNING, forks.SOLVER),
)
"""Modules that most commands of the tests import, and the processes that they start."""

BACKGROUND = (forks.SUPERVISOR, "jigsaw_triton.console.web.process", _CLI)
"""Modules that run in processes which outlive the command that has started them."""

_PROGRAM = """\
#!{python} -IS
import json, os, signal, socket, sys

# Ctrl-C also reaches the command, which ends in its own way.
signal.signal(signal.SIGINT, signal.SIG_IGN)
ours, theirs = os.pipe()
request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), os.getpgrp()]).encode()
socket.send_fds(socket.socket(fileno={requests}), [request], [theirs, 1, 2])
os.close(theirs)
with open(ours) as status:
    _, code = map(int, status)
sys.exit(code if code >= 0 else 128 - code)
"""
"""Program in place of `jigsaw-triton`. It imports less than a command does."""

_LIBRARY_PATH = "LD_LIBRARY_PATH"
"""Environment variable with folders of libraries, which the linker reads when a program starts, and never again."""

_MOST_BYTES = 200_000
"""Bytes of a request: the arguments, environment, working directory and process group of a command."""

_OWN_GROUP = 0
"""Process group that stands for one of the command's own."""

_END_S = 60.0
"""Seconds that a process may take to end once it has been killed, or has lost its connection."""


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a command.

    Attributes:
        code: Exit code, negative for a signal.
        out: Text on stdout.
        err: Text on stderr.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Document that the command printed with `-o json`."""
        document: dict[str, Any] = json.loads(self.out)
        return document


class Running:
    """A command that has been started.

    Args:
        status: Pipe with the process id, and with the exit code once the process has ended and has been reaped.

    Attributes:
        pid: Process id.
    """

    def __init__(self, status: int) -> None:
        self._status = os.fdopen(status, "r")
        self.pid = int(self._status.readline())
        self._code: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while the command runs."""
        with contextlib.suppress(TimeoutError):
            return self.wait(0.0)
        return None

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the end, without limit if none is given, and returns the exit code.

        Raises:
            TimeoutError: The command still runs.
        """
        if self._code is None:
            limit_s = None if timeout_s is None else max(0.0, timeout_s)
            if not select.select([self._status], [], [], limit_s)[0]:
                raise TimeoutError(f"process {self.pid} still runs after {timeout_s:g} s")
            self._code = int(self._status.readline())
            self._status.close()
        return self._code

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            # The process may have ended without a report yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Commands:
    """Starts commands. The process that forks ends with this one.

    Args:
        library_path: Folders where commands find libraries first.
    """

    def __init__(self, library_path: str = "") -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), " " * forks.COMMAND_LINE_BYTES]
            self._process = subprocess.Popen(
                command,
                env={**os.environ, _LIBRARY_PATH: library_path},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], out: int, err: int) -> Running:
        """Starts a command.

        Args:
            arguments: Arguments of `jigsaw-triton`.
            environment: All environment variables of the command.
            out: File descriptor for its stdout.
            err: File descriptor for its stderr.
        """
        return _started(self._requests, [arguments, dict(environment), str(Path.cwd()), _OWN_GROUP], out, err)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> Result:
        """Runs a command to its end, and until no process can write to its stdout and stderr any more.

        A command that takes too long is killed, also if an exception interrupts the wait.

        Raises:
            TimeoutError: It took longer than `timeout_s`.
        """
        give_up_at = time.monotonic() + timeout_s
        with contextlib.ExitStack() as opened:
            ours, theirs = zip(*(os.pipe() for _ in range(2)), strict=True)
            read = {fd: b"" for fd in ours}
            for fd in ours:
                opened.callback(os.close, fd)
            try:
                command = self.start(arguments, environment, *theirs)
            finally:
                for fd in theirs:
                    os.close(fd)
            waiting = opened.enter_context(selectors.DefaultSelector())
            for fd in ours:
                waiting.register(fd, selectors.EVENT_READ)
            try:
                while waiting.get_map():
                    ready = waiting.select(max(0.0, give_up_at - time.monotonic()))
                    if not ready:
                        raise TimeoutError(f"{' '.join(arguments)} took longer than {timeout_s:g} s: {read}")
                    for key, _ in ready:
                        part = os.read(key.fd, 65536)
                        read[key.fd] += part
                        if not part:
                            waiting.unregister(key.fd)
                code = command.wait(give_up_at - time.monotonic())
            except BaseException:
                command.send_signal(signal.SIGKILL)
                command.wait(_END_S)
                raise
        out, err = (text.decode() for text in read.values())
        return Result(code, out, err)

    def write_program(self, path: Path) -> int:
        """Writes a program that runs the command which its arguments name, in a fork in the program's process group.

        Returns:
            File descriptor that the program must inherit.
        """
        program = _PROGRAM.format(python=sys.executable, requests=self._requests.fileno())
        path.write_text(program)
        path.chmod(0o755)
        return self._requests.fileno()

    def close(self) -> int:
        """Ends the process that forks. Returns its exit code."""
        self._requests.close()
        return self._process.wait(_END_S)


def commands(environment: Mapping[str, str]) -> Commands:
    """Returns the object that starts commands with an environment like this one, one for all tests of a process."""
    return _commands(environment.get(_LIBRARY_PATH, ""))


@cache
def _commands(library_path: str) -> Commands:
    made = Commands(library_path)
    atexit.register(made.close)
    return made


def _serve(requests: socket.socket) -> None:
    """Forks for each request, until the other end closes the connection."""
    running: dict[int, tuple[int, int]] = {}
    # By this connection, commands ask this process to fork for processes that outlive them.
    asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    while True:
        watched: list[socket.socket | int] = [requests, asked, *running]
        ready, _, _ = select.select(watched, [], [])
        for one in ready:
            if isinstance(one, int):
                pid, status = running.pop(one)
                os.close(one)
                _, ended = os.waitpid(pid, 0)
                _report(status, os.waitstatus_to_exitcode(ended))
                os.close(status)
                continue
            data, files, *_ = socket.recv_fds(one, _MOST_BYTES, 3)
            if not data:
                return
            status, out, err = files
            if (pid := os.fork()) == 0:
                background = one is asked
                for connection in (requests, asked, asking) if background else (requests, asked):
                    connection.detach()
                arguments, environment, folder, group = json.loads(data)
                _become(environment, folder, out, err, [] if background else [asking.fileno()])
                if background:
                    forks.write_command_line(arguments)
                    os.setsid()
                    forks.run(arguments)
                else:
                    _run(arguments, group, asking)
                sys.exit()
            os.close(out)
            os.close(err)
            _report(status, pid)
            running[os.pidfd_open(pid)] = pid, status


def _report(status: int, number: int) -> None:
    # If the test has failed and ended, nothing reads the pipe.
    with contextlib.suppress(BrokenPipeError):
        os.write(status, b"%d\n" % number)


def _become(environment: Mapping[str, str], folder: str, out: int, err: int, kept: Sequence[int]) -> None:
    """Gives this process, which has just forked, its environment, its working directory and its files."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    forks.close_others(kept)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def _run(arguments: Sequence[str], group: int, asking: socket.socket) -> None:
    """Runs a command in this process.

    Args:
        arguments: Arguments of `jigsaw-triton`.
        group: Process group of the command.
        asking: Connection to the process that forks for what the command starts in the background.
    """
    from jigsaw_triton.cli.main import main
    from jigsaw_triton.servers import background_process

    def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes] | Running:
        if forks.module_of(command) not in BACKGROUND:
            return subprocess.Popen(command, **options)
        request = [command, options["env"], str(Path.cwd()), _OWN_GROUP]
        return _started(asking, request, options["stdout"], options["stderr"])

    os.setpgid(0, group)
    vars(background_process)["subprocess"] = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)
    forks.fork_children(forks.SOLVER)
    sys.argv = ["jigsaw-triton", *arguments]
    main()


def _started(connection: socket.socket, request: Sequence[Any], out: int, err: int) -> Running:
    """Has the process at the other end of a connection fork, with a file descriptor each for stdout and stderr."""
    ours, theirs = os.pipe()
    try:
        socket.send_fds(connection, [json.dumps(request).encode()], [theirs, out, err])
    finally:
        os.close(theirs)
    return Running(ours)


if __name__ == "__main__":
    for name in IMPORTED:
        import_module(name)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        _serve(connection)
