"""Workers for profiling: tritonservers on a MIG instance, as in a deployment, that serve one model at a time."""

import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import Place, Worker, WorkerModel
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.fleet.server import Server as RunningServer
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import is_locked, locked
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.errors import JigsawError, PlacementError, ServerError
from jigsaw_triton.evaluation.profiling.connection import Connection
from jigsaw_triton.evaluation.profiling.memory import held_mib
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Cluster, Gpu, Placement
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.logfile import excerpt, log_size
from jigsaw_triton.servers.members import end_members
from jigsaw_triton.servers.os_process import processor_s
from jigsaw_triton.servers.process import group_members

TIMEOUT_S = 60.0
"""Seconds to wait for one batch."""

MemoryMethod = Literal["nvml", "pss"]
"""Method by which memory is measured: that of the slice, by the GPU's driver, or the proportional set size (PSS) of the
processes, which divides shared pages among their users."""

_LOG_FOLLOWS = "; the server's log:"
_PREFIX = "jigsaw-profile-"
_STARTED_S = 60.0
"""Seconds after which a run has locked its folder."""

_PERSISTENT_FOLDER = "profile"
"""Name of the persistent state folder, within the folder of deployments."""


class ProfilingWorkers:
    """The workers of one slice of a GPU: one tritonserver, or several under MPS.

    Args:
        node: Node that serves on the GPU and is used for nothing else.
        gpu: GPU that holds the slice.
        mps: True if each instance of a model is a server of its own.
        taken: Placements that are in use on the GPU, which all workers on it share.

    Attributes:
        memory: Method by which the last memory was measured.
    """

    def __init__(
        self, node: LocalNode, gpu: Gpu, *, mps: bool = False, taken: dict["ProfilingWorkers", Placement] | None = None
    ) -> None:
        self._node = node
        self._gpu = gpu
        self._taken = {} if taken is None else taken
        self.mps = mps
        self._workers: list[Worker] = []
        self._kind = ""
        self._idle_mib = 0.0
        self.memory: MemoryMethod = "pss"

    @property
    def backends(self) -> frozenset[str]:
        """Backends of the tritonserver."""
        return self._node.commands.workers.backends

    @property
    def gpu(self) -> Gpu:
        """GPU that holds the slice."""
        return self._gpu

    async def start(self, kind: str, instances: int) -> None:
        """Creates a slice of this kind and starts the workers for a model with this many instances.

        Workers and slice are kept if they already are as needed, and are replaced otherwise.
        """
        processes = instances if self.mps else 1
        if len(self._workers) == processes and self._kind == kind:
            return
        await self.stop()
        placement = self._taken[self] = self._place(kind)
        memory_mib = self._gpu.board.profiles[kind].memory_mib
        for process in range(1, processes + 1) if self.mps else (0,):
            worker = Worker(
                name=names.worker(self._gpu.id, placement, process),
                models=(),
                place=Place(self._gpu.id, self._gpu.board.name, placement),
                memory_mib=None if memory_mib is None else memory_mib // processes,
                process=process,
            )
            await self._node.bring_up(worker)
            self._workers.append(worker)
        self._kind = kind

    def _place(self, kind: str) -> Placement:
        """Returns a free placement for a slice, beside the instances of others.

        Raises:
            PlacementError: There is no room.
        """
        free = self._free(kind)
        if not free:
            others = ", ".join(map(str, (*self._gpu.foreign, *self._taken.values())))
            raise PlacementError(
                f"there is no room for a {kind} slice beside {others}",
                where=str(self._gpu.id),
                hint="destroy the instances of others, or leave the slice out with --slices",
            )
        return free[0]

    def has_room(self, kind: str) -> bool:
        """Returns True if the GPU has room for one more slice of this kind."""
        return bool(self._free(kind))

    def _free(self, kind: str) -> list[Placement]:
        board = self._gpu.board
        placements = [Placement(start, kind) for start in board.profiles[kind].starts]
        others = (*self._gpu.foreign, *self._taken.values())
        return [placement for placement in placements if fits(board, [*others, placement]) is None]

    async def stop(self) -> None:
        """Stops the workers and destroys the slice."""
        while self._workers:
            await self._node.retire(self._workers[-1].name)
            self._workers.pop()
        self._taken.pop(self, None)

    def neighbour(self) -> "ProfilingWorkers":
        """Returns workers for another slice of the same GPU. They must be stopped before the context of these ends."""
        return ProfilingWorkers(self._node, self._gpu, mps=self.mps, taken=self._taken)

    @asynccontextmanager
    async def loaded(self, model: WorkerModel) -> AsyncIterator[None]:
        """Serves a model on all workers within the context.

        Raises:
            ServerError: The model does not load, or a call to it failed. The message contains the workers' logs.
        """
        self._idle_mib = await self._held_mib()
        logs = {server.process.log: log_size(server.process.log) for server in self._servers()}
        try:
            for worker in self._workers:
                await self._node.load(worker.name, [model])
            yield
            for worker in self._workers:
                await self._node.unload(worker.name, [model.name])
        except ServerError as error:
            # The log files are deleted before the user reads the message.
            lines = "".join(excerpt(log, since=begun) for log, begun in logs.items())
            message = f"{error.message}{_LOG_FOLLOWS}{lines}" if lines else error.message
            raise ServerError(message, where=f"{model.graph}.{model.task}.{model.variant}") from error

    async def model_mib(self) -> float:
        """Returns the memory used by the model: the growth of the slice's or the processes' memory since its load."""
        return max(0.0, await self._held_mib() - self._idle_mib)

    @property
    def shares_processors(self) -> bool:
        """True if the slice shares the processors of the machine with other slices."""
        return self._gpu.board.arch == "cpu"

    def processor_s(self) -> float:
        """Returns the processor time that the processes of the servers have used so far, in seconds."""
        return processor_s(pid for group in self._groups() for pid in group_members(group))

    async def infer(self, model: str, inputs: Arrays) -> dict[str, Array]:
        """Sends one request to a loaded model and returns its outputs."""
        return await self._servers()[0].client.infer(model, inputs, timeout_s=TIMEOUT_S)

    async def statistics(self, model: str) -> list[dict[str, Any]]:
        """Returns Triton's statistics of a loaded model, one entry per server."""
        return [entry for server in self._servers() for entry in await server.client.statistics(model)]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of the servers."""
        return tuple(f"unix:{server.process.command.address}" for server in self._servers())

    def connect(self, lane: int) -> Connection:
        """Opens a connection as the gateway would, for which lanes use the servers in turn."""
        return Connection(self.addresses[lane % len(self.addresses)], TIMEOUT_S)

    def _servers(self) -> list[RunningServer]:
        found = [server for worker in self._workers if (server := self._node.server(worker.name)) is not None]
        if not found:
            raise ServerError("no worker is running")
        return found

    async def _held_mib(self) -> float:
        """Returns the memory used on a GPU's slice if the driver reports it, else the memory of the processes."""
        if not self.shares_processors and (use := (await self._node.use()).get(self._workers[0].name)):
            self.memory = "nvml"
            return use.memory_mib
        self.memory = "pss"
        return sum(held_mib(group_members(group)) for group in self._groups())

    def _groups(self) -> list[int]:
        """Returns the process groups of the servers."""
        return [server.process.pid for server in self._servers() if server.process.pid is not None]


