"""Starts, reloads without losing connections, watches and stops HAProxy processes."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.haproxy.admin import ask
from jigsaw_triton.servers.haproxy.config import CONFIG, Place
from jigsaw_triton.servers.haproxy.program import Haproxy
from jigsaw_triton.servers.logfile import appending, keep_short, log_size, rotate, with_log
from jigsaw_triton.servers.os_process import UNKNOWN_STATUS, OsProcess, describe_status

_CORES_A_THREAD, _MOST_THREADS = 4, 4
"""Processors per HAProxy thread, and largest number of threads. One thread handles about 20,000 requests per second;
more threads would take processors from the gateway."""

_MOST_FILES = 2**16
_START_S = 10.0
_POLL_S = 0.02
_SOFT_STOP_S = 2.0


def place_in(folder: Path) -> Place:
    """Returns the place of a HAProxy in this folder, with the threads and files that this machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    threads = min(max((os.cpu_count() or 1) // _CORES_A_THREAD, 1), _MOST_THREADS)
    return Place(folder, threads, files)


def haproxy_argv(haproxy: Haproxy, place: Place) -> tuple[str, ...]:
    """Returns HAProxy's command line, in the foreground so that it stays a child that can be watched."""
    return str(haproxy.binary), "-db", "-f", str(place.folder / CONFIG)


def write_files(place: Place, files: Mapping[str, str], links: Mapping[str, str]) -> None:
    """Writes HAProxy's files, each atomically, and the links to the user's own files."""
    place.folder.mkdir(mode=0o700, exist_ok=True)
    for name, text in files.items():
        fresh = place.folder / f".{name}"
        fresh.write_text(text, encoding="utf-8", newline="")
        fresh.replace(place.folder / name)
    for name, target in links.items():
        fresh = place.folder / f".{name}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(place.folder / name)


class HaproxyProcess:
    """One HAProxy process, in a session and process group of its own.

    Args:
        name: Name that errors give as their place.
        haproxy: Program to run.
        place: Folder of its files and sockets.
        log: Log file, which is appended to and rotated; its folder must exist.
        env: Environment variables in addition to the inherited ones.
        survives: True if HAProxy outlives this process. Otherwise it gets SIGTERM when the thread that started it ends:
            call `start` in the main thread then.
        found: Process that an earlier controller started; None for one that is still to be started.
    """

    def __init__(
        self,
        name: str,
        haproxy: Haproxy,
        place: Place,
        log: Path,
        *,
        env: Mapping[str, str] = MappingProxyType({}),
        survives: bool = False,
        found: OsProcess | None = None,
    ) -> None:
        self._name = name
        self._argv = haproxy_argv(haproxy, place)
        self._place = place
        self._log = log
        self._env = env
        self._survives = survives
        self._process = found
        self._rotation: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the process and of its group; None before it is started."""
        return self._process.pid if self._process is not None else None

    @property
    def runs(self) -> bool:
        """True if the process was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, before: "HaproxyProcess | None" = None) -> None:
        """Starts HAProxy and waits until it listens. If that fails or is cancelled, ends it.

        Args:
            before: Process to replace: the new one takes over its listeners, and it ends when its requests have ended.

        Raises:
            ServerError: HAProxy ended or did not listen in time; the message includes the end of its log.
        """
        rotate(self._log)
        begin = log_size(self._log)
        old = before.pid if before is not None and before.runs else None
        arguments = ("-x", str(self._place.admin), "-sf", str(old)) if old is not None else ()
        if old is None:
            self._place.admin.unlink(missing_ok=True)
        try:
            self._spawn(arguments)
            await self._wait_listening(begin)
        except BaseException:
            await asyncio.shield(self.stop(soft=False))
            raise
        self._rotation = asyncio.create_task(keep_short(self._log), name=f"rotate {self._log}")

    async def wait(self) -> int:
        """Waits until the process ends and returns its exit status."""
        if self._process is None:
            return UNKNOWN_STATUS
        return await self._process.wait()

    async def stop(self, *, soft: bool = True) -> None:
        """Ends the process. May be called repeatedly.

        Args:
            soft: True to give requests in flight two seconds to end first.
        """
        if self._rotation is not None:
            self._rotation.cancel()
            self._rotation = None
        if self._process is None:
            return
        if self.runs and soft:
            with contextlib.suppress(TimeoutError):
                self._process.send_signal(signal.SIGUSR1)
                await asyncio.wait_for(self._process.wait(), _SOFT_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def _spawn(self, arguments: tuple[str, ...]) -> None:
        with appending(self._log) as output:
            self._process = OsProcess.spawn(
                (*self._argv, *arguments),
                output=output,
                env={**os.environ, **self._env},
                cwd=self._place.folder,
                survives=self._survives,
            )

    async def _wait_listening(self, log_begin: int) -> None:
        """Waits until the process answers on the admin socket, which it takes over together with all listeners."""
        assert self._process is not None
        give_up_at = time.monotonic() + _START_S
        while True:
            if (status := self._process.returncode) is not None:
                raise self._failure(f"HAProxy exited with {describe_status(status)}", log_begin)
            if await self._answers():
                return
            if time.monotonic() > give_up_at:
                raise self._failure(f"HAProxy did not listen within {_START_S:g} s", log_begin)
            await asyncio.sleep(_POLL_S)

    async def _answers(self) -> bool:
        """Returns True if this process answers; during a reload, the old one may answer instead."""
        return f"Pid: {self.pid}\n" in (await ask(self._place.admin, "show info") or "")

    def _failure(self, message: str, since: int) -> ServerError:
        message = with_log(message, self._log, since=since)
        return ServerError(message, where=self._name, hint=f"see the whole log in {self._log}")


def remove_files(place: Place) -> None:
    """Removes the folder of a HAProxy."""
    shutil.rmtree(place.folder, ignore_errors=True)
