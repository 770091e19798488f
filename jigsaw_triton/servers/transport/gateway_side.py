"""The transport's side at a gateway: HAProxy offers workers and agents of other nodes as Unix sockets of this one."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jigsaw_triton.servers.certificates.credentials import Credentials
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.config import Link, Node

NAME = "gateway-transport"
"""Name among the servers of a deployment, in its status, and of its log."""

Report = Callable[[str, str], None]
"""Function that records an event, given its kind and a sentence."""


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
    ) -> None:
        raise NotImplementedError

    async def start(
        self, nodes: Iterable[Node] = (), links: Iterable[Link] = (), *, found: OsProcess | None = None
    ) -> None:
        """Checks the certificates and starts HAProxy. A failure leaves nothing behind.

        Args:
            nodes: Nodes that can be called.
            links: Workers that can be called. Sockets of those that `found` serves already stay as they are.
            found: HAProxy that an earlier process left, whose place the new one takes without losing a connection.

        Raises:
            InputError: A certificate is missing, invalid or expired, or a link names an unknown node.
            MissingDependencyError: A package that checks certificates is missing.
            JigsawError: HAProxy cannot be downloaded or does not start.
        """
        raise NotImplementedError

    async def set_nodes(self, nodes: Iterable[Node]) -> None:
        """Replaces the nodes, and drops the links to those that are gone. Otherwise as `set_links`."""
        raise NotImplementedError

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
        raise NotImplementedError

    def agent_socket(self, node: str) -> Path:
        """Returns the Unix socket on which the agent of a node can be called over HTTP, once the node is set."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """Returns state (`absent`, `ready` or `restarting`), pid, restarts and version of HAProxy, and its nodes.

        Each node has the state in which the last health check found it.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Stops HAProxy, after up to two seconds for calls in progress, and removes the sockets. May be repeated."""
        raise NotImplementedError
