"""Workers to measure on: tritonservers on a MIG instance, as a deployment has them, with one model at a time."""

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import Place, Worker, WorkerModel
from jigsaw_triton.controller.fleet import Fleet
from jigsaw_triton.controller.fleet import Server as RunningServer
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.lock import locked
from jigsaw_triton.controller.paths import Paths, deployment_paths
from jigsaw_triton.errors import PlacementError, ServerError
from jigsaw_triton.evaluation.profiling.connection import Connection
from jigsaw_triton.evaluation.profiling.memory import held_mib
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Cluster, Gpu, Placement
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.logfile import tail
from jigsaw_triton.servers.process import group_members

TIMEOUT_S = 60.0
"""For one batch."""

_LOG_LINES = 12
_LASTING = "profile"
"""Folder in that of deployments."""


class Stand:
    """A slice of one GPU at a time, with a tritonserver on it, or several under MPS.

    Args:
        fleet: That knows the GPU; of this stand alone.
        gpu: Where.
        mps: Whether the instances of a model are servers of their own.
    """

    def __init__(self, fleet: Fleet, gpu: Gpu, *, mps: bool = False) -> None:
        self._fleet = fleet
        self._gpu = gpu
        self.mps = mps
        self._workers: list[Worker] = []
        self._kind = ""
        self._idle_mib = 0.0

    @property
    def backends(self) -> frozenset[str]:
        """Of the tritonserver."""
        return self._fleet.commands.workers.backends

    @property
    def gpu(self) -> Gpu:
        """Whose slices are measured."""
        return self._gpu

    async def cut(self, kind: str, instances: int) -> None:
        """Makes the slice one of this kind, with servers for so many instances of a model.

        The servers on it are new ones unless it is that already.
        """
        processes = instances if self.mps else 1
        if len(self._workers) == processes and self._kind == kind:
            return
        await self.clear()
        placement = self._place(kind)
        memory_mib = self._gpu.board.profiles[kind].memory_mib
        for process in range(1, processes + 1) if self.mps else (0,):
            worker = Worker(
                name=names.worker(self._gpu.id, placement, process),
                models=(),
                place=Place(self._gpu.id, self._gpu.board.name, placement),
                memory_mib=None if memory_mib is None else memory_mib // processes,
                process=process,
            )
            await self._fleet.bring_up(worker)
            self._workers.append(worker)
        self._kind = kind

    def _place(self, kind: str) -> Placement:
        """Somewhere beside what others have on the GPU.

        Raises:
            PlacementError: There is no room.
        """
        board, others = self._gpu.board, self._gpu.foreign
        places = [Placement(start, kind) for start in board.profiles[kind].starts]
        free = [place for place in places if fits(board, [*others, place]) is None]
        if not free:
            there = ", ".join(map(str, others))
            raise PlacementError(
                f"there is no room for a {kind} to measure on beside others' {there}",
                where=str(self._gpu.id),
                hint="have them end theirs, or leave the slice out with --slices",
            )
        return free[0]

    async def clear(self) -> None:
        """Takes the servers and the slice away."""
        while self._workers:
            await self._fleet.retire(self._workers[-1].name)
            self._workers.pop()

    @asynccontextmanager
    async def loaded(self, model: WorkerModel) -> AsyncIterator[None]:
        """Has the servers serve a model meanwhile.

        Raises:
            ServerError: The model does not load, or what was done with it failed; with what the servers logged.
        """
        self._idle_mib = await self._held_mib()
        logs = {server.process.log: server.process.log.stat().st_size for server in self._servers()}
        try:
            for worker in self._workers:
                await self._fleet.load(worker.name, [model])
            yield
            for worker in self._workers:
                await self._fleet.unload(worker.name, [model.name])
        except ServerError as error:
            # The logs are gone when the user reads this.
            lines = [f"\n  {line}" for log, begun in logs.items() for line in tail(log, _LOG_LINES, since=begun)]
            story = f"; the server's log meanwhile:{''.join(lines)}" if lines else ""
            where = f"{model.graph}.{model.task}.{model.variant}"
            raise ServerError(error.message + story, where=where) from error

    async def model_mib(self) -> float:
        """Memory that the model has brought since before it was loaded: to the slice, or to the servers' processes."""
        return max(0.0, await self._held_mib() - self._idle_mib)

    async def infer(self, model: str, inputs: Arrays) -> dict[str, Array]:
        """Has a loaded model answer one request."""
        return await self._servers()[0].client.infer(model, inputs, timeout_s=TIMEOUT_S)

    async def statistics(self, model: str) -> list[dict[str, Any]]:
        """What Triton counted of a loaded model, a server each."""
        return [counted for server in self._servers() for counted in await server.client.statistics(model)]

    def connect(self, lane: int) -> Connection:
        """A connection of the kind that the gateway has; lanes take the servers in turn."""
        servers = self._servers()
        return Connection(f"unix:{servers[lane % len(servers)].process.command.address}", TIMEOUT_S)

    def _servers(self) -> list[RunningServer]:
        found = [server for worker in self._workers if (server := self._fleet.server(worker.name)) is not None]
        if not found:
            raise ServerError("there is no server to measure on")
        return found

    async def _held_mib(self) -> float:
        """Of the slice where it is a GPU's and its driver tells; of the servers' processes elsewhere."""
        if self._gpu.board.arch != "cpu" and (use := (await self._fleet.use()).get(self._workers[0].name)):
            return use.memory_mib
        pids = [server.process.pid for server in self._servers()]
        return sum(held_mib(group_members(pid)) for pid in pids if pid is not None)


@asynccontextmanager
async def stand(installation: Installation, cluster: Cluster, gpu: Gpu) -> AsyncIterator[Stand]:
    """A stand for as long as it is needed; nothing of it is left.

    Args:
        installation: The tritonserver to run.
        cluster: That has the GPU.
        gpu: To measure on.
    """
    with _folders(cluster) as paths, closing(Journal(paths.journal)) as journal:
        fleet = Fleet(paths, installation, journal, secrets.token_urlsafe(24), lambda _name, _status: None)
        await fleet.serve_on(cluster)
        around = await fleet.around_others(cluster)
        found = next(found for found in around.gpus if found.id == gpu.id)
        made = Stand(fleet, found, mps=cluster.processes == "mps")
        try:
            yield made
        finally:
            await made.clear()


@contextmanager
def _folders(cluster: Cluster) -> Iterator[Paths]:
    """Folders that go with the stand; on real GPUs the journal stays, so that the next finds what a killed one left."""
    lasts = cluster.driver == "nvml"
    state = deployment_paths(None).state / _LASTING if lasts else Path(tempfile.mkdtemp(prefix="jigsaw-profile-"))
    paths = deployment_paths(state)
    try:
        paths.create()
        with locked(paths.lock):
            yield paths
    finally:
        shutil.rmtree(paths.run, ignore_errors=True)
        if not lasts:
            shutil.rmtree(state, ignore_errors=True)
