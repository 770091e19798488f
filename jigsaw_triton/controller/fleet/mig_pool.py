"""MIG instances in use: created for their first worker, shared through MPS, and destroyed with their last worker."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.fleet.instances import Instances
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.model import MigInstance
from jigsaw_triton.servers.members import marks
from jigsaw_triton.servers.mps import MpsDaemon, find_control

log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 4
"""Number of threads for calls of the driver. It carries out one at a time, or hangs: those that wait for it must not
take the threads of other calls."""


@dataclass(slots=True)
class _PooledInstance:
    """An instance that exists.

    Attributes:
        uuid: UUID of the instance.
        workers: Names of the workers that run on it.
        daemon: MPS daemon of the instance; None if it has none.
        watch: Task that waits for the daemon to end unexpectedly.
    """

    uuid: str
    workers: set[str] = field(default_factory=set)
    daemon: MpsDaemon | None = None
    watch: asyncio.Task[None] | None = None


def daemon_name(place: str) -> str:
    """Returns the name of an instance's MPS daemon among the servers of the deployment.

    Args:
        place: Name of the instance's place.
    """
    return f"{place}.mps"


class MigPool:
    """Creates MIG instances, lets workers share them, and destroys each with its last worker.

    Args:
        paths: Paths of the deployment.
        journal: Journal that records the MIG instances of the deployment.
        broken: Callback for a daemon that has ended by itself, with the names of the workers on its instance.
        survives: True if the MPS daemons go on when this process ends.
    """

    def __init__(
        self, paths: Paths, journal: Journal, broken: Callable[[Collection[str]], None], *, survives: bool = False
    ) -> None:
        self._paths = paths
        self._journal = journal
        self._broken = broken
        self._survives = survives
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="driver")
        self._instances: Instances | None = None
        self._daemons = False
        self._pool: dict[str, _PooledInstance] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._of: dict[str, str] = {}

    def drive(self, instances: Instances, *, daemons: bool) -> None:
        """Sets the source of instances.

        Args:
            instances: Source of instances from now on.
            daemons: True if workers that share an instance get an MPS daemon. Emulated instances have none.
        """
        self._instances, self._daemons = instances, daemons

    async def take(self, worker: Worker) -> None:
        """Gives a worker its instance, and creates the instance if the worker is the first there.

        A steps worker needs no instance and has none.

        Raises:
            MissingDependencyError: MPS is not installed.
            ServerError: The MPS daemon does not start.
            MigError: The driver cannot create the instance.
        """
        if worker.place is None:
            return
        name = names.worker(worker.place.gpu, worker.place.placement)
        async with self._lock(name):
            if name not in self._pool:
                self._pool[name] = await self._make(name, worker)
            self._pool[name].workers.add(worker.name)
            self._of[worker.name] = name

    def adopt(self, worker: Worker) -> None:
        """Gives a worker the instance that an earlier controller of this deployment gave it, if that still exists."""
        if worker.place is None:
            return
        name = names.worker(worker.place.gpu, worker.place.placement)
        if name not in self._pool:
            place = (worker.place.gpu, worker.place.placement)
            found = [i.uuid for i in self._journal.instances() if (i.gpu, i.placement) == place]
            if not found:
                return
            self._pool[name] = pooled = _PooledInstance(found[0])
            if self._daemons and worker.process:
                pooled.daemon = self._daemon(name, pooled, find_control())
                pooled.daemon.find()
                pooled.watch = asyncio.create_task(self._watch(name, pooled), name=f"watch MPS of {name}")
        self._pool[name].workers.add(worker.name)
        self._of[worker.name] = name

    async def leave(self, worker: str) -> None:
        """Takes a worker off its instance, and destroys the instance if no other worker runs there.

        The call may be repeated after a failure.

        Raises:
            MigError: The driver cannot destroy the instance.
        """
        name = self._of.get(worker)
        if name is None:
            return
        async with self._lock(name):
            # Another call may have taken the worker off its instance while this one waited for the lock.
            if worker not in self._of:
                return
            pooled = self._pool[name]
            if pooled.workers == {worker}:
                await self._end(name, pooled)
                del self._pool[name]
            # The worker is forgotten last, so that a failed destruction can be repeated.
            pooled.workers.discard(worker)
            del self._of[worker]

    async def forget(self, worker: str, uuid: str) -> None:
        """Forgets the instance of a worker, which no longer exists. The next `take` of a worker there creates another.

        Args:
            worker: Name of the worker.
            uuid: UUID of the instance. Nothing happens if the worker has another one by now.

        Raises:
            MigError: The driver does not answer.
        """
        name = self._of.get(worker)
        if name is None:
            return
        async with self._lock(name):
            if self.uuid(worker) != uuid:
                return
            pooled = self._pool.pop(name)
            for other in pooled.workers:
                del self._of[other]
            await self._end(name, pooled)

    def uuid(self, worker: str) -> str:
        """Returns the UUID of a worker's instance; empty if it has none."""
        return self._pool[self._of[worker]].uuid if worker in self._of else ""

    def daemon_env(self, worker: str) -> Mapping[str, str]:
        """Returns the variables of clients of the MPS daemon of a worker's instance; none if it has no daemon."""
        name = self._of.get(worker)
        daemon = self._pool[name].daemon if name is not None else None
        return daemon.env if daemon is not None else {}

    async def daemon(self, worker: str) -> MpsDaemon | None:
        """Returns the MPS daemon of a worker's instance, restarted if it has ended or hangs; None if it has none."""
        name = self._of.get(worker)
        if name is None:
            return None
        async with self._lock(name):
            if worker not in self._of:
                return None
            pooled = self._pool[name]
            if pooled.daemon is not None and not await pooled.daemon.answers():
                # Kernels that still run through a hanging daemon end with it, as they do with a dead one.
                await self._start(name, pooled)
            return pooled.daemon

    async def _make(self, name: str, worker: Worker) -> _PooledInstance:
        control = find_control() if self._daemons and worker.process else None
        pooled = _PooledInstance((await self._create(worker)).uuid)
        if control is None:
            return pooled
        pooled.daemon = self._daemon(name, pooled, control)
        try:
            await self._start(name, pooled)
        except BaseException:
            await asyncio.shield(self._end(name, pooled))
            raise
        return pooled

    def _daemon(self, name: str, pooled: _PooledInstance, control: Path) -> MpsDaemon:
        pipes, logs = self._paths.mps(name), self._paths.mps_logs(name)
        env = marks(self._paths.state, daemon_name(name))
        return MpsDaemon(control, pooled.uuid, pipes, logs, marks=env, survives=self._survives)

    async def _create(self, worker: Worker) -> MigInstance:
        assert worker.place is not None
        gpu, placement = worker.place.gpu, worker.place.placement
        creation = asyncio.ensure_future(self._call(self._mig.create, gpu, placement))
        try:
            return await asyncio.shield(creation)
        except asyncio.CancelledError:
            # The thread creates the instance despite the cancellation, but no worker will use it.
            await self._call(self._mig.destroy, (await creation).uuid)
            raise

    async def _start(self, name: str, pooled: _PooledInstance) -> None:
        assert pooled.daemon is not None
        await pooled.daemon.stop()
        await pooled.daemon.start()
        pooled.watch = asyncio.create_task(self._watch(name, pooled), name=f"watch MPS of {name}")

    async def _watch(self, name: str, pooled: _PooledInstance) -> None:
        assert pooled.daemon is not None
        await pooled.daemon.wait()
        log.warning("%s: the MPS daemon has ended; restarting it and the servers on its instance", name)
        # A process that starts now would compute without MPS, and running processes wait for an MPS server.
        self._broken(pooled.workers)

    async def _end(self, name: str, pooled: _PooledInstance) -> None:
        if pooled.daemon is not None:
            if pooled.watch is not None:
                pooled.watch.cancel()
            await pooled.daemon.stop()
        await self._call(self._mig.destroy, pooled.uuid)

    async def _call(self, call: Callable[..., T], *arguments: object) -> T:
        """Calls the driver in one of its threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    @property
    def _mig(self) -> Instances:
        if self._instances is None:
            raise RuntimeError("call `drive` first")
        return self._instances
