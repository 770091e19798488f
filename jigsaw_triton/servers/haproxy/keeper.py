"""Supervision of a HAProxy: it restarts when it dies, and reloads when something that it reads changes."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jigsaw_triton.background import end_tasks
from jigsaw_triton.errors import InputError, JigsawError, ServerError
from jigsaw_triton.servers.haproxy.config import Place
from jigsaw_triton.servers.haproxy.process import HaproxyProcess, remove_files, write_files
from jigsaw_triton.servers.haproxy.program import Haproxy, find_haproxy
from jigsaw_triton.servers.os_process import OsProcess, describe_status
from jigsaw_triton.servers.ports import check_free

_LOOK_INTERVAL_S = 2.0
_DELAY_FIRST_S, _DELAY_MOST_S = 0.05, 5.0

_GATHER_S = 0.05
"""Seconds that a reload waits for further changes, which it then includes."""

Report = Callable[[str, str], None]
"""Function that records an event, given its kind and a sentence."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that a HAProxy reads. Two equal contents need no reload.

    Attributes:
        files: Name of each generated file -> its text.
        links: Name of each link -> the user's file that it leads to.
        digests: Name of each link -> digest of that file.
    """

    files: Mapping[str, str]
    links: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, bytes] = field(default_factory=dict)


NOTHING = Contents({})


def contents(files: Mapping[str, str], links: Mapping[str, str]) -> Contents:
    """Returns what a HAProxy reads. Reads the files that the links lead to.

    Raises:
        InputError: Such a file cannot be read.
    """
    return Contents(files, links, {name: _digest(Path(target)) for name, target in links.items()})


def _digest(path: Path) -> bytes:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError as error:
        hint = "check the path and its permissions"
        raise InputError(f"the file cannot be read: {error.strerror}", where=str(path), hint=hint) from error


class HaproxyKeeper:
    """Keeps one HAProxy running.

    Args:
        name: Name among the servers of the deployment, which is also the kind of its events.
        title: Subject of a sentence in an event: `the edge`.
        place: Folder of its files and sockets, and its resources.
        log: Log file, which is appended to and rotated; its folder must exist.
        read: Function that returns what HAProxy is to read now. It runs in a thread, and may raise a `JigsawError`.
        report: Function that records an event.
        env: Environment variables in addition to the inherited ones.
        survives: True if HAProxy outlives this process.
        listening: Function that is called whenever another process has begun to listen.
    """

    def __init__(
        self,
        name: str,
        title: str,
        place: Place,
        log: Path,
        read: Callable[[], Contents],
        report: Report,
        *,
        env: Mapping[str, str] = MappingProxyType({}),
        survives: bool = False,
        listening: Callable[[], None] = lambda: None,
    ) -> None:
        self.place = place
        self._restarts = 0
        self._name = name
        self._title = title
        self._log = log
        self._read = read
        self._report = report
        self._env = env
        self._survives = survives
        self._listening = listening
        self._haproxy: Haproxy | None = None
        self._process: HaproxyProcess | None = None
        self._leaving: set[HaproxyProcess] = set()
        self._written = NOTHING
        self._watch: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._asked = self._done = self._waiting = 0

    @property
    def started(self) -> bool:
        """True from the start to the end, also while it restarts."""
        return self._process is not None

    def status(self) -> dict[str, Any]:
        """Returns the state (`absent`, `ready` or `restarting`), the process id, the restarts and the version."""
        process = self._process
        state = "absent" if process is None else "ready" if process.runs else "restarting"
        return {
            "state": state,
            "pid": process.pid if process is not None else None,
            "restarts": self._restarts,
            "version": self._haproxy.version if self._haproxy is not None else "",
        }

    async def start(self, ports: Iterable[tuple[str, int]] = ()) -> None:
        """Starts HAProxy. A failure leaves nothing behind.

        Args:
            ports: (address, port) pairs that must be free.

        Raises:
            InputError: A port is in use, or a file cannot be read.
            JigsawError: HAProxy cannot be downloaded or does not start.
        """
        if self._process is not None:
            return
        self._haproxy = await asyncio.to_thread(find_haproxy)
        for address, port in ports:
            check_free(address, port)
        try:
            await self._run(None)
        except BaseException:
            await asyncio.shield(self.stop())
            raise
        self._watch = asyncio.create_task(self._keep(), name=f"keep {self._name}")

    async def adopt(self, found: OsProcess | None) -> None:
        """Takes the place of a HAProxy that an earlier controller left, or of none, without losing a connection.

        Args:
            found: The process; None where it has ended.

        If HAProxy does not start with its present files, the one before goes on, and another start is tried later.

        Raises:
            JigsawError: HAProxy cannot be fetched.
        """
        if self._process is not None:
            return
        self._haproxy = await asyncio.to_thread(find_haproxy)
        before = self._new(found) if found else None
        if before is not None and not self.place.admin.exists():
            # HAProxy cannot hand over its sockets if its folder was removed, as is /run/user/UID at a logout.
            await before.stop()
            before = None
        try:
            await self._run(before)
        except JigsawError as error:
            self._report("error", f"{self._title} cannot be replaced: {error}")
            # `_keep` watches the earlier process, or starts a new one if there is none.
            self._process = before or self._new()
        else:
            if before is not None:
                self._leaving.add(before)
        self._watch = asyncio.create_task(self._keep(), name=f"keep {self._name}")

    async def reload(self) -> None:
        """Has HAProxy read its contents again if they have changed. Calls within a moment are one reload.

        Raises:
            JigsawError: HAProxy does not start with them, or they cannot be written. The running process goes on with
                those before.
        """
        self._asked += 1
        self._waiting += 1
        mine = self._asked
        try:
            await asyncio.sleep(_GATHER_S)
            async with self._lock:
                if self._done < mine:
                    asked = self._asked
                    await self._reload()
                    self._done = asked
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        """Stops HAProxy, after up to two seconds for requests in progress. The call may be repeated."""
        await end_tasks(self._watch)
        self._watch = None
        async with self._lock:
            process, self._process = self._process, None
            running = [*self._leaving, *([process] if process is not None else [])]
            self._leaving.clear()
            self._written = NOTHING
            await asyncio.gather(*(one.stop(soft=one is process) for one in running))
            await asyncio.to_thread(remove_files, self.place)

    def _new(self, found: OsProcess | None = None) -> HaproxyProcess:
        assert self._haproxy is not None
        return HaproxyProcess(
            self._name, self._haproxy, self.place, self._log, env=self._env, survives=self._survives, found=found
        )

    async def _run(self, before: HaproxyProcess | None) -> None:
        """Writes the files and starts a process, which takes over from `before` if there is one."""
        read = await asyncio.to_thread(self._read)
        try:
            await asyncio.to_thread(write_files, self.place, read.files, read.links)
            process = self._new()
            await process.start(before)
            # The contents do not count as written until `_listening` succeeds, so that the next look tries again.
            self._process, self._written = process, NOTHING
            self._listening()
        except OSError as error:
            hint = "free space on its disk, and check its permissions"
            message = f"the folder cannot be written: {error.strerror}"
            raise ServerError(message, where=str(self.place.folder), hint=hint) from error
        self._written = read

    async def _reload(self) -> None:
        """Starts a process with the present contents, which takes over from the running one."""
        before = self._process
        if before is None or await asyncio.to_thread(self._read) == self._written:
            return
        try:
            await self._run(before)
        finally:
            if self._process is not before:
                self._leaving.add(before)

    async def _keep(self) -> None:
        """Restarts HAProxy when it dies, and reloads it when a file of the user changes."""
        delay_s, refused, failure, ended = _DELAY_FIRST_S, "", "", None
        while True:
            process = self._process
            assert process is not None
            try:
                status = await asyncio.wait_for(process.wait(), _LOOK_INTERVAL_S)
            except TimeoutError:
                delay_s = _DELAY_FIRST_S
                refused = await self._reload_changes(refused)
                continue
            async with self._lock:
                # A reload ends the earlier process, possibly before the reload itself has ended.
                if process is not self._process:
                    continue
                if process is not ended:
                    self._report(
                        "error", f"{self._title} ended unexpectedly ({describe_status(status)}); restarting it now"
                    )
                    self._restarts += 1
                    ended, failure = process, ""
                try:
                    await self._run(None)
                    self._report("restart", f"{self._title} serves again")
                    continue
                except JigsawError as error:
                    if str(error) != failure:
                        self._report("error", f"{self._title} does not start and will be retried: {error}")
                        failure = str(error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _DELAY_MOST_S)

    async def _reload_changes(self, refused: str) -> str:
        """Reloads HAProxy if its files have changed.

        Args:
            refused: Error of the previous reload, which is not reported again; empty if there was none.

        Returns:
            Error of this reload; empty if it succeeded.
        """
        for one in [one for one in self._leaving if not one.runs]:
            await one.stop(soft=False)
            self._leaving.discard(one)
        if self._waiting:
            return refused
        before = self._written
        try:
            async with self._lock:
                await self._reload()
                reloaded = self._written is not before
        except JigsawError as error:
            if str(error) != refused:
                self._report(
                    "error", f"{self._title} keeps its previous files, because the changed ones do not work: {error}"
                )
            return str(error)
        if reloaded:
            self._report(self._name, f"{self._title} has reloaded its changed files")
        return ""
