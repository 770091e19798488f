"""The transport's side at a node: HAProxy takes calls over mutual TLS to the Unix sockets of workers and agent."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jigsaw_triton.servers.certificates.credentials import Credentials
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.config import node_files
from jigsaw_triton.servers.transport.side import Report, Side

NAME = "node-transport"
"""Name among the servers of a node, in its status, and of its log."""


class NodeSide:
    """Keeps one HAProxy running at a node. It restarts when it dies, and reloads changed certificates.

    A call for a worker that the node does not have, or whose socket nobody listens on, gets status 503: it was not
    executed. A call for another node gets 503, too.

    Args:
        node: Name of the node, as callers know it.
        address: Address to listen on: of IPv4, of IPv6, or `0.0.0.0` or `::` for all.
        port: TCP port to listen on.
        credentials: Certificate of the node, and the authorities of its callers.
        agent: Unix socket of the node's agent, which need not exist yet.
        folder: Folder for HAProxy's files and sockets, which is created; its path is short.
        log: Log file, which is appended to and rotated; its folder must exist.
        report: Function that records an event.
        env: Environment variables in addition to the inherited ones, such as `members.marks(state, NAME)`.
        survives: True if HAProxy outlives this process. Otherwise call `start` in the main thread.
    """

    def __init__(
        self,
        node: str,
        address: str,
        port: int,
        credentials: Credentials,
        *,
        agent: Path,
        folder: Path,
        log: Path,
        report: Report,
        env: Mapping[str, str] = MappingProxyType({}),
        survives: bool = False,
    ) -> None:
        self._address, self._port = address, port
        self._workers: Mapping[str, Path] = {}
        self._fence = ""
        self._side = Side(
            NAME,
            f"the transport of node {node}",
            node,
            credentials,
            folder=folder,
            log=log,
            files=lambda place: node_files(node, address, port, self._workers, agent, place, self._fence),
            report=report,
            env=env,
            survives=survives,
        )

    async def start(
        self, workers: Mapping[str, Path] = MappingProxyType({}), *, fence: str = "", found: OsProcess | None = None
    ) -> None:
        """Checks the certificates and starts HAProxy. A failure leaves nothing behind.

        Args:
            workers: Name of each worker of the node -> its Unix socket, which need not exist yet.
            fence: Epoch as for `set_workers`.
            found: HAProxy that an earlier process left, whose place the new one takes without losing a connection. If
                the new one does not start, an event reports it, `found` goes on, and the start is tried again.

        Raises:
            InputError: The port is in use, or a certificate is missing, invalid or expired.
            MissingDependencyError: A package that checks certificates is missing.
            JigsawError: HAProxy cannot be downloaded or does not start.
        """
        self._workers, self._fence = dict(workers), fence
        await self._side.start([(self._address, self._port)], found)

    async def set_workers(self, workers: Mapping[str, Path], *, fence: str = "") -> None:
        """Replaces the workers of the node, without losing a call. Returns once they can be called.

        A worker that restarts at the same socket is no change. Changes within a moment are one reload.

        Args:
            workers: Name of each worker -> its Unix socket, which need not exist yet.
            fence: Epoch of the controller that owns the workers. They refuse calls from the gateways of earlier ones,
                and of another one of the same number, with status 503. Empty to refuse none.

        Raises:
            JigsawError: HAProxy does not accept the change. It goes on as before, and the change is tried again.
        """
        self._workers, self._fence = dict(workers), fence
        await self._side.reload()

    def status(self) -> dict[str, Any]:
        """Returns the state (`absent`, `ready` or `restarting`), pid, restarts and version of HAProxy, and the port."""
        return {**self._side.status(), "address": self._address, "port": self._port}

    async def stop(self) -> None:
        """Stops HAProxy, after up to two seconds for calls in progress. The call may be repeated."""
        await self._side.stop()
