"""A tritonserver as a process: started, watched, stopped, and nothing of it left behind."""

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
from jigsaw_triton.servers.logfile import rotate, tail
from jigsaw_triton.servers.os_process import OsProcess, Record, describe_status
from jigsaw_triton.servers.ports import check_free

_POLL_S = 0.05
_ROTATE_INTERVAL_S = 5.0
_GROUP_GONE_S = 5.0
_ERROR_LINES = 12
_SHM = Path("/dev/shm")


class ServerProcess:
    """One run of a tritonserver, in a session and process group of its own, or in a container.

    Args:
        name: Name of the server in messages.
        command: Command line and environment.
        log: Path of the log, which is appended to and rotated; its folder must exist.
        record: Puts the server on record, which then survives this process. None for one that gets SIGTERM when the
            thread that started it ends: start it from the main thread's event loop.
        found: Process of a server that an earlier controller started; None for one that is still to be started.
    """

    def __init__(
        self, name: str, command: Command, log: Path, *, record: Record | None = None, found: OsProcess | None = None
    ) -> None:
        self.name = name
        self.command = command
        self.log = log
        self._record = record
        self._process = found
        self._rotation: asyncio.Task[None] | None = None
        self._log_start = 0
        self._main: int | None = None
        if found is not None:
            self._watch_log()

    @property
    def pid(self) -> int | None:
        """Process id of the server, and process group id; None before it is started."""
        return self._main or (self._process.pid if self._process else None)

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs or was not started."""
        return self._process.returncode if self._process else None

    async def start(self, *, timeout_s: float = 60.0) -> None:
        """Starts it and returns when it takes requests. On any failure, cancellation too, nothing of it is left.

        Args:
            timeout_s: Until it must be ready.

        Raises:
            InputError: A port or socket is taken.
            ServerError: It ended or was not ready in time; the message has the end of its log.
        """
        self._check_listeners()
        await self._end_container()
        sweep(self.command.shm_prefix)
        rotate(self.log)
        try:
            self._spawn()
            await self._wait_ready(timeout_s)
            if self.command.container is not None:
                self._main = await asyncio.to_thread(main_process, self.command.container)
        except BaseException:
            await asyncio.shield(self._clean())
            raise

    async def wait(self) -> int:
        """Waits until it ends; its exit status. Its helpers and shared memory are left to `stop`."""
        if self._process is None:
            raise ServerError("was not started", where=self.name)
        return await self._process.wait()

    def kill(self) -> None:
        """Ends it at once, as if it had died by itself; what it leaves is left to `stop`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def stop(self, *, grace_s: float = 0.0) -> None:
        """Ends it, and whatever it left: processes of its group, regions in /dev/shm, sockets. May be repeated.

        Close clients' connections first: idle ones delay Triton's exit.

        Args:
            grace_s: How long it may take to leave by itself after SIGTERM before it is killed; 0 kills at once,
                which loses nothing but the requests in flight.
        """
        try:
            if self._process is not None and self._process.returncode is None and grace_s > 0:
                self._process.send_signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), grace_s)
        finally:
            await asyncio.shield(self._clean())

    def _check_listeners(self) -> None:
        for address, port in self.command.ports:
            check_free(address, port)
        for path in self.command.sockets:
            _clear_socket(path)

    def _spawn(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        # Appending, so that the server's and its stubs' lines do not overwrite each other and rotation can truncate.
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._process = OsProcess.spawn(
                self.command.argv,
                output=log,
                env={**os.environ, **self.command.env},
                # Python looks for modules where it is started before anywhere else.
                cwd=self.log.parent,
                record=self._record,
            )
        finally:
            os.close(log)
        self._watch_log()

    def _watch_log(self) -> None:
        self._rotation = asyncio.create_task(self._rotate(), name=f"rotate {self.log}")

    async def _wait_ready(self, timeout_s: float) -> None:
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        try:
            async with asyncio.timeout(timeout_s), TritonClient.of(self.command) as client:
                while not await client.ready():
                    done, _ = await asyncio.wait({ended}, timeout=_POLL_S)
                    if done:
                        status = describe_status(ended.result())
                        raise self._failure(f"tritonserver ended with {status} before it was ready")
        except TimeoutError:
            raise self._failure(f"tritonserver was not ready within {timeout_s:g} s") from None
        finally:
            ended.cancel()

    def _failure(self, message: str) -> ServerError:
        lines = tail(self.log, _ERROR_LINES, since=self._log_start)
        story = "; its log ends:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
        return ServerError(message + story, where=self.name, hint=f"the whole log is {self.log}")

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_INTERVAL_S)
            await asyncio.to_thread(rotate, self.log)

    async def _clean(self) -> None:
        if self._rotation is not None:
            self._rotation.cancel()
            self._rotation = None
        try:
            # First: a container outlives the program that shows what it writes.
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
    """Removes the regions in /dev/shm whose names begin so; their owner must be gone."""
    if len(prefix) < 8:
        raise ValueError(f"the prefix {prefix!r} is too short to be one server's own")
    for path in _SHM.iterdir():
        if path.name.startswith(prefix):
            path.unlink(missing_ok=True)


def group_members(group: int) -> list[int]:
    """Ids of the living processes of a process group."""
    members = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # After the command's name in parentheses: state, parent, group.
            state, _, pgrp, *_ = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(pgrp) == group and state not in "ZX":
            members.append(int(process.name))
    return members


@dataclass(frozen=True, slots=True)
class Stub:
    """A process of a python model, one an instance.

    Attributes:
        server: Process id of its tritonserver.
        model: Name; of one that has died it is not known.
        dead: It has died, and the server has taken no note: Triton takes leave of those that it ends itself.
    """

    server: int
    model: str
    dead: bool


def python_stubs(servers: Collection[int]) -> dict[int, Stub]:
    """Processes of the python models of tritonservers, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            if int(parent) not in servers:
                continue
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if state == "Z":
            found[int(process.name)] = Stub(int(parent), "", dead=True)
        # The program, then <repository>/<model>/<version>/model.py.
        elif len(arguments) > 1 and (path := PurePath(os.fsdecode(arguments[1]))).name == "model.py":
            found[int(process.name)] = Stub(int(parent), path.parts[-3], dead=False)
    return found


async def _end_group(process: OsProcess) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    # Its stubs are nobody's children now: see to it that they are gone before their shared memory is swept.
    deadline = time.monotonic() + _GROUP_GONE_S
    while members := group_members(process.pid):
        if time.monotonic() > deadline:
            raise ServerError(f"processes {', '.join(map(str, members))} do not end although they were killed")
        await asyncio.sleep(_POLL_S)


def _clear_socket(path: Path) -> None:
    """Removes a socket that nobody listens on: Triton neither removes its own at the end nor takes one over."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InputError("is there and is no socket", where=str(path), hint="remove it")
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
