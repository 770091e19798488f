"""The nodes of a cluster that have agents, looked at and called together."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.fleet.gateway_content import RemoteWorker
from jigsaw_triton.controller.fleet.node import Process
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.wire import Json
from jigsaw_triton.gpus.model import DeviceUse, GpuId


class NodeGroup:
    """Nodes by name, each with an agent that answers for it. There are none in a deployment on one machine."""

    def __init__(self) -> None:
        self._nodes: dict[str, RemoteNode] = {}

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def __iter__(self) -> Iterator[RemoteNode]:
        return iter(self._nodes.values())

    def get(self, name: str) -> RemoteNode | None:
        """Returns the node of this name; None if there is none."""
        return self._nodes.get(name)

    def remote_workers(self) -> tuple[RemoteWorker, ...]:
        """Returns the workers that run on all nodes."""
        return tuple(
            RemoteWorker(name, node.name, one.incarnation)
            for node in self
            for name, one in sorted(node.running.items())
        )

    @property
    def described(self) -> Mapping[str, Json]:
        """Descriptions that the agents have given of their nodes, by name of the node."""
        return {node.name: node.described for node in self if node.described is not None}

    @property
    def backends(self) -> frozenset[str]:
        """Backends that the tritonservers of all nodes have."""
        found = [frozenset(one["backends"]) for one in self.described.values()]
        return frozenset.intersection(*found) if found else frozenset()

    @property
    def version(self) -> str:
        """Version of the nodes' tritonserver; empty if there are no nodes."""
        return next((str(one["tritonserver"]) for one in self.described.values()), "")

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

    async def lost_gpus(self) -> frozenset[GpuId]:
        """Returns the known GPUs that are lost: all of a node that does not answer."""
        found = await asyncio.gather(*(node.lost_gpus() for node in self))
        return frozenset().union(*found)

    async def use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker, for the workers for which the driver reports it."""
        found = await asyncio.gather(*(node.use() for node in self))
        return {name: use for one in found for name, use in one.items()}

    async def energy(self) -> Mapping[GpuId, float]:
        """Returns the energy of all nodes' GPUs in joules; see `MigDriver.energy`."""
        found = await asyncio.gather(*(node.energy() for node in self))
        return {gpu: joules for one in found for gpu, joules in one.items()}

    async def kill(self, worker: str, cause: str, incarnation: str = "") -> None:
        """Kills a worker, which is then restarted; see `RemoteNode.kill`."""
        node = self.of(worker, None)
        if node is not None:
            await node.kill(worker, cause, incarnation)

    async def end_agents(self) -> list[BaseException]:
        """Ends the agents, which no actor starts again. Returns what went wrong."""
        found = await asyncio.gather(*(node.end_agent() for node in self), return_exceptions=True)
        return [error for error in found if error is not None]


async def each_of(nodes: Iterable[RemoteNode], call: Callable[[RemoteNode], Awaitable[object]]) -> None:
    """Calls nodes at once, and raises the first error after all have ended."""
    found = await asyncio.gather(*(call(node) for node in nodes), return_exceptions=True)
    for error in found:
        if isinstance(error, BaseException):
            raise error
