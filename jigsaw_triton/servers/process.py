"""Starts, watches and stops tritonserver processes without leaving anything behind."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath

from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.servers.client import TritonClient
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.image import end_container, main_process
from jigsaw_triton.servers.logfile import appending, keep_short, log_size, rotate, with_log
from jigsaw_triton.servers.os_process import OsProcess, describe_status
from jigsaw_triton.servers.ports import check_free

_POLL_S = 0.05
_GROUP_GONE_S = 5.0
_SHM = Path("/dev/shm")


class ServerProcess:
    """One run of a tritonserver, in a session and process group of its own or in a container.

    Args:
        name: Name of the server, for messages.
        command: Command to run.
        log: Log file, which is appended to and rotated; its folder must exist.
        survives: True if the server outlives this process. Otherwise it gets SIGTERM when the thread that started it
            ends: call `start` in the main thread then.
        found: Process that an earlier controller started; None for one that is still to be started.
    """

    def __init__(
        self, name: str, command: Command, log: Path, *, survives: bool = False, found: OsProcess | None = None
    ) -> None:
        self.name = name
        self.command = command
        self.log = log
        self._survives = survives
        self._process = found
        self._rotation: asyncio.Task[None] | None = None
        self._removal: asyncio.Task[None] | None = None
        self._log_start = 0
        self._main: int | None = None
        if found is not None:
            self._watch_log()

    @property
    def pid(self) -> int | None:
        """Process id of the server, which is also the id of its process group; None before it is started."""
        return self._main or (self._process.pid if self._process else None)

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None if the server runs or was not started."""
        return self._process.returncode if self._process else None

    async def start(self, *, timeout_s: float = 60.0) -> None:
        """Starts the server and waits until it is ready. If that fails or is cancelled, removes all traces of it.

        Args:
            timeout_s: Seconds within which it must be ready.

        Raises:
            InputError: A port or socket is in use.
            ServerError: The server ended or was not ready in time; the message includes the end of its log.
        """
        self._check_listeners()
        await self._end_container()
        sweep(self.command.shm_prefix)
        rotate(self.log)
        try:
            _write_private(self.command.argument_file, self.command.file_content)
            self._spawn()
            await self._wait_ready(timeout_s)
            if self.command.container is not None:
                self._main = await asyncio.to_thread(main_process, self.command.container)
        except BaseException:
            await self._remove()
            raise
        finally:
            self.command.argument_file.unlink(missing_ok=True)

    async def wait(self) -> int:
        """Waits until the server ends and returns its exit status; `stop` must still clean up after it."""
        if self._process is None:
            raise ServerError("was not started", where=self.name)
        return await self._process.wait()

    def kill(self) -> None:
        """Kills the server at once, as if it had died by itself; `stop` must still clean up after it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def stop(self, *, grace_s: float = 0.0) -> None:
        """Ends the server and removes its processes, regions in /dev/shm and sockets. May be called repeatedly.

        Close the connections of clients first, because idle ones delay Triton's exit.

        Args:
            grace_s: Seconds between SIGTERM and SIGKILL. With 0 it is killed at once, which loses only the requests in
                flight.
        """
        try:
            if self._process is not None and self._process.returncode is None and grace_s > 0:
                self._process.send_signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), grace_s)
        finally:
            await self._remove()

    def _check_listeners(self) -> None:
        for address, port in self.command.ports:
            check_free(address, port)
        for path in self.command.sockets:
            _clear_socket(path)

    def _spawn(self) -> None:
        self._log_start = log_size(self.log)
        with appending(self.log) as output:
            self._process = OsProcess.spawn(
                self.command.argv,
                output=output,
                env={**os.environ, **self.command.env},
                # Python searches its start folder for modules first, so this must be one without any.
                cwd=self.log.parent,
                survives=self._survives,
            )
        self._watch_log()

    def _watch_log(self) -> None:
        self._rotation = asyncio.create_task(keep_short(self.log), name=f"rotate {self.log}")

    async def _wait_ready(self, timeout_s: float) -> None:
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        try:
            async with asyncio.timeout(timeout_s), TritonClient.of(self.command) as client:
                while not await client.ready():
                    done, _ = await asyncio.wait({ended}, timeout=_POLL_S)
                    if done:
                        status = describe_status(ended.result())
                        raise self._failure(f"tritonserver exited with {status} before it was ready")
        except TimeoutError:
            raise self._failure(f"tritonserver was not ready within {timeout_s:g} s") from None
        finally:
            ended.cancel()

    def _failure(self, message: str) -> ServerError:
        message = with_log(message, self.log, since=self._log_start)
        return ServerError(message, where=self.name, hint=f"see the whole log in {self.log}")

    async def _remove(self) -> None:
        """Removes all traces of the server.

        A removal goes on if its caller is cancelled, and later callers wait for its end. Otherwise it could remove the
        sockets of the server that is started next.
        """
        if self._removal is None or self._removal.done():
            self._removal = asyncio.create_task(self._clean(), name=f"remove {self.name}")
        await asyncio.shield(self._removal)

    async def _clean(self) -> None:
        if self._rotation is not None:
            self._rotation.cancel()
            self._rotation = None
        try:
            # The container comes first, because it outlives the program that shows its output.
            await self._end_container()
        finally:
            if self._process is not None:
                await _end_group(self._process)
        sweep(self.command.shm_prefix)
        for path in self.command.sockets:
            path.unlink(missing_ok=True)

    async def _end_container(self) -> None:
        if self.command.container is not None:
            await asyncio.to_thread(end_container, self.command.container)


def sweep(prefix: str) -> None:
    """Removes the regions in /dev/shm whose names have this prefix; their owner must have ended."""
    if len(prefix) < 8:
        raise ValueError(f"the prefix {prefix!r} is too short to identify one server")
    for path in _SHM.iterdir():
        if path.name.startswith(prefix):
            path.unlink(missing_ok=True)


def group_members(group: int) -> list[int]:
    """Returns the ids of the running processes of a process group."""
    members = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The command's name in parentheses is followed by state, parent and group.
            state, _, pgrp, *_ = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(pgrp) == group and state not in "ZX":
            members.append(int(process.name))
    return members


@dataclass(frozen=True, slots=True)
class Stub:
    """The process of one instance of a python model.

    Attributes:
        server: Process id of its tritonserver.
        model: Name of the model; empty if the process has died.
        status: Exit status, negative for a signal, of a process that has died without its server's notice: Triton reaps
            only stubs that it ends itself. None if the process runs.
    """

    server: int
    model: str
    status: int | None


def python_stubs(servers: Collection[int]) -> dict[int, Stub]:
    """Returns the processes of the Python models of these tritonservers, by process id."""
    found = {}
    # All processes of the machine are looked at every second: pathlib would take twice the time.
    for process in os.scandir("/proc"):
        if not process.name.isdigit():
            continue
        try:
            state, parent, *_, status = _read(f"{process.path}/stat").rpartition(b")")[2].split()
            if int(parent) not in servers:
                continue
            arguments = _read(f"{process.path}/cmdline").split(b"\0")
        except OSError:
            continue
        if state == b"Z":
            found[int(process.name)] = Stub(int(parent), "", os.waitstatus_to_exitcode(int(status)))
        # The first argument after the program is <repository>/<model>/<version>/model.py.
        elif len(arguments) > 1 and (path := PurePath(os.fsdecode(arguments[1]))).name == "model.py":
            found[int(process.name)] = Stub(int(parent), path.parts[-3], None)
    return found


def _read(path: str) -> bytes:
    """Returns the beginning of a small file of the kernel."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 65_536)
    finally:
        os.close(file)


async def _end_group(process: OsProcess) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    # Its stubs are orphans now. They must end before their shared memory is removed.
    deadline = time.monotonic() + _GROUP_GONE_S
    while members := group_members(process.pid):
        if time.monotonic() > deadline:
            raise ServerError(f"processes {', '.join(map(str, members))} did not end after SIGKILL")
        await asyncio.sleep(_POLL_S)


def _write_private(path: Path, text: str) -> None:
    """Writes a new file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)


def _clear_socket(path: Path) -> None:
    """Removes a stale socket: Triton does not remove its sockets when it ends, and cannot bind to an existing one."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InputError("this file exists but is not a socket", where=str(path), hint="remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass
    raise InputError("another server listens on this socket", where=str(path), hint="stop it first")
