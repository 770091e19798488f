"""The fleet: the gateway of a deployment, and the nodes that its workers run on."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from jigsaw_triton.compiler.bundle import Worker, WorkerModel
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.immutable_settings import check_ground
from jigsaw_triton.controller.core.state import GATEWAY
from jigsaw_triton.controller.fleet.commands import Commands
from jigsaw_triton.controller.fleet.edge import NAME as EDGE
from jigsaw_triton.controller.fleet.edge import EdgeKeeper
from jigsaw_triton.controller.fleet.fencing import Fencing
from jigsaw_triton.controller.fleet.gateway import Gateway
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.fleet.node import Node, Process
from jigsaw_triton.controller.fleet.orphans import end_orphans, note_runtime
from jigsaw_triton.controller.fleet.remote_nodes import RemoteNodes
from jigsaw_triton.controller.fleet.remote_traces import RemoteTraces
from jigsaw_triton.controller.fleet.replication import Replication
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.controller.fleet.trace_export import TraceExport
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.model_files import ModelFiles
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.state_copy import copied
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.model import Cluster, DeviceUse, GpuId
from jigsaw_triton.servers.adopted import process_of
from jigsaw_triton.servers.image import Image, find_image
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.members import leaders, members, newest
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.gateway_side import NAME as SIDE

_GIVE_WAY_S = 10.0
"""Seconds for the orderly end of the gateway of a controller that was replaced."""


class Fleet:
    """Starts, changes and stops servers. A method that fails leaves nothing behind.

    The gateway and workers without a GPU run on the controller's own machine. So do all other workers, unless the
    engine is `agents`: each node of the cluster then has an agent, which starts those of its node.

    Args:
        paths: Paths of the deployment.
        installation: Tritonserver to run.
        journal: Journal that records our MIG instances.
        secret: Secret of the restricted protocols.
        notify: Callback for events that concern servers.
        survives: True if the servers outlive this process, so that the next controller can adopt them.

    Attributes:
        edge: Edge in front of the gateway.
        gateway: Gateway.
        nodes: The other machines.
        traces: Export of traces.
        files: Copies of the files of deployed models.
        replication: Standby of the gateway on one of them.
    """

    GATEWAY = GATEWAY

    def __init__(
        self,
        paths: Paths,
        installation: Installation,
        journal: Journal,
        secret: str,
        notify: Callable[[e.Event], None],
        *,
        survives: bool = False,
    ) -> None:
        self._paths = paths
        self._journal = journal
        self.files = ModelFiles(paths.contents)
        self._cluster: Cluster | None = None
        self._gateway_image: Image | None = None
        self._own = LocalNode(paths, installation, journal, secret, notify, survives=survives)
        self.nodes = RemoteNodes(paths, journal, notify, survives=survives)
        self.replication = Replication(self.nodes, notify, partial(copied, journal))
        self._fencing = Fencing(paths, journal, self.nodes, self.replication)
        self.edge = EdgeKeeper(paths, lambda kind, text: notify(e.Noticed(kind, text)), survives=survives)
        self.traces = TraceExport(paths, lambda text: notify(e.Noticed("otlp", text)))
        self._remote_traces = RemoteTraces(paths.run, self.nodes)
        self.gateway = Gateway(paths, self._own.servers, self.edge, lambda ports: self.commands.gateway(ports))

    @property
    def commands(self) -> Commands:
        """Command lines of the servers on this machine."""
        edge = self._cluster is not None and self._cluster.edge is not None
        return replace(self._own.commands, edge=edge, gateway_image=self._gateway_image)

    @property
    def backends(self) -> frozenset[str]:
        """Backends that all workers have."""
        own = self._own.commands.workers.backends
        return own & self.nodes.backends if self.nodes else own

    @property
    def driver(self) -> str:
        """Name of the MIG driver; empty before `serve_on`."""
        return self._cluster.driver if self._cluster is not None else ""

    def server(self, name: str) -> Server | None:
        """Returns a running server of this machine; None if there is none with this name."""
        return self._own.server(name)

    def process(self, name: str) -> Process | None:
        """Returns the process of a server on its node; None if it has none."""
        return self._own.process(name) or self.nodes.process(name)

    def pids(self) -> tuple[int, ...]:
        """Returns the process ids of the servers of this machine, each the leader of its process group."""
        servers = self._own.servers.by_name.values()
        return tuple(server.process.pid for server in servers if server.process.pid is not None)

    async def serve_on(self, cluster: Cluster) -> None:
        """Sets the cluster to serve on. GPUs of earlier clusters remain known, since workers may still run there.

        The first call also ends the orphans of an earlier controller of this deployment.

        Args:
            cluster: Cluster to serve on.

        Raises:
            StateError: The driver, the engine, an image or the presence of an edge differs from that of the running
                servers.
            InputError: The driver does not have these GPUs, or an image is missing.
            MigError: The driver does not answer.
        """
        if self._cluster is not None:
            check_ground(self._cluster, cluster)
        await self._own.serve_on(_own_part(cluster))
        await self.nodes.serve_on(cluster)
        await self._serve_gateway_on(cluster)

    async def _serve_gateway_on(self, cluster: Cluster) -> None:
        """Sets what the gateway and the edge need."""
        if self._cluster is None and cluster.gateway_image is not None:
            self._gateway_image = await asyncio.to_thread(find_image, cluster.gateway_image)
            note_runtime(self._journal, self._gateway_image.runtime, self._paths.run)
        self._cluster = cluster
        await self.edge.configure(cluster.edge, cluster.gateway)
        await self.traces.configure(cluster.otlp)
        await self._remote_traces.configure(wanted=cluster.otlp is not None and bool(self.nodes))
        health = self._own.servers.health
        health.gateway_memory_mib = cluster.gateway_memory_mib
        health.elsewhere = self.nodes.kill if self.nodes else None
        await self.replication.serve_on(cluster)
        if self.nodes:
            self._fencing.begin()

    async def adopt(self, cluster: Cluster, actual: Actual, graphs: Collection[str]) -> tuple[str, ...]:
        """Adopts the servers of an earlier controller of this deployment, and ends its other servers and instances.

        A server that lacks one of its models is killed, and models that it should not have are unloaded.

        Args:
            cluster: Cluster that they serve on.
            actual: Servers and models that are known to run.
            graphs: Names of the served graphs, whose fronts stay in any case.

        Returns:
            Names of the servers that have ended and must be restarted.

        Raises:
            JigsawError: The MIG driver or an image cannot be used.
        """
        existing = await asyncio.to_thread(members, self._paths.state)
        workers = actual.workers
        remote = {n: w for n, w in workers.items() if cluster.agents is not None and w.place is not None}
        own = {name: worker for name, worker in workers.items() if name not in remote}
        ended = set(await self._own.adopt(_own_part(cluster), own, (GATEWAY, EDGE, SIDE) if actual.gateway else ()))
        await self.nodes.adopt(cluster, remote)
        await self._serve_gateway_on(cluster)
        if actual.gateway:
            command = self.commands.gateway(cluster.gateway)
            process = await process_of(command, leaders(existing).get(GATEWAY))
            self._own.servers.adopt(GATEWAY, command, self._paths.gateway_repository, "", process)
            edge = newest(existing, EDGE)
            await self.edge.adopt(OsProcess.find(edge.pid, edge.started) if edge is not None else None)
            if process is None:
                ended.add(GATEWAY)
            else:
                wanted = {*actual.models, *actual.fronts}
                checking = self._own.reconcile(GATEWAY, wanted, keep=graphs, admit=self.edge.admit)
                self._own.servers.by_name[GATEWAY].reconciling = asyncio.create_task(checking)
        return tuple(sorted(ended))

    async def close(self) -> None:
        """Ends what calls other machines and exports traces, after the last server has been stopped."""
        await self._fencing.stop()
        await self.replication.stop()
        await self._remote_traces.stop()
        await self.nodes.stop()
        await self.traces.stop()

    async def give_way(self) -> None:
        """Ends the gateway and all other servers of this machine. Those of other machines have another controller now.

        Raises:
            JigsawError: A server does not end.
        """
        await self._fencing.stop()
        await self.replication.stop()
        await self._remote_traces.stop()
        with contextlib.suppress(JigsawError, TimeoutError):
            async with asyncio.timeout(_GIVE_WAY_S):
                await self.gateway.stop()
        await self.nodes.leave()
        await asyncio.to_thread(end_orphans, self._journal, self._paths)

    async def around_others(self, cluster: Cluster) -> Cluster:
        """Returns a known cluster in its current state, including the MIG instances of others on its GPUs."""
        if cluster.agents is not None:
            return await self.nodes.survey(cluster)
        return await self._own.survey(cluster)

    async def lost_gpus(self) -> frozenset[GpuId]:
        """Returns the known GPUs that are lost. Kills workers whose MIG instance no longer exists.

        Raises:
            MigError: The driver does not answer.
        """
        return await self._own.lost_gpus() | await self.nodes.lost_gpus()

    async def wait_changed(self, timeout_s: float) -> None:
        """Waits until another machine is lost, is back, or has other workers; until the timeout if none is."""
        await self.nodes.wait_changed(timeout_s)

    async def use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker, for the workers for which the driver reports it."""
        return {**await self._own.use(), **await self.nodes.use()}

    async def energy(self) -> Mapping[GpuId, float]:
        """Returns the energy of the GPUs in joules; see `MigDriver.energy`. Emulated GPUs have none."""
        if self.driver != "nvml":
            return {}
        return {**await self._own.energy(), **await self.nodes.energy()}

    async def bring_up(self, worker: Worker) -> None:
        """Creates the MIG instance if it does not exist, starts the server, and loads and verifies its models."""
        await self._node(worker.name, worker).bring_up(worker)

    async def restart(self, worker: Worker, delay_s: float) -> None:
        """Restarts a dead worker on the same MIG instance with the same models."""
        await self._node(worker.name, worker).restart(worker, delay_s)

    async def retire(self, worker: str) -> None:
        """Stops a worker and destroys its MIG instance unless others share it. Batches in flight are lost."""
        await self._node(worker).retire(worker)

    async def load(self, worker: str, models: Sequence[WorkerModel]) -> None:
        """Loads and verifies more models on a worker."""
        await self._node(worker).load(worker, models)

    async def unload(self, worker: str, models: Iterable[str]) -> None:
        """Unloads models of a worker, waits until they are gone, and removes their folders."""
        await self._node(worker).unload(worker, models)

    def _node(self, name: str, worker: Worker | None = None) -> Node:
        """Returns the node of a worker: this machine, unless an agent has it or is to have it."""
        return self.nodes.of(name, worker) or self._own


def _own_part(cluster: Cluster) -> Cluster:
    """Returns what the controller's own machine serves on: all GPUs, or none if agents have them."""
    if cluster.agents is not None:
        return replace(cluster, gpus=(), driver="emulated", image=None)
    return cluster
