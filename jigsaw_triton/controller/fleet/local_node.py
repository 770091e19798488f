"""The node of a process: starts, adopts, changes and stops tritonservers on the MIG instances of this machine."""

import asyncio
import itertools
import logging
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from jigsaw_triton.compiler.bundle import Worker, WorkerModel
from jigsaw_triton.compiler.names import worker as worker_name
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.fleet.commands import Commands
from jigsaw_triton.controller.fleet.devices import Devices
from jigsaw_triton.controller.fleet.instances import Instances
from jigsaw_triton.controller.fleet.mig_pool import MigPool, daemon_name
from jigsaw_triton.controller.fleet.node import Process
from jigsaw_triton.controller.fleet.orphans import DRIVER_FACT, NOTHING, Kept, end_orphans, note_runtime
from jigsaw_triton.controller.fleet.ownership import foreign_instances
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.controller.fleet.servers import Servers
from jigsaw_triton.controller.persistence.call_record import CallRecord
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError, ServerError
from jigsaw_triton.gpus.driver import MigDriver, open_driver
from jigsaw_triton.gpus.foreign import with_foreign
from jigsaw_triton.gpus.model import Cluster, DeviceUse, GpuId
from jigsaw_triton.servers.adopted import process_of
from jigsaw_triton.servers.image import find_image
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.members import leaders, members
from jigsaw_triton.servers.mps import MpsDaemon, why_without
from jigsaw_triton.servers.process import group_members

log = logging.getLogger(__name__)

RELOAD_S = 30.0
"""Seconds after the first death of a worker that loads its models within which it loads them again. That is enough for
a shortage of memory to pass, and short enough for a model that always kills its server."""

RECONCILE_S = 10.0
"""Seconds between tries to reconcile the models of an adopted server."""

_LOADING_POLL_S = 0.5
"""Seconds between two looks at an adopted server that still loads its models."""


