"""Supervision of a deployment's edge: it starts with the gateway, restarts when it dies, and reloads changed files."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.model import Edge, GatewayPorts
from jigsaw_triton.servers.command import gateway_sockets
from jigsaw_triton.servers.edge.config import PROTOCOLS, Place, files, links
from jigsaw_triton.servers.edge.haproxy import Haproxy, find_haproxy
from jigsaw_triton.servers.edge.keys import read_keys
from jigsaw_triton.servers.edge.process import EdgeProcess, place_in, remove_files, write_files
from jigsaw_triton.servers.members import marks
from jigsaw_triton.servers.os_process import OsProcess, describe_status
from jigsaw_triton.servers.ports import check_free

NAME = "edge"
"""Name of the edge among the servers and in the status, and of its log."""

_LOOK_INTERVAL_S = 2.0
_DELAY_FIRST_S, _DELAY_MOST_S = 0.05, 5.0

Report = Callable[[str, str], None]
"""Function that records an event, given its kind and a sentence."""


def edge_place(paths: Paths) -> Place:
    """Returns the location of the edge's files."""
    return place_in(paths.run / NAME)


class EdgeKeeper:
    """Keeps one HAProxy running in front of the gateway if the cluster has an edge.

    Args:
        paths: Folders of the deployment.
        report: Function that records an event.
        survives: True if HAProxy outlives this process.
    """

    def __init__(self, paths: Paths, report: Report, *, survives: bool = False) -> None:
        self._paths = paths
        self._report = report
        self._survives = survives
        self._place = edge_place(paths)
        self._edge: Edge | None = None
        self._ports = GatewayPorts()
        self._haproxy: Haproxy | None = None
        self._process: EdgeProcess | None = None
        self._leaving: set[EdgeProcess] = set()
        self._written: Mapping[str, Any] = {}
        self._watch: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._restarts = 0

    @property
    def wanted(self) -> bool:
        """True if the cluster has an edge."""
        return self._edge is not None

    def status(self) -> dict[str, Any] | None:
        """Returns the edge's part of the status; None if there is no edge."""
        if self._edge is None:
            return None
        process, haproxy = self._process, self._haproxy
        state = "absent" if process is None else "ready" if process.runs else "restarting"
        return {
            "kind": self._edge.kind,
            "state": state,
            "pid": process.pid if process is not None else None,
            "restarts": self._restarts,
            "version": haproxy.version if haproxy is not None else "",
            "tls": self._edge.tls is not None,
            "client_certificates": self._edge.tls is not None and self._edge.tls.client_ca is not None,
            "api_keys": self._edge.api_keys is not None,
            "metrics": f"http://{self._ports.address}:{self._edge.metrics}/metrics",
        }

    async def configure(self, edge: Edge | None, ports: GatewayPorts) -> None:
        """Applies new settings, and reloads the edge if it is running.

        Raises:
            JigsawError: The new settings do not work. The edge keeps the old ones.
        """
        before = (self._edge, self._ports)
        self._edge, self._ports = edge, ports
        if self._process is not None and edge is not None:
            try:
                await self._reload()
            except BaseException:
                self._edge, self._ports = before
                raise

    async def start(self) -> None:
        """Starts the edge without connecting it to the gateway; see `admit`. A failure leaves nothing behind.

        Raises:
            InputError: A port is in use, or a file cannot be read.
            JigsawError: HAProxy cannot be downloaded or does not start.
        """
        if self._edge is None or self._process is not None:
            return
        self._haproxy = await asyncio.to_thread(find_haproxy)
        for port in (self._ports.http, self._ports.grpc, self._edge.metrics):
            check_free(self._ports.address, port)
        try:
            await self._run(None)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(remove_files, self._place))
            raise
        self._watch = asyncio.create_task(self._keep(), name="keep the edge")

    async def adopt(self, found: OsProcess | None) -> None:
        """Takes the place of a HAProxy that an earlier controller left, or of none, without losing a connection.

        Args:
            found: The process; None where it has ended.

        If HAProxy does not start with its present files, the one before goes on, and another start is tried later.

        Raises:
            JigsawError: HAProxy cannot be fetched.
        """
        if self._edge is None or self._process is not None:
            return
        self._haproxy = await asyncio.to_thread(find_haproxy)
        before = EdgeProcess(self._haproxy, self._place, self._paths.log(NAME), found=found) if found else None
        try:
            await self._run(before)
        except (JigsawError, OSError) as error:
            self._report("error", f"the edge cannot be replaced: {error}")
            # `_keep` waits for it, or starts another where there is none.
            self._process = before or EdgeProcess(self._haproxy, self._place, self._paths.log(NAME))
            self._written = {"files": {}, "links": {}, "contents": {}}
        else:
            if before is not None:
                self._leaving.add(before)
        self._watch = asyncio.create_task(self._keep(), name="keep the edge")

    def admit(self) -> None:
        """Forwards requests to the gateway from now on. Call it once the gateway has loaded all its models.

        Each start of the gateway creates new sockets, so the links to them are replaced each time.
        """
        if self._process is None:
            return
        for protocol, path in zip(PROTOCOLS, gateway_sockets(self._paths.run), strict=True):
            fresh = self._place.folder / f".live.{protocol}"
            fresh.unlink(missing_ok=True)
            fresh.hardlink_to(path)
            fresh.replace(self._place.live(protocol))

    async def stop(self) -> None:
        """Stops the edge, after up to two seconds for requests in progress. The call may be repeated."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        async with self._lock:
            process, self._process = self._process, None
            running = [*self._leaving, *([process] if process is not None else [])]
            self._leaving.clear()
            await asyncio.gather(*(one.stop(soft=one is process) for one in running))
            if process is not None:
                await asyncio.to_thread(remove_files, self._place)

    async def _run(self, before: EdgeProcess | None) -> None:
        """Writes the files and starts a process, which takes over from `before` if there is one."""
        assert self._edge is not None and self._haproxy is not None
        written = await asyncio.to_thread(self._contents)
        await asyncio.to_thread(write_files, self._place, written["files"], written["links"])
        log, env = self._paths.log(NAME), marks(self._paths.state, NAME)
        process = EdgeProcess(self._haproxy, self._place, log, env=env, survives=self._survives)
        await process.start(before)
        self._process, self._written = process, written

    def _contents(self) -> dict[str, Any]:
        """Returns all that HAProxy reads: generated files, links to the user's files, and digests of the latter."""
        assert self._edge is not None
        keys = read_keys(Path(self._edge.api_keys)) if self._edge.api_keys is not None else None
        targets = links(self._edge)
        return {
            "files": files(self._edge, self._ports, self._place, keys),
            "links": targets,
            "contents": {name: sha256(Path(target).read_bytes()).digest() for name, target in targets.items()},
        }

    async def _reload(self) -> None:
        """Starts a process with the current settings and files, which takes over from the running one."""
        async with self._lock:
            before = self._process
            if before is None or await asyncio.to_thread(self._contents) == self._written:
                return
            written = self._written
            try:
                await self._run(before)
            except JigsawError:
                await asyncio.to_thread(write_files, self._place, written["files"], written["links"])
                raise
            self._leaving.add(before)

    async def _keep(self) -> None:
        """Restarts the edge when it dies, and reloads it when a certificate or the API keys change."""
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
            if process is not self._process:
                continue
            if process is not ended:
                self._report("error", f"the edge ended unexpectedly ({describe_status(status)}); restarting it now")
                self._restarts += 1
                ended, failure = process, ""
            try:
                async with self._lock:
                    await self._run(None)
                self._report("restart", "edge serves again")
            except (JigsawError, OSError) as error:
                if str(error) != failure:
                    self._report("error", f"the edge does not start and will be retried: {error}")
                    failure = str(error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _DELAY_MOST_S)

    async def _reload_changes(self, refused: str) -> str:
        """Reloads the edge if its files have changed.

        Args:
            refused: Error of the previous reload, which is not reported again; empty if there was none.

        Returns:
            Error of this reload; empty if it succeeded.
        """
        for one in [one for one in self._leaving if not one.runs]:
            await one.stop(soft=False)
            self._leaving.discard(one)
        before = self._written
        try:
            await self._reload()
        except (JigsawError, OSError) as error:
            if str(error) != refused:
                self._report(
                    "error", f"the edge keeps its previous files, because the changed ones do not work: {error}"
                )
            return str(error)
        if self._written is not before:
            self._report("edge", "the edge has reloaded its changed files")
        return ""
