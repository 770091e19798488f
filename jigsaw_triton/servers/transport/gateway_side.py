"""The transport's side at a gateway: HAProxy offers workers and agents of other nodes as Unix sockets of this one."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jigsaw_triton.background import end_tasks
from jigsaw_triton.errors import InputError
from jigsaw_triton.servers import names
from jigsaw_triton.servers.certificates.credentials import Credentials
from jigsaw_triton.servers.haproxy.admin import ask
from jigsaw_triton.servers.haproxy.config import Place
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.config import LINKS, Link, Node, agent_socket, gateway_files
from jigsaw_triton.servers.transport.health import parse_health
from jigsaw_triton.servers.transport.side import Report, Side

NAME = "gateway-transport"
"""Name among the servers of a deployment, in its status, and of its log."""


class GatewaySide:
    """Keeps one HAProxy running beside a gateway. It restarts when it dies, and reloads changed certificates.

    A call gets status 503 if it certainly was not executed: the node does not answer, has another name or an invalid
    certificate, or does not have the worker. It gets 502, 504, or an end of the connection, if it may have been.

    Args:
        credentials: Certificate of this node, and the authorities of the others.
        folder: Folder for HAProxy's files and sockets, which is created; its path is short.
        log: Log file, which is appended to and rotated; its folder must exist.
        report: Function that records an event.
        env: Environment variables in addition to the inherited ones, such as `members.marks(state, NAME)`.
        survives: True if HAProxy outlives this process. Otherwise call `start` in the main thread.
        epoch: Epoch of the controller that commands the gateway, by which nodes refuse others; empty for none.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        folder: Path,
        log: Path,
        report: Report,
        env: Mapping[str, str] = MappingProxyType({}),
        survives: bool = False,
        epoch: str = "",
    ) -> None:
        self._epoch = epoch
        self._nodes: dict[str, Node] = {}
        self._links: tuple[Link, ...] = ()
        self._offered: tuple[Link, ...] = ()
        self._made: dict[Path, Path] = {}
        self._names = names.Names()
        self._watch: asyncio.Task[None] | None = None
        self._side = Side(
            NAME,
            "the transport to other nodes",
            "",
            credentials,
            folder=folder,
            log=log,
            files=self._files,
            listening=self._connect,
            report=report,
            env=env,
            survives=survives,
        )

    async def start(
        self, nodes: Iterable[Node] = (), links: Iterable[Link] = (), *, found: OsProcess | None = None
    ) -> None:
        """Checks the certificates and starts HAProxy. A failure leaves nothing behind.

        Args:
            nodes: Nodes that can be called.
            links: Workers that can be called. Sockets of those that `found` serves already stay as they are.
            found: HAProxy that an earlier process left, whose place the new one takes without losing a connection. If
                the new one does not start, an event reports it, `found` goes on, and the start is tried again.

        Raises:
            InputError: A certificate is missing, invalid or expired, or a link names an unknown node.
            MissingDependencyError: A package that checks certificates is missing.
            JigsawError: HAProxy cannot be downloaded or does not start.
        """
        self._nodes = {node.name: node for node in nodes}
        self._links = self._known(links)
        await self._side.start((), found)
        self._watch = self._watch or asyncio.create_task(self._watch_names(), name="watch the addresses of nodes")

    async def _watch_names(self) -> None:
        """Follows the addresses of nodes. HAProxy reloads as for any changed file."""
        while True:
            await asyncio.to_thread(self._names.look, [node.host for node in self._nodes.values()])
            await asyncio.sleep(names.LOOK_S)

    async def set_nodes(self, nodes: Iterable[Node]) -> None:
        """Replaces the nodes, and drops the links to those that are gone. Otherwise as `set_links`."""
        self._nodes = {node.name: node for node in nodes}
        self._links = tuple(link for link in self._links if link.node in self._nodes)
        await self._side.reload()

    async def set_links(self, links: Iterable[Link]) -> None:
        """Replaces the links, without losing a call. Returns once all new sockets exist and accept calls.

        A link whose incarnation is new gets a new socket, which replaces the one before atomically. The sockets of the
        others stay, and so do the calls in progress of all. Changes within a moment are one reload.

        Args:
            links: All workers that can be called from now on.

        Raises:
            InputError: A link names an unknown node.
            JigsawError: HAProxy does not accept the change. It goes on as before, and the change is tried again.
        """
        self._links = self._known(links)
        await self._side.reload()

    async def set_epoch(self, epoch: str) -> None:
        """Replaces the epoch. Otherwise as `set_links`."""
        self._epoch = epoch
        await self._side.reload()

    def agent_socket(self, node: str) -> Path:
        """Returns the Unix socket on which the agent of a node can be called over HTTP, once the node is set."""
        return agent_socket(self._side.place, node)

    def status(self) -> dict[str, Any]:
        """Returns the state (`absent`, `ready` or `restarting`), pid, restarts and version of HAProxy."""
        return self._side.status()

    async def reachable(self) -> frozenset[str]:
        """Returns the names of the nodes that passed their last health check. If HAProxy does not answer, none did.

        Nodes that have not been checked yet are included.
        """
        return frozenset(node for node, reason in (await self.health()).items() if not reason)

    async def health(self) -> Mapping[str, str]:
        """Returns name of each node -> reason why it cannot be called; empty if it passed its last health check.

        A check is at most two seconds old. There is no node in the answer if HAProxy does not answer.
        """
        answer = await ask(self._side.place.admin, "show stat -1 4 -1")
        return parse_health(answer) if answer is not None else {}

    async def stop(self) -> None:
        """Stops HAProxy, after up to two seconds for calls in progress, and removes the sockets. May be repeated."""
        await end_tasks(self._watch)
        self._watch = None
        await self._side.stop()
        for socket in self._made:
            socket.unlink(missing_ok=True)
        self._made = {}

    def _known(self, links: Iterable[Link]) -> tuple[Link, ...]:
        found = tuple(links)
        for link in found:
            if link.node not in self._nodes:
                hint = f"nodes: {', '.join(self._nodes) or 'none'}"
                raise InputError(f"worker {link.worker} is on an unknown node", where=link.node, hint=hint)
        return found

    def _files(self, place: Place) -> dict[str, str]:
        for folder in (place.folder, place.folder / LINKS):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._offered = self._links
        nodes = [replace(node, host=self._names.address(node.host)) for node in self._nodes.values()]
        return gateway_files(nodes, self._offered, place, self._epoch)

    def _connect(self) -> None:
        """Leads the sockets of callers to those on which HAProxy has begun to listen."""
        place = self._side.place
        made = {link.socket: link.bound(place) for link in self._offered}
        for link in self._offered:
            socket, bound = link.socket, made[link.socket]
            if not (socket.exists() and socket.samefile(bound)):
                os.utime(bound, ns=(link.identity, link.identity))
                fresh = socket.with_name(f".{socket.name}.{os.getpid()}")
                fresh.unlink(missing_ok=True)
                fresh.hardlink_to(bound)
                fresh.replace(socket)
        for socket in self._made.keys() - made.keys():
            socket.unlink(missing_ok=True)
        for path in (place.folder / LINKS).iterdir():
            if path not in made.values():
                path.unlink(missing_ok=True)
        self._made = made