class LocalNode:
    """Starts, changes and stops the workers of this machine. A method that fails leaves nothing behind.

    A controller has one for its own machine, and each agent has one for its node.

    Args:
        paths: Paths of the deployment on this machine.
        installation: Tritonserver to run.
        journal: Journal that records our MIG instances.
        secret: Secret of the restricted protocols.
        notify: Callback for events that concern workers.
        survives: True if the workers outlive this process, so that the next one can adopt them.
        others: Names of servers of this machine that somebody else keeps.

    Attributes:
        servers: The running workers. A controller's own node has the gateway among them.
    """

    def __init__(
        self,
        paths: Paths,
        installation: Installation,
        journal: Journal,
        secret: str,
        notify: Callable[[e.Event], None],
        *,
        survives: bool = False,
        others: frozenset[str] = frozenset(),
    ) -> None:
        self._paths = paths
        self._notify = notify
        self._others = others
        self._commands = Commands(paths, installation, secret)
        self._cluster: Cluster | None = None
        self._driver: MigDriver | None = None
        self._journal = journal
        self._pool = MigPool(paths, journal, self._end_without_mps, survives=survives)
        self.servers = Servers(paths, journal.check_epoch, notify, survives=survives)
        self._devices = Devices(self.servers.by_name, self._pool)

    @property
    def commands(self) -> Commands:
        """Command lines of the workers."""
        return self._commands

    @property
    def cluster(self) -> Cluster | None:
        """Cluster that the node serves on, with the GPUs of earlier ones; None before `serve_on`."""
        return self._cluster

    def server(self, name: str) -> Server | None:
        """Returns a running server; None if there is none with this name."""
        return self.servers.by_name.get(name)

    def process(self, name: str) -> Process | None:
        """Returns the process of a worker; None if it has none."""
        server = self.servers.by_name.get(name)
        if server is None or server.process.pid is None:
            return None
        return Process(server.process.pid, server.uuid)

    async def serve_on(self, cluster: Cluster, keep: Kept = NOTHING) -> None:
        """Sets the GPUs to serve on. Those of earlier calls remain known, since workers may still run there.

        The first call also ends the orphans of an earlier process.

        Args:
            cluster: Cluster with the GPUs of this machine only.
            keep: Servers and instances of an earlier process that are left alone.

        Raises:
            InputError: The driver does not have these GPUs, or an image is missing.
            MigError: The driver does not answer.
        """
        before = self._cluster
        if before is None:
            kept = Kept(keep.servers | self._others, keep.places)
            await asyncio.to_thread(end_orphans, self._journal, self._paths, kept)
        # An agent serves one deployment after another, and the next one may have another driver or image.
        earlier = before.gpus if before is not None and before.driver == cluster.driver else ()
        gpus = {gpu.id: gpu for gpu in (*earlier, *cluster.gpus)}
        known = replace(cluster, gpus=tuple(sorted(gpus.values(), key=lambda g: g.id)))
        if known.image != (before.image if before is not None else None):
            image = await asyncio.to_thread(find_image, known.image) if known.image is not None else None
            self._commands = replace(self._commands, image=image)
            if image is not None:
                note_runtime(self._journal, image.runtime, self._paths.run)
        driver = await asyncio.to_thread(open_driver, known, self._paths.state, CallRecord(self._journal))
        self._cluster, self._driver = known, driver
        self._commands = replace(self._commands, gpu=known.driver == "nvml")
        self._pool.drive(Instances(self._journal, driver), daemons=known.driver == "nvml")
        self._journal.keep_fact(DRIVER_FACT, known.driver)

    async def adopt(
        self, cluster: Cluster, workers: Mapping[str, Worker], others: Collection[str] = ()
    ) -> frozenset[str]:
        """Adopts the workers of an earlier process, and ends its other workers and their instances.

        A worker that lacks one of its models is killed, and models that it should not have are unloaded.

        Args:
            cluster: Cluster with the GPUs of this machine only.
            workers: Workers that are known to run here.
            others: Names of servers that somebody else adopts.

        Returns:
            Names of the workers that have ended and must be restarted.

        Raises:
            JigsawError: The MIG driver or an image cannot be used.
        """
        leading = leaders(await asyncio.to_thread(members, self._paths.state))
        places = {(w.place.gpu, w.place.placement) for w in workers.values() if w.place is not None}
        daemons = {daemon_name(worker_name(*place)) for place in places}
        kept = leading.keys() & {*workers, *others}
        await self.serve_on(cluster, Kept(frozenset(kept | daemons), frozenset(places)))
        for name, worker in sorted(workers.items()):
            self._pool.adopt(worker)
            uuid = self._pool.uuid(name)
            command = self._commands.worker(worker, uuid, self._pool.daemon_env(name))
            process = await process_of(command, leading.get(name))
            self.servers.adopt(name, command, self._paths.worker_repository(name), uuid, process)
        adopted = {name for name in workers if self.servers.by_name[name].process.pid is not None}
        for name in sorted(adopted):
            wanted = {model.name for model in workers[name].models}
            self.servers.by_name[name].reconciling = asyncio.create_task(self.reconcile(name, wanted))
        return frozenset(workers.keys() - adopted)

    async def reconcile(
        self,
        name: str,
        wanted: Collection[str],
        *,
        keep: Collection[str] = (),
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        """Kills a server that lacks a wanted model, and unloads models that are neither wanted nor kept.

        The server goes on while it does not answer, or while a model cannot be unloaded yet; both are tried again. It
        also goes on while it still loads a model, as long as that makes progress (`health`). Models that are loaded or
        unloaded meanwhile change what is wanted.

        Args:
            name: Name of the server.
            wanted: Names of the models that it must have now.
            keep: Names of the models that it may have.
            admit: Callback for the moment at which the server is first seen to have all of them.
        """
        server = self.servers.by_name[name]
        server.wanted = set(wanted)
        try:
            await self._reconcile(name, server, keep, admit)
        finally:
            server.note_loading(())

    async def _reconcile(self, name: str, server: Server, keep: Collection[str], admit: Callable[[], None]) -> None:
        waited = False
        while server.process.returncode is None:
            try:
                async with self.servers.locked(name):
                    states = await server.client.index()
                    server.unseen = False
                    missing = sorted(model for model in server.wanted if states.get(model) != "READY")
                    loading = [model for model in missing if states.get(model) == "LOADING"]
                    if missing and not loading:
                        server.kill(f"it did not have {', '.join(missing)}")
                        return
                    if not missing:
                        # This event is sent even without a wait, since an earlier check may have sent `Loading`.
                        self._notify(e.Answered(name))
                        admit()
                        found = {model for model, state in states.items() if state != "UNAVAILABLE"}
                        await server.unload_all(found - {*server.wanted, *keep})
                        return
                if not waited:
                    waited = True
                    self._notify(e.Loading(name))
                # The note stays until the next look. In a gap, `health` would limit the heap of a gateway that needs
                # more while it loads.
                server.note_loading(loading)
                await asyncio.sleep(_LOADING_POLL_S)
            except (JigsawError, TimeoutError, OSError) as error:
                text = "%s: models of a change that was undone are still loaded: %r"
                log.warning(text, name, error, extra={"worker": name})
                await asyncio.sleep(RECONCILE_S)

    async def survey(self, cluster: Cluster) -> Cluster:
        """Returns GPUs of this machine in their current state, with the MIG instances of others on them."""
        if self._driver is None:
            raise RuntimeError("call `serve_on` first")
        surveyed = await asyncio.to_thread(self._driver.survey, cluster)
        return with_foreign(surveyed, await asyncio.to_thread(foreign_instances, self._driver, self._journal))

    async def lost_gpus(self) -> frozenset[GpuId]:
        """Returns the known GPUs that are lost. Kills workers whose MIG instance no longer exists.

        Raises:
            MigError: The driver does not answer.
        """
        if self._driver is None or self._cluster is None:
            return frozenset()
        return await self._devices.lost(self._driver, self._cluster)

    async def use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker, for the workers for which the driver reports it."""
        if self._driver is None:
            return {}
        uuids = {name: server.uuid for name, server in self.servers.by_name.items() if server.uuid}
        found = await asyncio.to_thread(self._driver.use, sorted(set(uuids.values())))
        return {name: found[uuid] for name, uuid in uuids.items() if uuid in found}

    async def energy(self) -> Mapping[GpuId, float]:
        """Returns the energy of the GPUs in joules; see `MigDriver.energy`."""
        return await asyncio.to_thread(self._driver.energy) if self._driver is not None else {}

    async def bring_up(self, worker: Worker) -> None:
        """Creates the MIG instance if it does not exist, starts the server, and loads and verifies its models."""
        async with self.servers.locked(worker.name):
            await self._pool.take(worker)
            try:
                await self._start_worker_again_if_it_dies(worker)
            except BaseException:
                await asyncio.shield(self._remove(worker.name))
                raise

    async def restart(self, worker: Worker, delay_s: float) -> None:
        """Restarts a dead worker on the same MIG instance with the same models."""
        async with self.servers.locked(worker.name):
            await self.servers.registered(worker.name).stop()
        # A worker that is retired meanwhile does not wait for the restart.
        await asyncio.sleep(delay_s)
        async with self.servers.locked(worker.name):
            self.servers.registered(worker.name)
            # An adopted worker may have lost its instance.
            await self._pool.take(worker)
            try:
                await self._start_worker(worker)
            except BaseException:
                # A worker whose start was interrupted could serve without a model or without MPS.
                await asyncio.shield(self.servers.by_name[worker.name].stop())
                raise

    async def retire(self, worker: str) -> None:
        """Stops a worker and destroys its MIG instance unless others share it. Batches in flight are lost."""
        await self.servers.end_reconciling(worker)
        async with self.servers.locked(worker):
            if worker in self.servers.by_name:
                await asyncio.shield(self._remove(worker))

    async def load(self, worker: str, models: Sequence[WorkerModel]) -> None:
        """Loads and verifies more models on a worker."""

        async def change(server: Server) -> None:
            await self._load_models(server, models, await self._pool.daemon(worker))

        await self.servers.change(worker, change, replaced_s=RELOAD_S)

    async def unload(self, worker: str, models: Iterable[str]) -> None:
        """Unloads models of a worker, waits until they are gone, and removes their folders."""
        async with self.servers.locked(worker):
            server = self.servers.by_name.get(worker)
            try:
                await self.servers.running(worker).unload_all(models)
            except ServerError:
                # If the server has died, its models are gone, too.
                if server is not None and not await server.has_ended():
                    raise

    async def kill(self, worker: str, cause: str) -> None:
        """Kills a worker, which is then restarted like any that dies; see `Node.kill`."""
        server = self.servers.by_name.get(worker)
        if server is not None:
            server.kill(cause)

    async def _start_worker_again_if_it_dies(self, worker: Worker) -> None:
        """Starts a worker with its models, on the same MIG instance again if it dies while it loads them."""
        give_up_at = math.inf
        for restarts in itertools.count():
            try:
                return await self._start_worker(worker)
            except ServerError:
                server = self.servers.by_name.get(worker.name)
                delay_s = Settings().backoff_s(restarts)
                give_up_at = min(give_up_at, time.monotonic() + RELOAD_S)
                if server is None or not await server.has_died() or time.monotonic() + delay_s > give_up_at:
                    raise
                when = f"in {delay_s:g} s" if delay_s else "now"
                text = f"worker {worker.name} ended while it loaded its models; starting it again {when}"
                self._notify(e.Noticed("error", text))
                await server.stop()
                await asyncio.sleep(delay_s)

    async def _start_worker(self, worker: Worker) -> None:
        uuid, daemon = self._pool.uuid(worker.name), await self._pool.daemon(worker.name)
        command = self._commands.worker(worker, uuid, daemon.env if daemon is not None else {})
        server = await self.servers.start(worker.name, command, self._paths.worker_repository(worker.name), uuid)
        await self._load_models(server, worker.models, daemon)

    async def _load_models(self, server: Server, models: Sequence[WorkerModel], daemon: MpsDaemon | None) -> None:
        check = partial(self._require_mps, server, daemon) if daemon is not None else None
        await server.load_all([model.folder for model in models], probed=_probed(models), check=check)

    async def _require_mps(self, server: Server, daemon: MpsDaemon) -> None:
        """Checks that a server computes through the MPS daemon. A server that does not find it computes without MPS.

        Raises:
            ServerError: The server computes without MPS.
        """
        assert self._driver is not None and server.process.pid is not None
        own = await asyncio.to_thread(group_members, server.process.pid)
        holders = await asyncio.to_thread(self._driver.holders, server.uuid)
        if reason := why_without(own, holders, await daemon.clients()):
            hint = "see the daemon's log; if MPS does not work here, set `processes: streams` in cluster.yaml"
            raise ServerError(reason, where=server.process.name, hint=hint)

    async def _remove(self, worker: str) -> None:
        server = self.servers.by_name.get(worker)
        if server is not None:
            await server.stop()
        await self._pool.leave(worker)
        # The server is forgotten last, so that `retire` can be repeated after a failed destruction.
        self.servers.by_name.pop(worker, None)
        await asyncio.to_thread(shutil.rmtree, self._paths.worker_repository(worker), True)

    def _end_without_mps(self, workers: Iterable[str]) -> None:
        """Kills the servers whose MPS daemon has ended. They are then restarted like any servers that die."""
        for name in workers:
            if name in self.servers.by_name:
                self.servers.by_name[name].kill("its MPS daemon ended")


def _probed(models: Iterable[WorkerModel]) -> dict[str, int]:
    """Returns the models to probe, with their instances. Python steps are not probed: their code may refuse zeros."""
    return {model.name: model.instances for model in models if model.variant}
