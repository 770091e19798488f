"""Agents that Ray starts: what each is to be, with its certificates, and calls to the process that talks to Ray."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess
from jigsaw_triton.errors import JigsawError, ServerError
from jigsaw_triton.gpus.model import Agents, RayCluster
from jigsaw_triton.servers.certificates.authority import provide
from jigsaw_triton.servers.certificates.credentials import CONTROLLER, check_credentials, credentials_in
from jigsaw_triton.servers.engines.placement import AgentSpec, Placed

log = logging.getLogger(__name__)

_MODULE = "jigsaw_triton.servers.engines.ray_process"
_CALL_S = 300.0
"""Seconds that a call may take. Ray itself gives up earlier, and its process needs a moment to start."""

_REMOVE_S = 45.0
"""Seconds that the removal of actors may take, for whose end `down` waits."""

_CERTIFICATES_S = 3600.0
"""Seconds between two checks of the certificates. They have months left when they are renewed."""


class RayEngine:
    """The agents of a deployment, kept running by Ray.

    Args:
        ray: Ray cluster.
        deployment: Identity of the deployment. Its actors have a namespace of their own.
        authority: Folder of the deployment's own authority, for nodes whose certificates are not given.
    """

    def __init__(self, ray: RayCluster, deployment: str, authority: Path) -> None:
        self._ray = ray
        self._deployment = deployment
        self._authority = authority
        self._agents: Agents | None = None
        self._placed: dict[str, str] = {}
        self._checked_s = time.monotonic()
        self._calling = asyncio.Lock()
        self._child: ChildProcess | None = None

    async def certificates(self, agents: Agents) -> Path:
        """Returns the folder of the controller's certificates, which are made if none are given."""
        self._agents = agents
        if agents.certificates:
            return Path(agents.certificates)
        try:
            await asyncio.to_thread(provide, self._authority, self._deployment, (CONTROLLER,))
        except JigsawError as error:
            # A failed renewal is tolerated, because it is tried again for months before the certificate expires.
            if not credentials_in(self._authority / CONTROLLER).cert.exists():
                raise
            log.warning("%s", error)
        return self._authority / CONTROLLER

    async def place(self, agents: Agents, nodes: Collection[str] | None = None) -> Placed:
        """Has Ray start the agents that do not run yet, and waits until they listen.

        Args:
            agents: Agents of the cluster.
            nodes: Nodes to look at; None for all.

        Raises:
            JigsawError: A certificate is invalid, or Ray cannot be used.
        """
        self._agents = agents
        specs = [one for one in await asyncio.to_thread(self._specs, agents) if nodes is None or one.node in nodes]
        placed: Placed = await self._call("place", specs)
        self._placed |= {spec.node: spec.actor for spec in specs}
        return placed

    async def outdated(self) -> set[str]:
        """Returns the nodes whose certificates have been replaced since they were handed over. Looks once an hour."""
        if self._agents is None or time.monotonic() < self._checked_s + _CERTIFICATES_S:
            return set()
        self._checked_s = time.monotonic()
        await self.certificates(self._agents)
        specs = await asyncio.to_thread(self._specs, self._agents)
        return {spec.node for spec in specs if spec.actor != self._placed.get(spec.node)}

    async def remove(self) -> tuple[JigsawError, ...]:
        """Ends all actors of the deployment; the agents go on. Returns what went wrong."""
        try:
            await self._call("remove", timeout_s=_REMOVE_S)
        except JigsawError as error:
            return (error,)
        return ()

    def _specs(self, agents: Agents) -> list[AgentSpec]:
        """Returns what the agents are to be. Blocks."""
        if agents.certificates:
            folder = Path(agents.certificates).parent
        else:
            folder = self._authority
            provide(folder, self._deployment, (node for node, _ in agents.addresses))
        specs = []
        for node, address in agents.addresses:
            credentials = credentials_in(folder / node)
            check_credentials(credentials, node)
            files = {path.name: path.read_text() for path in (credentials.cert, credentials.key, credentials.ca)}
            port = int(address.rpartition(":")[2]) if address else self._ray.port
            specs.append(AgentSpec(node, address, port, self._ray.state, files))
        return specs

    async def _call(self, name: str, *arguments: Any, timeout_s: float = _CALL_S) -> Any:
        async with self._calling:
            calling = asyncio.ensure_future(asyncio.to_thread(self._called, timeout_s, name, *arguments))
            try:
                return await asyncio.shield(calling)
            except asyncio.CancelledError:
                # Actors must not be created after the call that removes them.
                if self._child is not None:
                    self._child.kill()
                await asyncio.wait((calling,))
                raise

    def _called(self, timeout_s: float, name: str, *arguments: Any) -> Any:
        """Calls Ray in a process of its own, which then ends. Blocks."""
        where = f"Ray at {self._ray.address}"
        with contextlib.closing(ChildProcess(_MODULE, self._ray.address, f"jigsaw-triton-{self._deployment}")) as child:
            self._child = child
            try:
                answer = child.call((name, *arguments), timeout_s)
            except ChildHungError as error:
                hint = "see if `ray status` answers"
                raise ServerError(
                    f"the cluster has not answered within {timeout_s:g} s", where=where, hint=hint
                ) from error
            except ChildEndedError as error:
                hint = "see if `ray status` answers, and Ray's logs in /tmp/ray"
                raise ServerError(f"the connection has ended ({error})", where=where, hint=hint) from error
        if isinstance(answer, JigsawError):
            raise answer
        return answer
