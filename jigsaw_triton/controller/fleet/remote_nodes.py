"""The other machines of a deployment: their agents, and the transport by which the gateway calls their workers."""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls, AwayError
from jigsaw_triton.controller.fleet.agent_checks import check_agents, check_servers
from jigsaw_triton.controller.fleet.gateway_content import RemoteWorker
from jigsaw_triton.controller.fleet.node import Process
from jigsaw_triton.controller.fleet.ray_engine import RayEngine
from jigsaw_triton.controller.fleet.remote_node import AWAY_S, RemoteNode
from jigsaw_triton.controller.fleet.running import Running, read_running, running_json
from jigsaw_triton.controller.fleet.wire import Condemned, Json, NodeEvent
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import InputError, JigsawError
from jigsaw_triton.gpus.model import Agents, Cluster, DeviceUse, GpuId
from jigsaw_triton.servers.certificates.credentials import credentials_in
from jigsaw_triton.servers.members import marks, members, newest
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.config import Link, node_at
from jigsaw_triton.servers.transport.gateway_side import NAME as SIDE
from jigsaw_triton.servers.transport.gateway_side import GatewaySide

log = logging.getLogger(__name__)

NONE: Mapping[str, Mapping[str, Running]] = MappingProxyType({})

START_S = 10.0
"""Seconds for which a deployment waits for the agents of new nodes, which may have been started at the same moment."""

_REASON_S, _POLL_S = 5.0, 0.2
"""Seconds that a health check takes at most to notice a node that cannot be called, and between two looks."""

_PLACE_S, _MAX_PLACE_S = 5.0, 60.0
"""First and longest delay of the exponential backoff after which Ray is asked again for agents that do not answer."""

_IDENTITY_FACT = "deployment"
"""Journal key of the identity by which agents know whose workers they have."""

_ADDRESSES_FACT = "addresses of agents"
"""Journal key of the addresses of agents as JSON, also of nodes that have left the cluster."""

_RUNNING_FACT = "running elsewhere"
"""Journal key of the workers that run on each node as JSON, with their incarnations. The next controller offers the
same sockets, so that no call is lost and a condemned worker is not taken for a new one."""


