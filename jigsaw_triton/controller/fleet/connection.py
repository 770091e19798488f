"""Connection of the controller's machine to the nodes: calls of agents, and of the workers that run there."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.controller.fleet.running import Running, read_running, running_json
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.model import Agents
from jigsaw_triton.servers.certificates.credentials import credentials_in
from jigsaw_triton.servers.members import marks, members, newest
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.config import Link, node_at
from jigsaw_triton.servers.transport.gateway_side import NAME as SIDE
from jigsaw_triton.servers.transport.gateway_side import GatewaySide

ByNode = Mapping[str, Mapping[str, Running]]
"""Name of each node -> the workers that run there, by name."""

NONE: ByNode = MappingProxyType({})

_REASON_S, _POLL_S = 5.0, 0.2
"""Seconds that a health check takes at most to notice a node that cannot be called, and between two looks."""

_ADDRESSES_FACT = "addresses of agents"
"""Journal key of the addresses of agents as JSON, also of nodes that have left the cluster."""

_RUNNING_FACT = "running elsewhere"
"""Journal key of the workers that run on each node as JSON, with their incarnations. The next controller offers the
same sockets, so that no call is lost and a condemned worker is not taken for a new one."""


class Connection:
    """The gateway's side of the transport, once there are agents.

    Args:
        paths: Paths of the deployment.
        journal: Journal of the deployment, whose epoch the calls carry.
        report: Function that records an event.
        survives: True if the transport outlives this process.

    Attributes:
        agents: Agents that it leads to, also those of nodes that have left the cluster; None before the first ones.
    """

    def __init__(
        self, paths: Paths, journal: Journal, report: Callable[[str, str], None], *, survives: bool = False
    ) -> None:
        self.agents: Agents | None = None
        self._paths = paths
        self._journal = journal
        self._report = report
        self._survives = survives
        self._side: GatewaySide | None = None
        self._connecting = asyncio.Lock()

    @property
    def addresses(self) -> Mapping[str, str]:
        """Name of each node -> host and port of its agent."""
        return dict(self.agents.addresses) if self.agents is not None else {}

    @property
    def earlier_addresses(self) -> Mapping[str, str]:
        """Addresses of this and earlier controllers of the journal; see `addresses`."""
        return dict(json.loads(self._journal.fact(_ADDRESSES_FACT) or "{}"))

    async def adopt(self, agents: Agents, last: ByNode) -> None:
        """Goes on with the transport of an earlier controller, as far as it runs.

        Args:
            agents: Agents of the cluster.
            last: Workers that ran when the earlier controller last knew. They can be called all the time.
        """
        running = newest(await asyncio.to_thread(members, self._paths.state), SIDE)
        found = OsProcess.find(running.pid, running.started) if running is not None else None
        await self.connect(agents, found, last)

    async def connect(self, agents: Agents, found: OsProcess | None = None, last: ByNode = NONE) -> None:
        """Starts the transport to these agents, or reconciles it. A node that has left remains until `stop`.

        Args:
            agents: Agents of the cluster.
            found: HAProxy that an earlier controller left; None if there is none.
            last: Workers that can be called from the start; see `adopt`.
        """
        async with self._connecting:
            if agents == self.agents:
                return
            addresses = {**self.addresses, **dict(agents.addresses)}
            nodes = [node_at(name, address) for name, address in addresses.items()]
            if self._side is None:
                side = GatewaySide(
                    credentials_in(Path(agents.certificates)),
                    folder=self._paths.run / "nodes",
                    log=self._paths.log(SIDE),
                    report=self._report,
                    env=marks(self._paths.state, SIDE),
                    survives=self._survives,
                    epoch=self._journal.fact(EPOCH_FACT),
                )
                await side.start(nodes, self._links(last), found=found)
                self._side = side
            else:
                await self._side.set_nodes(nodes)
            self.agents = replace(agents, addresses=tuple(addresses.items()))
            self._journal.keep_fact(_ADDRESSES_FACT, json.dumps(addresses))

    def agent_socket(self, node: str) -> Path:
        """Returns the socket that leads to the agent of a node."""
        assert self._side is not None
        return self._side.agent_socket(node)

    async def renew_epoch(self) -> None:
        """Has calls carry the epoch that the journal has now."""
        if self._side is not None:
            await self._side.set_epoch(self._journal.fact(EPOCH_FACT))

    def last_running(self, node: str, workers: Collection[str]) -> Mapping[str, Running]:
        """Returns which of these workers of a node ran when this or an earlier controller last knew."""
        found = json.loads(self._journal.fact(_RUNNING_FACT) or "{}").get(node, {})
        return {name: one for name, one in read_running(found).items() if name in workers}

    async def link(self, running: ByNode) -> None:
        """Lets the gateway call the workers that run, and no others."""
        if self._side is None:
            return
        entries = {name: running_json(own) for name, own in running.items()}
        self._journal.keep_fact(_RUNNING_FACT, json.dumps(entries))
        try:
            # No lock is held, so that simultaneous changes take one reload. The last call has the latest links.
            await self._side.set_links(self._links(running))
        except JigsawError as error:
            self._report("error", f"the gateway cannot call workers of other nodes: {error}")

    async def is_reachable(self, node: str) -> bool:
        """Returns True if the proxy of a node answered the last health check."""
        return self._side is not None and node in await self._side.reachable()

    async def reason(self, node: str) -> str:
        """Returns the reason why a node cannot be called; empty if none is found within the time of a check."""
        give_up_at = time.monotonic() + _REASON_S
        while self._side is not None:
            reason = (await self._side.health()).get(node, "")
            if reason or time.monotonic() > give_up_at:
                return reason
            await asyncio.sleep(_POLL_S)
        return ""

    async def stop(self) -> None:
        """Ends the transport."""
        self.agents = None
        if self._side is not None:
            await self._side.stop()
            self._side = None

    def _links(self, running: ByNode) -> list[Link]:
        return [
            Link(name, node, one.incarnation, self._paths.worker_socket(name))
            for node, own in running.items()
            for name, one in own.items()
        ]
