"""Placing of agents by Ray: it starts them, and again if they do not answer or need new certificates."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.fleet.following import AWAY_S
from jigsaw_triton.controller.fleet.ray_engine import RayEngine
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.model import Agents, RayCluster

log = logging.getLogger(__name__)

_PLACE_S, _MAX_PLACE_S = 5.0, 60.0
"""First and longest delay of the exponential backoff after which Ray is asked again for agents that do not answer."""


class Placing:
    """Has Ray run the agents of a deployment, and follows their addresses.

    Args:
        ray: Ray cluster.
        deployment: Identity of the deployment.
        authority: Folder of the deployment's own authority; see `RayEngine`.
        nodes: Function that returns the nodes.
        connected: Function that returns the agents that the nodes are connected to.
        connect: Function that connects the nodes to these agents.

    Attributes:
        asked: Agents that Ray was asked for last, or that an earlier controller has placed; None if none were.
    """

    def __init__(
        self,
        ray: RayCluster,
        deployment: str,
        authority: Path,
        nodes: Callable[[], Iterable[RemoteNode]],
        connected: Callable[[], Agents | None],
        connect: Callable[[Agents], Awaitable[None]],
    ) -> None:
        self.asked: Agents | None = None
        self._engine = RayEngine(ray, deployment, authority)
        self._nodes = nodes
        self._connected = connected
        self._connect = connect
        self._task = asyncio.create_task(self._keep(), name="placing")

    async def certified(self, agents: Agents) -> Agents:
        """Returns the agents with the folder of the controller's certificates, which are made if none are given."""
        return replace(agents, certificates=str(await self._engine.certificates(agents)))

    async def place(self, agents: Agents) -> Agents:
        """Has Ray start agents that do not run, and returns all with their addresses.

        Raises:
            JigsawError: The agent of a new node does not start.
        """
        found = await self.certified(agents)
        # Lost nodes are tried again later; a change must not wait for them.
        away = {node.name for node in self._nodes() if node.away}
        placed = await self._engine.place(agents, {node for node, _ in agents.addresses} - away)
        known = {**self._addresses(), **placed.addresses}
        described = {node.name for node in self._nodes() if node.described is not None}
        failed = [error for node, error in placed.errors.items() if node not in described]
        if failed:
            # Connecting to the agents that have started lets the controller end them.
            await self._connect(replace(found, addresses=tuple(known.items())))
            raise failed[0]
        self.asked = agents
        return replace(found, addresses=tuple((node, known[node]) for node, _ in agents.addresses))

    async def stop(self) -> None:
        """Ends the placing. Agents that run go on."""
        await end_tasks(self._task)

    async def remove(self) -> tuple[JigsawError, ...]:
        """Has Ray start none of the agents again; they go on. Returns what went wrong."""
        return await self._engine.remove()

    async def _keep(self) -> None:
        """Has Ray start agents that do not answer, or that need new certificates, and follows their addresses."""
        delay_s = _PLACE_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_PLACE_S)
            connected = self._connected()
            if self.asked is None or connected is None:
                continue
            try:
                away = {n.name for n in self._nodes() if n.unanswered_s > AWAY_S} | await self._engine.outdated()
                # The agent of a node that has left the cluster is not started again.
                away &= {name for name, _ in self.asked.addresses}
                if not away:
                    delay_s = _PLACE_S
                    continue
                placed = await self._engine.place(self.asked, away)
                for node, error in placed.errors.items():
                    log.warning("node %s: %s", node, error)
                known = {**self._addresses(), **placed.addresses}
                await self._connect(replace(connected, addresses=tuple(known.items())))
            except Exception as error:
                # Any error may pass, so the next attempt is made in any case.
                log.warning("agents are not placed: %s", error, exc_info=not isinstance(error, JigsawError))

    def _addresses(self) -> dict[str, str]:
        connected = self._connected()
        return dict(connected.addresses) if connected is not None else {}