class RemoteNodes:
    """The nodes of a cluster that have agents; none for a deployment on one machine.

    Args:
        paths: Paths of the deployment.
        journal: Journal of the deployment, whose epoch the agents check.
        notify: Callback for events that concern workers.
        survives: True if the transport outlives this process.

    Attributes:
        digest: Function that returns the SHA-256 of a file.
        on_change: Called when workers begin or end, and when a node is lost or back.
    """

    def __init__(
        self, paths: Paths, journal: Journal, notify: Callable[[e.Event], None], *, survives: bool = False
    ) -> None:
        self._paths = paths
        self._journal = journal
        self.on_change: Callable[[], None] = lambda: None
        self._survives = survives
        self.digest = Identities()
        self._engine: RayEngine | None = None
        self._placing: asyncio.Task[None] | None = None
        self._asked: Agents | None = None
        self._connecting = asyncio.Lock()
        self._agents: Agents | None = None
        self._side: GatewaySide | None = None
        self._nodes: dict[str, RemoteNode] = {}
        self._has_changed = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

        def heard(event: NodeEvent) -> None:
            if isinstance(event, Condemned):
                # Other news of the node must not wait for it.
                ending = asyncio.create_task(self.kill(event.worker, event.cause), name=f"end {event.worker}")
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            else:
                notify(event)

        self._notify = heard

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def __iter__(self) -> Iterator[RemoteNode]:
        return iter(self._nodes.values())

    def get(self, name: str) -> RemoteNode | None:
        """Returns the node of this name; None if there is none."""
        return self._nodes.get(name)

    @property
    def epoch(self) -> str:
        """Epoch of the controller, as the agents know it."""
        return self._journal.fact(EPOCH_FACT)

    @property
    def addresses(self) -> Mapping[str, str]:
        """Name of each node -> host and port of its agent."""
        return dict(self._agents.addresses) if self._agents is not None else {}

    def remote_workers(self) -> tuple[RemoteWorker, ...]:
        """Returns the workers that run on all nodes."""
        return tuple(
            RemoteWorker(name, node.name, one.incarnation)
            for node in self
            for name, one in sorted(node.running.items())
        )

    @property
    def _described(self) -> Mapping[str, Json]:
        return {node.name: node.described for node in self if node.described is not None}

    @property
    def backends(self) -> frozenset[str]:
        """Backends that the tritonservers of all nodes have."""
        found = [frozenset(one["backends"]) for one in self._described.values()]
        return frozenset.intersection(*found) if found else frozenset()

    @property
    def version(self) -> str:
        """Version of the nodes' tritonserver; empty if there are no nodes."""
        return next((str(one["tritonserver"]) for one in self._described.values()), "")

    def process(self, name: str) -> Process | None:
        """Returns the process of a worker on its node; None if it has none."""
        return next((found for node in self if (found := node.process(name)) is not None), None)

    def of(self, name: str, worker: Worker | None) -> RemoteNode | None:
        """Returns the node that has a worker, or is to have it; None if it is on the controller's own machine.

        Args:
            name: Name of the worker.
            worker: The worker if it may be new; None to look by its name.
        """
        if worker is not None:
            return self._nodes.get(worker.node) if worker.place is not None else None
        return next((node for node in self if name in node.workers), None)

    async def serve_on(self, cluster: Cluster) -> None:
        """Sets the cluster to serve on. Agents of nodes that are new in it must answer, and agree with the others.

        Raises:
            InputError: An agent does not fit, a certificate is invalid, or Ray cannot start an agent.
            AwayError: The agent of a new node does not answer.
        """
        if cluster.agents is None:
            return
        await self._connect(await self._placed(cluster.agents))
        # Nodes that have left are not asked, nor are those that were lost when they were to be adopted.
        names = [name for name, _ in cluster.agents.addresses]
        nodes = [self._nodes[name] for name in names]
        new = [node for node in nodes if node.described is None and not node.away]
        if new:
            give_up_at = time.monotonic() + START_S
            found = await asyncio.gather(*(self._describe(node, give_up_at) for node in new))
            described = {node.name: one for node, one in zip(new, found, strict=True)}
            for text in check_agents(described, time.time()):
                self._notify(e.Noticed("node", text))
        await self._each(nodes, lambda node: node.serve_on(_part(cluster, node.name)))
        if new:
            try:
                check_servers({name: one for name, one in self._described.items() if name in names})
            except InputError:
                # The next deployment checks them again.
                for node in new:
                    node.described = None
                raise

    async def _describe(self, node: RemoteNode, give_up_at: float) -> Json:
        """Returns what an agent says of its node. Waits for one that does not answer yet.

        Args:
            node: The node.
            give_up_at: Time of the monotonic clock until which the agent may be silent.

        Raises:
            AwayError: It does not answer. The error has the reason that the transport knows.
        """
        said = False
        while True:
            try:
                return await node.describe()
            except AwayError as error:
                if time.monotonic() < give_up_at:
                    if not said:
                        self._notify(e.Noticed("node", f"waiting for the agent of node {node.name}"))
                    said = True
                    await asyncio.sleep(_POLL_S)
                    continue
                reason = await self._reason(node.name)
                if not reason:
                    raise
                address = self.addresses[node.name]
                raise AwayError(f"{address} {reason}", where=error.where, hint=error.hint) from error

    async def _reason(self, name: str) -> str:
        """Returns the reason why a node cannot be called; empty if none is found within the time of a check."""
        give_up_at = time.monotonic() + _REASON_S
        while self._side is not None:
            reason = (await self._side.health()).get(name, "")
            if reason or time.monotonic() > give_up_at:
                return reason
            await asyncio.sleep(_POLL_S)
        return ""

    async def adopt(self, cluster: Cluster, workers: Mapping[str, Worker]) -> None:
        """Goes on with the workers of an earlier controller. Those that have ended follow as events.

        Workers may also run on nodes that have left the cluster, if the change to it had not ended.

        Args:
            cluster: Cluster that they serve on.
            workers: Workers that are known to run on the nodes.
        """
        if cluster.agents is None:
            return
        running = newest(await asyncio.to_thread(members, self._paths.state), SIDE)
        by_node: dict[str, dict[str, Worker]] = {name: {} for name, _ in cluster.agents.addresses}
        for name, worker in workers.items():
            by_node.setdefault(worker.node, {})[name] = worker
        earlier = dict(json.loads(self._journal.fact(_ADDRESSES_FACT) or "{}"))
        # With Ray, the journal has the addresses. They may have changed, which is noticed later.
        addresses = {**earlier, **{node: address for node, address in cluster.agents.addresses if address}}
        agents = replace(cluster.agents, addresses=tuple((n, addresses[n]) for n in by_node if n in addresses))
        agents = await self._with_engine(agents)
        self._asked = cluster.agents if all(n in addresses for n, _ in cluster.agents.addresses) else None
        last = {node: self._last_running(node, own) for node, own in by_node.items() if node in addresses}
        found = OsProcess.find(running.pid, running.started) if running is not None else None
        await self._connect(agents, found, last)
        await self._each(self, lambda node: node.adopt(_part(cluster, node.name), by_node[node.name]))

    async def survey(self, cluster: Cluster) -> Cluster:
        """Returns the cluster in its current state, with the MIG instances of others and without lost nodes."""
        parts = {node: _part(cluster, node.name) for node in self}
        found = await asyncio.gather(*(node.survey(part) for node, part in parts.items() if part.gpus))
        return replace(cluster, gpus=tuple(sorted((gpu for one in found for gpu in one.gpus), key=lambda g: g.id)))

    async def wait_changed(self, timeout_s: float) -> None:
        """Waits until a node is lost, is back, or has other workers; until the timeout if none is."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_changed.wait(), timeout_s)
        self._has_changed.clear()

    async def lost_gpus(self) -> frozenset[GpuId]:
        """Returns the known GPUs that are lost: all of a node that does not answer."""
        found = await asyncio.gather(*(node.lost_gpus() for node in self))
        return frozenset().union(*found)

    async def use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker, for the workers for which the driver reports it."""
        found = await asyncio.gather(*(node.use() for node in self))
        return {name: use for one in found for name, use in one.items()}

    async def kill(self, worker: str, cause: str) -> None:
        """Kills a worker, which is then restarted; see `Node.kill`."""
        node = self.of(worker, None)
        if node is not None:
            await node.kill(worker, cause)

    async def stop(self) -> None:
        """Ends the transport. Agents go on, unless Ray has started them."""
        if self._placing is not None:
            self._placing.cancel()
            await asyncio.wait((self._placing,))
        if self._engine is not None:
            for error in (*await self._engine.remove(), *await self._end_agents()):
                self._journal.event("error", f"not everything has ended: {error}")
        await asyncio.gather(*(node.stop() for node in self))
        self._nodes, self._agents, self._asked = {}, None, None
        self._engine, self._placing = None, None
        if self._side is not None:
            await self._side.stop()
            self._side = None

    async def _end_agents(self) -> list[BaseException]:
        """Ends the agents, which no actor starts again. Returns what went wrong."""
        found = await asyncio.gather(*(node.end_agent() for node in self), return_exceptions=True)
        return [error for error in found if error is not None]

    async def _with_engine(self, agents: Agents) -> Agents:
        """Returns the agents with the folder of the controller's certificates."""
        if agents.ray is None:
            return agents
        if self._engine is None:
            self._engine = RayEngine(agents.ray, self._identity(), self._paths.state / "certificates")
            self._placing = asyncio.create_task(self._keep_placed(), name="placing")
        return replace(agents, certificates=str(await self._engine.certificates(agents)))

    async def _placed(self, agents: Agents) -> Agents:
        """Returns the agents with their addresses. Has Ray start them if it is to.

        Raises:
            JigsawError: The agent of a new node does not start.
        """
        if agents == self._asked and self._agents is not None:
            return self._agents
        found = await self._with_engine(agents)
        if self._engine is not None:
            # Lost nodes are tried again later; a change must not wait for them.
            away = {node.name for node in self if node.away}
            placed = await self._engine.place(agents, {node for node, _ in agents.addresses} - away)
            known = {**self.addresses, **placed.addresses}
            failed = [error for node, error in placed.errors.items() if node not in self._described]
            if failed:
                # `stop` ends the agents that have started.
                await self._connect(replace(found, addresses=tuple(known.items())))
                raise failed[0]
            found = replace(found, addresses=tuple((node, known[node]) for node, _ in agents.addresses))
        self._asked = agents
        return found

    async def _keep_placed(self) -> None:
        """Has Ray start agents that do not answer, or that need new certificates, and follows their addresses."""
        delay_s = _PLACE_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_PLACE_S)
            if self._asked is None or self._agents is None or self._engine is None:
                continue
            try:
                silent = {node.name for node in self if node.silent_s > AWAY_S} | await self._engine.outdated()
                # Nobody starts the agent of a node that has left the cluster.
                silent &= {name for name, _ in self._asked.addresses}
                if not silent:
                    delay_s = _PLACE_S
                    continue
                placed = await self._engine.place(self._asked, silent)
                for node, error in placed.errors.items():
                    log.warning("node %s: %s", node, error)
                known = {**self.addresses, **placed.addresses}
                await self._connect(replace(self._agents, addresses=tuple(known.items())))
            except Exception as error:
                # Whatever it is, the next try may do better.
                log.warning("agents are not placed: %s", error, exc_info=not isinstance(error, JigsawError))

    async def _connect(
        self, agents: Agents, found: OsProcess | None = None, last: Mapping[str, Mapping[str, Running]] = NONE
    ) -> None:
        """Starts the transport to these agents, or brings it in line. A node that has left remains until `stop`.

        Args:
            agents: Agents of the cluster.
            found: HAProxy that an earlier controller left; None if there is none.
            last: Name of each node -> workers that ran there when an earlier controller last knew. They can be called
                all the time.
        """
        async with self._connecting:
            if agents == self._agents:
                return
            known = dict(self._agents.addresses) if self._agents is not None else {}
            nodes = [node_at(name, address) for name, address in {**known, **dict(agents.addresses)}.items()]
            if self._side is None:
                side = GatewaySide(
                    credentials_in(Path(agents.certificates)),
                    folder=self._paths.run / "nodes",
                    log=self._paths.log(SIDE),
                    report=lambda kind, text: self._notify(e.Noticed(kind, text)),
                    env=marks(self._paths.state, SIDE),
                    survives=self._survives,
                    epoch=self.epoch,
                )
                await side.start(nodes, self._links(last), found=found)
                self._side = side
            else:
                await self._side.set_nodes(nodes)
            self._agents = replace(agents, addresses=tuple({**known, **dict(agents.addresses)}.items()))
            self._journal.keep_fact(_ADDRESSES_FACT, json.dumps(dict(self._agents.addresses)))
            deployment = self._identity()
            for node in nodes:
                if node.name not in self._nodes:
                    socket = self._side.agent_socket(node.name)
                    self._nodes[node.name] = RemoteNode(
                        node.name,
                        AgentCalls(node.name, socket, deployment, lambda: self.epoch),
                        self.digest,
                        self._notify,
                        partial(self._is_reachable, node.name),
                        self._changed,
                        self._surpass,
                        last.get(node.name, {}),
                    )

    async def _surpass(self, number: int) -> None:
        """Begins an epoch with a higher number, which the calls of workers carry too."""
        self._journal.surpass(number)
        assert self._side is not None
        await self._side.set_epoch(self.epoch)

    def _links(self, running: Mapping[str, Mapping[str, Running]]) -> list[Link]:
        """Returns the links to the workers that run, given those of each node."""
        return [
            Link(name, node, one.incarnation, self._paths.worker_socket(name))
            for node, own in running.items()
            for name, one in own.items()
        ]

    def _last_running(self, node: str, workers: Collection[str]) -> Mapping[str, Running]:
        """Returns which of these workers of a node ran when this or an earlier controller last knew."""
        found = json.loads(self._journal.fact(_RUNNING_FACT) or "{}").get(node, {})
        return {name: one for name, one in read_running(found).items() if name in workers}

    def _identity(self) -> str:
        """Returns the identity of the deployment, which lasts as long as its journal."""
        if not self._journal.fact(_IDENTITY_FACT):
            self._journal.keep_fact(_IDENTITY_FACT, secrets.token_hex(8))
        return self._journal.fact(_IDENTITY_FACT)

    async def _each(self, nodes: Iterable[RemoteNode], call: Callable[[RemoteNode], Awaitable[object]]) -> None:
        """Calls nodes at once, and raises the first error after all have ended."""
        found = await asyncio.gather(*(call(node) for node in nodes), return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException):
                raise error

    async def _is_reachable(self, name: str) -> bool:
        """Returns true if the proxy of a node answered the last health check."""
        return self._side is not None and name in await self._side.reachable()

    async def _changed(self) -> None:
        """Links the workers that run, after a change of them. Those of a lost node fail at once from then on."""
        self._has_changed.set()
        self.on_change()
        if self._side is None:
            return
        running = {node.name: node.running for node in self}
        told = {name: running_json(own) for name, own in running.items()}
        self._journal.keep_fact(_RUNNING_FACT, json.dumps(told))
        try:
            # Without a lock, so that changes at the same time are one reload. The last call has the last links.
            await self._side.set_links(self._links(running))
        except JigsawError as error:
            self._notify(e.Noticed("error", f"the gateway cannot call workers of other nodes: {error}"))


def _part(cluster: Cluster, node: str) -> Cluster:
    """Returns the cluster with the GPUs of one node."""
    return replace(cluster, gpus=tuple(gpu for gpu in cluster.gpus if gpu.id.node == node))
