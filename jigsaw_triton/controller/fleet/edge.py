"""A deployment's edge: it starts with the gateway, and forwards requests once the gateway has its models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.gateway import Edge, GatewayPorts
from jigsaw_triton.servers.command import gateway_sockets
from jigsaw_triton.servers.edge.config import PROTOCOLS, files, links, live
from jigsaw_triton.servers.edge.keys import read_keys
from jigsaw_triton.servers.haproxy.config import Place
from jigsaw_triton.servers.haproxy.keeper import Contents, HaproxyKeeper, contents
from jigsaw_triton.servers.haproxy.process import place_in
from jigsaw_triton.servers.members import marks
from jigsaw_triton.servers.os_process import OsProcess

NAME = "edge"
"""Name of the edge among the servers and in the status, and of its log."""

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
        self._edge: Edge | None = None
        self._ports = GatewayPorts()
        self._keeper = HaproxyKeeper(
            NAME,
            "the edge",
            edge_place(paths),
            paths.log(NAME),
            self._contents,
            report,
            env=marks(paths.state, NAME),
            survives=survives,
        )

    @property
    def wanted(self) -> bool:
        """True if the cluster has an edge."""
        return self._edge is not None

    def status(self) -> dict[str, Any] | None:
        """Returns the edge's part of the status; None if there is no edge."""
        if self._edge is None:
            return None
        keeper = self._keeper
        return {
            "kind": self._edge.kind,
            **keeper.status(),
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
        if self._keeper.started and edge is not None:
            try:
                await self._keeper.reload()
            except BaseException:
                self._edge, self._ports = before
                raise

    async def start(self) -> None:
        """Starts the edge without connecting it to the gateway; see `admit`. A failure leaves nothing behind.

        Raises:
            InputError: A port is in use, or a file cannot be read.
            JigsawError: HAProxy cannot be downloaded or does not start.
        """
        if self._edge is not None:
            ports = (self._ports.http, self._ports.grpc, self._edge.metrics)
            await self._keeper.start((self._ports.address, port) for port in ports)

    async def adopt(self, found: OsProcess | None) -> None:
        """Takes the place of a HAProxy that an earlier controller left, or of none, without losing a connection.

        Args:
            found: The process; None where it has ended.

        Raises:
            JigsawError: HAProxy cannot be fetched.
        """
        if self._edge is not None:
            await self._keeper.adopt(found)

    def admit(self) -> None:
        """Forwards requests to the gateway from now on. Call it once the gateway has loaded all its models.

        Each start of the gateway creates new sockets, so the links to them are replaced each time.
        """
        if not self._keeper.started:
            return
        place = self._keeper.place
        for protocol, path in zip(PROTOCOLS, gateway_sockets(self._paths.run), strict=True):
            fresh = place.folder / f".live.{protocol}"
            fresh.unlink(missing_ok=True)
            fresh.hardlink_to(path)
            fresh.replace(live(place, protocol))

    async def stop(self) -> None:
        """Stops the edge, after up to two seconds for requests in progress. The call may be repeated."""
        await self._keeper.stop()

    def _contents(self) -> Contents:
        assert self._edge is not None
        keys = read_keys(Path(self._edge.api_keys)) if self._edge.api_keys is not None else None
        return contents(files(self._edge, self._ports, self._keeper.place, keys), links(self._edge))