def without_log(error: JigsawError) -> tuple[str, str]:
    """Returns the reason of an error from `ProfilingWorkers.loaded` in one line, and the log; empty if it has none."""
    reason, _, log = error.message.partition("\n")
    return reason.removesuffix(_LOG_FOLLOWS), log


@asynccontextmanager
async def profiling_workers(installation: Installation, cluster: Cluster, gpu: Gpu) -> AsyncIterator[ProfilingWorkers]:
    """Provides workers for profiling, which are stopped and removed at the end of the context.

    Args:
        installation: Installed tritonserver to run.
        cluster: Cluster with the GPU.
        gpu: GPU to measure on.
    """
    with _folders(cluster) as paths, closing(Journal(paths.journal)) as journal:
        node = LocalNode(paths, installation, journal, secrets.token_urlsafe(24), lambda _: None)
        await node.serve_on(cluster)
        around = await node.survey(cluster)
        found = next(found for found in around.gpus if found.id == gpu.id)
        workers = ProfilingWorkers(node, found, mps=cluster.processes == "mps")
        try:
            yield workers
        finally:
            await workers.stop()


@contextmanager
def _folders(cluster: Cluster) -> Iterator[Paths]:
    """Provides the folders of a profiling run.

    On real GPUs the journal is kept, so that the next run can destroy the MIG instances that a killed run left behind.
    """
    persistent = cluster.driver == "nvml"
    if persistent:
        state = deployment_paths(None).state / _PERSISTENT_FOLDER
    else:
        _clean_up()
        state = Path(tempfile.mkdtemp(prefix=_PREFIX))
    paths = deployment_paths(state)
    try:
        paths.create()
        with locked(paths.lock):
            yield paths
    finally:
        shutil.rmtree(paths.run, ignore_errors=True)
        if not persistent:
            shutil.rmtree(state, ignore_errors=True)


def _clean_up() -> None:
    """Ends the servers of runs of this user that were killed, and removes their temporary folders."""
    for state in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, ServerError):
            status = state.lstat()
            old = status.st_mtime < time.time() - _STARTED_S
            paths = deployment_paths(state)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and old and not is_locked(paths.lock):
                end_members(paths.state)
                shutil.rmtree(paths.run, ignore_errors=True)
                shutil.rmtree(state, ignore_errors=True)
