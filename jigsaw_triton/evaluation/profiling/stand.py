"""A worker to measure on: a tritonserver on a MIG instance, as a deployment has them, with one model at a time."""

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import Worker, WorkerModel
from jigsaw_triton.controller.fleet import Fleet
from jigsaw_triton.controller.fleet import Server as RunningServer
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.lock import locked
from jigsaw_triton.controller.paths import Paths, deployment_paths
from jigsaw_triton.errors import PlacementError, ServerError
from jigsaw_triton.evaluation.profiling.memory import held_mib
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Cluster, Gpu, Placement
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.runtime.wire import Connection
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.logfile import tail
from jigsaw_triton.servers.process import group_members

TIMEOUT_S = 60.0
"""For one batch."""

_LOG_LINES = 12
_LASTING = "profile"
"""Folder in that of deployments."""


class Stand:
    """A slice of one GPU at a time, with a tritonserver on it.

    Args:
        fleet: That knows the GPU; of this stand alone.
        gpu: Where.
    """

    def __init__(self, fleet: Fleet, gpu: Gpu) -> None:
        self._fleet = fleet
        self._gpu = gpu
        self._worker: Worker | None = None
        self._idle_mib = 0.0

    @property
    def backends(self) -> frozenset[str]:
        """Of the tritonserver."""
        return self._fleet.commands.workers.backends

    @property
    def gpu(self) -> Gpu:
        """Whose slices are measured."""
        return self._gpu

    async def cut(self, kind: str) -> None:
        """Makes the slice one of this kind; the server on it is a new one unless it is that already."""
        if self._worker is not None and self._worker.placement.slice == kind:
            return
        await self.clear()
        profile = self._gpu.board.profiles[kind]
        placement = self._place(kind)
        worker = Worker(
            name=names.worker(self._gpu.id, placement),
            gpu=self._gpu.id,
            board=self._gpu.board.name,
            placement=placement,
            memory_mib=profile.memory_mib,
            models=(),
        )
        await self._fleet.bring_up(worker)
        self._worker = worker

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
        """Takes the server and the slice away."""
        if self._worker is not None:
            await self._fleet.retire(self._worker.name)
            self._worker = None

    @asynccontextmanager
    async def loaded(self, model: WorkerModel) -> AsyncIterator[None]:
        """Has the server serve a model meanwhile.

        Raises:
            ServerError: The model does not load, or what was done with it failed; with what the server logged.
        """
        assert self._worker is not None
        self._idle_mib = await self._held_mib()
        log = self._server().process.log
        begun = log.stat().st_size
        try:
            await self._fleet.load(self._worker.name, [model])
            yield
            await self._fleet.unload(self._worker.name, [model.name])
        except ServerError as error:
            # The log is gone when the user reads this.
            lines = [f"\n  {line}" for line in tail(log, _LOG_LINES, since=begun)]
            story = f"; the server's log meanwhile:{''.join(lines)}" if lines else ""
            where = f"{model.graph}.{model.task}.{model.variant}"
            raise ServerError(error.message + story, where=where) from error

    async def model_mib(self) -> float:
        """Memory that the model has brought since before it was loaded: to the slice, or to the server's processes."""
        return max(0.0, await self._held_mib() - self._idle_mib)

    async def infer(self, model: str, inputs: Arrays) -> dict[str, Array]:
        """Has a loaded model answer one request."""
        return await self._server().client.infer(model, inputs, timeout_s=TIMEOUT_S)

    async def statistics(self, model: str) -> dict[str, Any]:
        """What Triton counted of a loaded model."""
        (statistics,) = await self._server().client.statistics(model)
        return statistics

    def connect(self) -> Connection:
        """A connection of the kind that dispatchers have."""
        return Connection(f"unix:{self._server().process.command.address}", TIMEOUT_S)

    def _server(self) -> RunningServer:
        server = self._fleet.server(self._worker.name) if self._worker is not None else None
        if server is None:
            raise ServerError("there is no server to measure on")
        return server

    async def _held_mib(self) -> float:
        """Of the slice where it is a GPU's and its driver tells; of the server's processes elsewhere."""
        assert self._worker is not None
        if self._gpu.board.arch != "cpu" and (use := (await self._fleet.use()).get(self._worker.name)):
            return use.memory_mib
        pid = self._server().process.pid
        return held_mib(group_members(pid)) if pid is not None else 0.0


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
        made = Stand(fleet, next(found for found in around.gpus if found.id == gpu.id))
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
