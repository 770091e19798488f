"""The interface of a node: what a controller asks of a machine with GPUs, whether it is its own or another one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jigsaw_triton.compiler.bundle import Worker, WorkerModel
from jigsaw_triton.gpus.model import Cluster, DeviceUse, GpuId


@dataclass(frozen=True, slots=True)
class Process:
    """The process of a worker on its node.

    Attributes:
        pid: Id of the process there.
        uuid: UUID of its MIG instance; empty if it has none.
    """

    pid: int
    uuid: str


class Node(Protocol):
    """Starts, changes and stops the workers of one machine. A method that fails leaves nothing behind."""

    async def serve_on(self, cluster: Cluster) -> None:
        """Sets the GPUs to serve on. Those of earlier calls remain known, since workers may still run there.

        Args:
            cluster: Cluster with the GPUs of this node only.

        Raises:
            JigsawError: The node cannot serve on them.
        """
        ...

    async def adopt(
        self, cluster: Cluster, workers: Mapping[str, Worker], others: Collection[str] = ()
    ) -> frozenset[str]:
        """Goes on with the workers that an earlier controller started, and ends all others.

        Args:
            cluster: Cluster with the GPUs of this node only.
            workers: Workers that are known to run here.
            others: Names of servers that somebody else adopts.

        Returns:
            Names of the workers that have ended and must be restarted.
        """
        ...

    async def survey(self, cluster: Cluster) -> Cluster:
        """Returns the node's GPUs in their current state, with the MIG instances of others on them.

        GPUs that are lost are left out.

        Args:
            cluster: Cluster with the GPUs of this node only.
        """
        ...

    async def lost_gpus(self) -> frozenset[GpuId]:
        """Returns the known GPUs that are lost: all of them if the node does not answer."""
        ...

    async def use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker, for the workers for which the driver reports it."""
        ...

    def process(self, name: str) -> Process | None:
        """Returns the process of a worker; None if it has none."""
        ...

    async def bring_up(self, worker: Worker) -> None:
        """Creates the MIG instance if it does not exist, starts the server, and loads and verifies its models."""
        ...

    async def restart(self, worker: Worker, delay_s: float) -> None:
        """Restarts a dead worker on the same MIG instance with the same models."""
        ...

    async def retire(self, worker: str) -> None:
        """Stops a worker and destroys its MIG instance unless others share it. Batches in flight are lost."""
        ...

    async def load(self, worker: str, models: Sequence[WorkerModel]) -> None:
        """Loads and verifies more models on a worker."""
        ...

    async def unload(self, worker: str, models: Iterable[str]) -> None:
        """Unloads models of a worker, waits until they are gone, and removes their folders."""
        ...

    async def kill(self, worker: str, cause: str) -> None:
        """Kills a worker, which is then restarted like any that dies.

        Args:
            worker: Name of the worker.
            cause: Reason, as the end of a sentence that begins with `killed, because`.
        """
        ...
