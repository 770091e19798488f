"""Python processes of a deployment in forks, in place of new processes that import the same modules once more.

A controller takes a second of a processor for its imports and those of the processes that it starts, and the tests
start hundreds of controllers. Which process is a fork of which one:

- The supervisor, the console and an agent in the background are forks of the process in `tests/e2e/commands.py`.
- The controller is a fork of its supervisor, and a process with a solver one of the process that plans.
- The process that plans is a fork of its controller from before the controller's own code ran. Until it is needed, it
  waits under the name of the module that it will run, and it ends with its controller. Later ones are new processes.

A fork has the process id, parent, session, signals, files and command line that a new process would have.
"""

import atexit
import ctypes
import fcntl
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

SUPERVISOR = "jigsaw_triton.api.supervisor"
CONTROLLER = "jigsaw_triton.api.daemon"
PLANNING = "jigsaw_triton.controller.planning.worker"
SOLVER = "jigsaw_triton.planner.solver.worker"

COMMAND_LINE_BYTES = 4096
"""Bytes that the first process of all must have in its arguments, so that its forks can write their own there."""

_MOST_BYTES = 200_000
"""Bytes of a message to a process that waits to be used."""

_MOST_FILES = 16
_FIRST_FREE_FD = 3

_new_process: Callable[..., int] = subprocess._fork_exec  # type: ignore[attr-defined]
"""Function of the standard library that starts a program, with the arguments and the result of `_start`."""

_forked: frozenset[str] = frozenset()
"""Modules whose processes are forks of this process."""

_spare: tuple[int, socket.socket] | None = None
"""Id of a fork of this process from before its own code ran, and the connection by which it gets its command line."""

_streams: list[Any] = []
"""Streams of the processes that this one is a fork of. Deleting them would write what is in their buffers again."""


@dataclass(frozen=True, slots=True)
class Start:
    """Beginning of a process.

    Attributes:
        command: Command line.
        variables: Environment variables.
        folder: Working directory.
        session: True if the process leads a session.
        files: Numbers of its open files.
        ready: Number of one of these, which the process closes as soon as it has begun.
        mask: Signals that it blocks.
    """

    command: list[str]
    variables: dict[str, str]
    folder: str
    session: bool
    files: list[int]
    ready: int
    mask: list[int]


def module_of(command: Sequence[str]) -> str:
    """Returns the module that a command line runs with this Python; empty if it runs none."""
    return command[3] if tuple(command[:3]) == (sys.executable, "-P", "-m") else ""


def fork_children(*modules: str) -> None:
    """Makes `subprocess` fork this process for command lines with these modules. Others start a program as before."""
    global _forked
    _forked = frozenset(modules)
    subprocess._fork_exec = _start  # type: ignore[attr-defined]


def run(command: Sequence[str]) -> None:
    """Runs the module of a command line in this process, which has forked for it, as `python -m` does."""
    global _spare
    module = module_of(command)
    if module == CONTROLLER:
        _spare = _forked_spare()
    fork_children(*{SUPERVISOR: [CONTROLLER], PLANNING: [SOLVER]}.get(module, []))
    sys.argv = [module, *command[4:]]
    # The module was imported under its own name, and is imported again as `__main__`.
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _start(*call: Any) -> int:
    """Starts a process, and returns its id. `subprocess.Popen` calls it."""
    global _spare
    command, _, _, kept, folder, variables, stdin, _, _, stdout, _, stderr, _, ready, _, session, *_ = call
    command = list(map(os.fsdecode, command))
    module = module_of(command)
    if module not in _forked and (module != PLANNING or _spare is None):
        return _new_process(*call)
    files = {**{fd: fd for fd in kept}, **{n: n if fd == -1 else fd for n, fd in enumerate((stdin, stdout, stderr))}}
    pairs = (os.fsdecode(variable).partition("=") for variable in variables or ())
    start = Start(
        command,
        dict(os.environ) if variables is None else {name: text for name, _, text in pairs},
        str(Path.cwd()) if folder is None else os.fsdecode(folder),
        bool(session),
        list(files),
        ready,
        list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    )
    if module in _forked:
        return _fork(lambda: _begin(start, files.values()))
    assert _spare is not None
    (pid, connection), _spare = _spare, None
    with connection:
        try:
            socket.send_fds(connection, [json.dumps(asdict(start)).encode()], list(files.values()))
        except BrokenPipeError:
            os.waitpid(pid, 0)
            return _new_process(*call)
    return pid


def _forked_spare() -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def wait() -> None:
        # Under the controller's command line, it would count as a controller that `down` has left behind.
        write_command_line([sys.executable, "-P", "-m", PLANNING])
        ours.close()
        data, files, *_ = socket.recv_fds(theirs, _MOST_BYTES, _MOST_FILES)
        if data:
            _begin(Start(**json.loads(data)), files)

    pid = _fork(wait)
    theirs.close()
    return pid, ours


def _fork(work: Callable[[], None]) -> int:
    """Forks a process that works and ends, and returns its id. It begins with all signals blocked."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _end_after(work)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _begin(start: Start, files: Iterable[int]) -> None:
    """Makes this process, which has just forked, one that has started with a command line, and runs that.

    Args:
        start: Beginning of the process.
        files: Its open files, in the order of their numbers in `start`.
    """
    # Until then, the system shows a second process with the parent's command line, such as a second supervisor.
    write_command_line(start.command)
    gc.freeze()
    atexit._clear()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if start.session:
        os.setsid()
    # The copies have numbers above those of `start`, so that no `dup2` closes a file that another one needs.
    above = max(start.files) + 1
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in files]
    for copy, file in zip(copies, start.files, strict=True):
        os.dup2(copy, file)
    close_others(start.files)
    _streams.extend([sys.stdin, sys.stdout, sys.stderr])
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(start.variables)
    os.chdir(start.folder)
    signal.pthread_sigmask(signal.SIG_SETMASK, start.mask)
    os.close(start.ready)
    run(start.command)


def close_others(files: Iterable[int]) -> None:
    """Closes all files of this process but these and its stdin, stdout and stderr."""
    first = _FIRST_FREE_FD
    for fd in sorted(fd for fd in files if fd >= _FIRST_FREE_FD):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _end_after(work: Callable[[], None]) -> NoReturn:
    """Ends this process after its work, as Python ends, but without returning to what has forked it."""
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def write_command_line(command: Sequence[str]) -> None:
    """Makes the system show a command line for this process."""
    text = b"".join(os.fsencode(argument) + b"\0" for argument in command)
    # Fields 48 and 49 of proc(5). The second one is the state, after the name of the program in brackets.
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    first, end = int(fields[45]), int(fields[46])
    assert len(text) <= end - first
    ctypes.memset(first, 0, end - first)
    ctypes.memmove(first, text, len(text))
