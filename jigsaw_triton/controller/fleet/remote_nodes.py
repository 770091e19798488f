"""The other machines of a deployment, each of which has an agent."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls, AwayError
from jigsaw_triton.controller.fleet.agent_checks import check_agents, check_servers
from jigsaw_triton.controller.fleet.connection import NONE, ByNode, Connection
from jigsaw_triton.controller.fleet.node_group import NodeGroup, each_of
from jigsaw_triton.controller.fleet.placing import Placing
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.succession import ReplacedError, Succession, fences_in, identity_in
from jigsaw_triton.controller.fleet.wire import Condemned, Json, NodeEvent
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Agents, Cluster

START_S = 10.0
"""Seconds for which a deployment waits for the agents of new nodes, which may have been started at the same moment, and
for a first node that is back if all are lost."""

_POLL_S = 0.2
"""Seconds between two looks at nodes that do not answer."""

_FIRST_S = 5.0
"""Seconds that an adoption waits for a first node that answers. Only nodes know that another controller has replaced
this one. If none answers, this one goes on: it may be the only one that is left."""


class RemoteNodes(NodeGroup):
    """The nodes of a cluster that have agents; none for a deployment on one machine.

    Args:
        paths: Paths of the deployment.
        journal: Journal of the deployment, whose epoch the agents check.
        notify: Callback for events that concern workers.
        survives: True if the transport outlives this process.

    Attributes:
        digest: Function that returns the SHA-256 of a file.
        on_change: Callback for workers that begin or end, and for a node that is lost or back.
        on_replaced: Callback for the controller on another machine that has replaced this one.
        on_surpass: Callback for a later epoch that this controller has begun.
    """

    def __init__(
        self, paths: Paths, journal: Journal, notify: Callable[[e.Event], None], *, survives: bool = False
    ) -> None:
        super().__init__()
        self._paths = paths
        self._journal = journal
        self.on_change: Callable[[], None] = lambda: None
        self.on_replaced: Callable[[ReplacedError], None] = lambda _: None
        self.on_surpass: Callable[[], Awaitable[None]] = _nothing
        self._replaced: ReplacedError | None = None
        self._carried_epoch = self.epoch
        self._renewing = asyncio.Lock()
        self.digest = Identities()
        self._placing: Placing | None = None
        self._has_changed = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

        def heard(event: NodeEvent) -> None:
            if isinstance(event, Condemned):
                # Other news of the node must not wait for it.
                killing = self.kill(event.worker, event.cause, event.incarnation)
                ending = asyncio.create_task(killing, name=f"end {event.worker}")
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            else:
                notify(event)

        self._notify = heard
        self._connection = Connection(
            paths, journal, lambda kind, text: notify(e.Noticed(kind, text)), survives=survives
        )

    @property
    def epoch(self) -> str:
        """Epoch of the controller, as the agents know it."""
        return self._journal.fact(EPOCH_FACT)

    @property
    def addresses(self) -> Mapping[str, str]:
        """Name of each node -> host and port of its agent."""
        return self._connection.addresses

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
        await each_of(nodes, lambda node: node.serve_on(_part(cluster, node.name)))
        if new:
            try:
                check_servers({name: one for name, one in self.described.items() if name in names})
            except InputError:
                # The next deployment checks them again.
                for node in new:
                    node.described = None
                raise

    async def _describe(self, node: RemoteNode, give_up_at: float) -> Json:
        """Returns what an agent says of its node. Waits for one that does not answer yet.

        Args:
            node: The node.
            give_up_at: Time of the monotonic clock until which the agent need not answer.

        Raises:
            AwayError: The agent does not answer. The error has the reason that the transport knows.
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
                reason = await self._connection.reason(node.name)
                if not reason:
                    raise
                address = self.addresses[node.name]
                raise AwayError(f"{address} {reason}", where=error.where, hint=error.hint) from error

    async def adopt(self, cluster: Cluster, workers: Mapping[str, Worker]) -> None:
        """Goes on with the workers of an earlier controller. Those that have ended follow as events.

        Workers may also run on nodes that have left the cluster, if the change to it had not ended.

        Args:
            cluster: Cluster that they serve on.
            workers: Workers that are known to run on the nodes.

        Raises:
            ReplacedError: A controller on another machine has replaced this one.
        """
        if cluster.agents is None:
            return
        by_node: dict[str, dict[str, Worker]] = {name: {} for name, _ in cluster.agents.addresses}
        for name, worker in workers.items():
            by_node.setdefault(worker.node, {})[name] = worker
        # With Ray, the journal has the addresses. They may have changed, which is noticed later.
        given = {node: address for node, address in cluster.agents.addresses if address}
        addresses = {**self._connection.earlier_addresses, **given}
        agents = replace(cluster.agents, addresses=tuple((n, addresses[n]) for n in by_node if n in addresses))
        if (placing := self._placing_of(agents)) is not None:
            agents = await placing.certified(agents)
            if all(name in addresses for name, _ in cluster.agents.addresses):
                placing.asked = cluster.agents
        last = {node: self._connection.last_running(node, own) for node, own in by_node.items() if node in addresses}
        await self._connection.adopt(agents, last)
        self._meet(last)
        await each_of(self, lambda node: node.adopt(_part(cluster, node.name), by_node[node.name]))
        give_up_at = time.monotonic() + _FIRST_S
        while self and not self._replaced and all(node.away for node in self) and time.monotonic() < give_up_at:
            await self.wait_changed(_POLL_S)
        if self._replaced is not None:
            raise self._replaced

    async def survey(self, cluster: Cluster) -> Cluster:
        """Returns the cluster in its current state, with the MIG instances of others and without lost nodes.

        If all nodes are lost, it waits a while for a first one, which may be coming back at this moment.
        """
        parts = {node: part for node in self if (part := _part(cluster, node.name)).gpus}
        give_up_at = time.monotonic() + START_S
        while parts and all(node.away for node in parts) and time.monotonic() < give_up_at:  # noqa: ASYNC110 - no event
            await asyncio.sleep(_POLL_S)
        found = await asyncio.gather(*(node.survey(part) for node, part in parts.items()))
        return replace(cluster, gpus=tuple(sorted((gpu for one in found for gpu in one.gpus), key=lambda g: g.id)))

    async def wait_changed(self, timeout_s: float) -> None:
        """Waits until a node is lost, is back, or has other workers; until the timeout if none is."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_changed.wait(), timeout_s)
        self._has_changed.clear()

    async def stop(self) -> None:
        """Ends the transport. Agents go on, unless Ray has started them."""
        if self._placing is not None:
            await self._placing.stop()
            for error in (*await self._placing.remove(), *await self.end_agents()):
                self._journal.event("error", f"not everything has ended: {error}")
            self._placing = None
        await self.leave()

    async def leave(self) -> None:
        """Ends the transport. All agents go on."""
        if self._placing is not None:
            await self._placing.stop()
        await asyncio.gather(*(node.stop() for node in self))
        self._nodes, self._placing = {}, None
        await self._connection.stop()

    def _placing_of(self, agents: Agents) -> Placing | None:
        """Returns the placing of the agents by Ray; None if others start them."""
        if agents.ray is not None and self._placing is None:
            self._placing = Placing(
                agents.ray,
                identity_in(self._journal),
                self._paths.state / "certificates",
                lambda: self,
                lambda: self._connection.agents,
                self._connect,
            )
        return self._placing

    async def _placed(self, agents: Agents) -> Agents:
        """Returns the agents with their addresses. Has Ray start them if it is to.

        Raises:
            JigsawError: The agent of a new node does not start.
        """
        placing = self._placing_of(agents)
        if placing is None:
            return agents
        if agents == placing.asked and self._connection.agents is not None:
            return self._connection.agents
        return await placing.place(agents)

    async def _connect(self, agents: Agents) -> None:
        """Connects to these agents. A node that has left the cluster remains until `stop`."""
        await self._connection.connect(agents)
        self._meet()

    def _meet(self, last: ByNode = NONE) -> None:
        """Makes the nodes to whose agents there is a connection.

        Args:
            last: Workers that ran when an earlier controller last knew.
        """
        succession = Succession(
            identity_in(self._journal),
            lambda: self.epoch,
            lambda: fences_in(self._journal),
            self.surpass,
            self._give_way,
        )
        for name in self.addresses:
            if name not in self._nodes:
                self._nodes[name] = RemoteNode(
                    name,
                    AgentCalls(
                        name,
                        self._connection.agent_socket(name),
                        succession.deployment,
                        succession.epoch,
                        self._paths.contents,
                    ),
                    self.digest,
                    self._notify,
                    partial(self._connection.is_reachable, name),
                    self._changed,
                    succession,
                    last.get(name, {}),
                )

    def _give_way(self, error: ReplacedError) -> None:
        self._replaced = error
        self.on_replaced(error)

    async def surpass(self, number: int) -> None:
        """Begins an epoch with a higher number, which the calls of workers and the routes carry too."""
        self._journal.surpass(number)
        await self.renew_epoch()

    async def renew_epoch(self) -> None:
        """Has calls and routes carry the epoch of this controller. Called again after a failure, it completes that."""
        async with self._renewing:
            if (epoch := self.epoch) != self._carried_epoch:
                await self._connection.renew_epoch()
                await self.on_surpass()
                self._carried_epoch = epoch

    async def _changed(self) -> None:
        """Links the workers that run, after a change of them. Those of a lost node fail at once from then on."""
        self._has_changed.set()
        self.on_change()
        await self._connection.link({node.name: node.running for node in self})


async def _nothing() -> None:
    pass


def _part(cluster: Cluster, node: str) -> Cluster:
    """Returns the cluster with the GPUs of one node."""
    return replace(cluster, gpus=tuple(gpu for gpu in cluster.gpus if gpu.id.node == node))
