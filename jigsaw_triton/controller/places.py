"""The MIG instances under the workers: made for the first of their servers, with an MPS daemon where they share one."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.instances import Instances
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.paths import Paths
from jigsaw_triton.gpus.model import MigInstance
from jigsaw_triton.servers.mps import MpsDaemon, find_control

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Place:
    """An instance that is there.

    Attributes:
        uuid: Of it.
        workers: Names of those that run on it.
        daemon: Of MPS; None where there is none.
        watch: Waits for the daemon's unexpected end.
    """

    uuid: str
    workers: set[str] = field(default_factory=set)
    daemon: MpsDaemon | None = None
    watch: asyncio.Task[None] | None = None


class Places:
    """Makes instances, has workers share them, and destroys them with their last worker.

    Args:
        paths: Of the deployment.
        journal: Knows which daemons are ours.
        broken: Called with the names of the workers of an instance whose daemon has ended by itself.
    """

    def __init__(self, paths: Paths, journal: Journal, broken: Callable[[Collection[str]], None]) -> None:
        self._paths = paths
        self._journal = journal
        self._broken = broken
        self._instances: Instances | None = None
        self._daemons = False
        self._places: dict[str, _Place] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._of: dict[str, str] = {}

    def drive(self, instances: Instances, *, daemons: bool) -> None:
        """Says what makes the instances from now on.

        Args:
            instances: Makes them.
            daemons: Whether servers that share one have a daemon; there is none for emulated instances.
        """
        self._instances, self._daemons = instances, daemons

    async def take(self, worker: Worker) -> None:
        """Makes a worker's instance, or has it share the one that is there; a steps worker has none.

        Raises:
            MissingDependencyError: MPS is not there.
            ServerError: The daemon does not start.
            MigError: The instance cannot be made.
        """
        if worker.place is None:
            return
        name = names.worker(worker.place.gpu, worker.place.placement)
        async with self._lock(name):
            if name not in self._places:
                self._places[name] = await self._make(name, worker)
            self._places[name].workers.add(worker.name)
            self._of[worker.name] = name

    async def leave(self, worker: str) -> None:
        """Destroys a worker's instance where no other runs on it. May be repeated where it failed.

        Raises:
            MigError: It cannot be destroyed.
        """
        name = self._of.get(worker)
        if name is None:
            return
        async with self._lock(name):
            place = self._places[name]
            if place.workers == {worker}:
                await self._end(name, place)
                del self._places[name]
            # Only now, so that what could not be destroyed can be left again.
            place.workers.discard(worker)
            del self._of[worker]

    def uuid(self, worker: str) -> str:
        """UUID of the instance that a worker has taken; empty for one that has none."""
        return self._places[self._of[worker]].uuid if worker in self._of else ""

    async def daemon(self, worker: str) -> MpsDaemon | None:
        """The daemon under a worker, started again if it has ended or hangs; None where its servers need none."""
        name = self._of.get(worker)
        if name is None:
            return None
        async with self._lock(name):
            place = self._places[name]
            if place.daemon is not None and not await place.daemon.answers():
                # What still computes through one that hangs ends with it, as with one that died.
                await self._start(name, place)
            return place.daemon

    async def _make(self, name: str, worker: Worker) -> _Place:
        control = find_control() if self._daemons and worker.process else None
        place = _Place((await self._create(worker)).uuid)
        if control is None:
            return place
        place.daemon = MpsDaemon(control, place.uuid, self._paths.mps(name), self._paths.mps_logs(name))
        try:
            await self._start(name, place)
        except BaseException:
            await asyncio.shield(self._end(name, place))
            raise
        return place

    async def _create(self, worker: Worker) -> MigInstance:
        assert worker.place is not None
        gpu, placement = worker.place.gpu, worker.place.placement
        creation = asyncio.ensure_future(asyncio.to_thread(self._mig.create, gpu, placement))
        try:
            return await asyncio.shield(creation)
        except asyncio.CancelledError:
            # What is being made in its thread all the same is of no use to anybody.
            await asyncio.to_thread(self._mig.destroy, (await creation).uuid)
            raise

    async def _start(self, name: str, place: _Place) -> None:
        assert place.daemon is not None
        await place.daemon.stop()
        self._journal.keep_daemon(str(self._paths.mps(name)))
        await place.daemon.start()
        place.watch = asyncio.create_task(self._watch(name, place), name=f"watch MPS of {name}")

    async def _watch(self, name: str, place: _Place) -> None:
        assert place.daemon is not None
        await place.daemon.wait()
        log.warning("%s: the MPS daemon has ended; the servers on it are started again", name)
        # A process that is started now would compute without MPS, and those that are there wait for a server.
        self._broken(place.workers)

    async def _end(self, name: str, place: _Place) -> None:
        if place.daemon is not None:
            if place.watch is not None:
                place.watch.cancel()
            await place.daemon.stop()
            self._journal.forget_daemon(str(self._paths.mps(name)))
        await asyncio.to_thread(self._mig.destroy, place.uuid)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    @property
    def _mig(self) -> Instances:
        if self._instances is None:
            raise RuntimeError("`drive` comes first")
        return self._instances
