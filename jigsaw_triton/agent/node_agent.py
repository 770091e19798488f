"""Changes of the workers of a node on behalf of a controller, and the record of them in the node's journal."""

import asyncio
import itertools
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from jigsaw_triton import __version__
from jigsaw_triton.agent.commander import END_HINT, Commander
from jigsaw_triton.agent.gateway_keeper import GatewayKeeper
from jigsaw_triton.agent.operations import Operations
from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.controller.fleet.wire import (
    WIRE_VERSION,
    Json,
    NodeEvent,
    cluster_json,
    digests,
    event_json,
    opened,
    opened_models,
    read_cluster,
)
from jigsaw_triton.controller.persistence.contents import Contents
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.records import WORKERS_FACT
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import DeviceUse
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.os_process import start_time

log = logging.getLogger(__name__)

_CLUSTER_FACT = "cluster"
"""Journal key of the node's GPUs, as they travelled."""

_WIRE_FACT, _FIRST_WIRE = "wire version", 1
"""Journal key of the version of the messages in the journal, and the version in journals that lack the key."""

_MOST_EVENTS = 1000


class NodeAgent:
    """The workers of a node, changed by the controller whose epoch is the highest.

    Args:
        node: Workers of this machine.
        journal: Journal of the node.
        contents: Files of models.
        publish: Function that makes workers of these names callable from other machines.
        gateway: Standby gateway of this machine.

    Attributes:
        id: Random text that differs after each start.
        line: Name of the last reconciliation with the controller; empty before the first one.
        commander: Controller that the node obeys.
        operations: Operations that were ordered.
        changed: Set whenever workers begin or end, or an event occurs; whoever waits clears it.
    """

    def __init__(
        self,
        node: LocalNode,
        journal: Journal,
        contents: Contents,
        publish: Callable[[Collection[str]], Awaitable[None]],
        gateway: GatewayKeeper,
    ) -> None:
        self._node = node
        self._journal = journal
        self._contents = contents
        self._publish = publish
        self._gateway = gateway
        self._workers: dict[str, Worker] = {}
        self._sealed: dict[str, Json] = {}
        self._starting: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._adopting = asyncio.Lock()
        self._events: list[tuple[int, NodeEvent]] = []
        self._numbers = itertools.count(1)
        self.line = ""
        self.commander = Commander(journal)
        self.operations = Operations()
        self.id = secrets.token_hex(8)
        self.changed = asyncio.Condition()

    # --- who commands ----------------------------------------------------------------------------------------------

    def admit(self, deployment: str, epoch: str) -> None:
        """Checks that a command comes from the controller that owns this node now; see `Commander.admit`."""
        workers = {*self._workers, *self._starting}
        self.commander.admit(deployment, epoch, workers=len(workers), standby=self._gateway.exists)

    async def set_fence(self, epoch: str, machine: str) -> None:
        """Has the workers refuse the gateways of controllers that this epoch has replaced.

        Args:
            epoch: The epoch.
            machine: Name of the machine of its controller.
        """
        self.commander.keep_fence(epoch, machine)
        await self._publish_all()

    # --- what runs -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Goes on with the workers that the journal has, and ends all others of an earlier agent.

        Raises:
            StateError: A release with other messages has started the workers.
        """
        data: Mapping[str, Json] = json.loads(self._journal.fact(WORKERS_FACT) or "{}")
        wire = int(self._journal.fact(_WIRE_FACT) or _FIRST_WIRE)
        if data and wire != WIRE_VERSION:
            raise StateError(
                f"a release with messages of version {wire} has started {len(data)} workers here, and jigsaw-triton "
                f"{__version__}, with version {WIRE_VERSION}, cannot go on with them",
                where="the agent's journal",
                hint=f"start the release that has started them; or {END_HINT}",
            )
        self._journal.keep_fact(_WIRE_FACT, str(WIRE_VERSION))
        known = self._journal.fact(_CLUSTER_FACT)
        if not known:
            return await self._gateway.start()
        # Missing files do not prevent an adoption, because a restart of the worker gets them again.
        self._sealed = dict(data)
        self._workers = {name: opened(entry, self._contents.path) for name, entry in data.items()}
        beside = self._gateway.steps()
        ended = await self._node.adopt(read_cluster(json.loads(known)), {**self._workers, **beside})
        for name in sorted(ended - beside.keys()):
            self.notify(e.WorkerExited(name, "while no agent ran"))
        await self._gateway.start(ended & beside.keys())

    def notify(self, event: NodeEvent) -> None:
        """Keeps an event for the controller, unless it concerns a server of the standby gateway."""
        if self._gateway.takes(event):
            return
        self._events = [*self._events[-_MOST_EVENTS:], (next(self._numbers), event)]
        task = asyncio.ensure_future(self._tell())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def names(self) -> tuple[str, ...]:
        """Returns the names of the workers, running or not."""
        return tuple(sorted(self._workers))

    def pulse(self, after: int) -> Json:
        """Returns the running workers, and the events after a number.

        Args:
            after: Number of the last event that the controller knows; 0 for none.
        """
        running = {}
        for name in self._workers:
            server = self._running(name)
            if server is not None:
                running[name] = {
                    "pid": server.process.pid,
                    "uuid": server.uuid,
                    "incarnation": _incarnation(server),
                }
        events = [(number, event_json(event)) for number, event in self._events if number > after]
        last = self._events[-1][0] if self._events else 0
        return {"agent": self.id, "at": time.monotonic_ns(), "workers": running, "events": events, "last": last}

    @property
    def installation(self) -> Installation:
        """Tritonserver that workers run: that of the deployment's image, else that of this machine."""
        return self._node.commands.workers

    @property
    def is_idle(self) -> bool:
        """True if the node has no workers and starts none, and has no standby gateway."""
        return not (self._workers or self._starting or self._gateway.exists)

    def _running(self, name: str) -> Server | None:
        """Returns the server of a worker if its process runs."""
        server = self._node.server(name)
        if server is None or server.process.pid is None or server.process.returncode is not None:
            return None
        return server

    async def wait(self, after: int, wait_s: float) -> None:
        """Waits for an event after a number, or for a change of the workers."""
        if self._events and self._events[-1][0] > after:
            return
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait(), wait_s)
            except TimeoutError:
                return

    # --- operations ------------------------------------------------------------------------------------------------

    def missing(self, body: Json) -> dict[str, int]:
        """Returns the files that an operation needs and that have not arrived; see `Contents.missing`."""
        needed = [body] if "models" in body else list(body.get("workers", ()))
        return self._contents.missing(digest for entry in needed for digest in digests(entry))

    async def run(self, kind: str, body: Json) -> None:
        """Carries out an operation.

        Args:
            kind: Name of the operation: one of `KINDS`.
            body: Arguments of the operation.

        Raises:
            JigsawError: The operation failed and left nothing behind.
        """
        before = self._used()
        await KINDS[kind](self, body)
        await self._tell()
        # The files that this operation no longer uses are kept for some minutes, which begin now.
        await asyncio.to_thread(self._contents.collect, before | self._used())

    def _used(self) -> set[str]:
        return {digest for entry in self._sealed.values() for digest in digests(entry)} | self._gateway.digests()

    async def _serve_on(self, body: Json) -> None:
        cluster = read_cluster(body["cluster"])
        await self._node.serve_on(cluster)
        self._journal.keep_fact(_CLUSTER_FACT, json.dumps(cluster_json(cluster)))

    async def _adopt(self, body: Json) -> None:
        """Reconciles the workers with those that the controller knows, and reports those that must be restarted.

        Operations under way are ended: their controller has given them up, or has been replaced.
        """
        async with self._adopting:
            # From here on, no order that was given before this one can begin.
            self.line = body["line"]
            await self.operations.end_others()
            await self._serve_on(body)
            wanted = {entry["name"]: entry for entry in body["workers"]}
            for name in sorted(self._workers.keys() - wanted.keys()):
                await self._retire({"name": name})
            for name, entry in sorted(wanted.items()):
                await self._check(name, entry)
            if not body.get("gateway"):
                await self._gateway.end()

    async def _check(self, name: str, entry: Json) -> None:
        """Has a worker checked for its models, or reported if it does not run."""
        server = self._running(name)
        if server is None:
            self.notify(e.WorkerExited(name, "while its node did not answer"))
        else:
            if server.reconciling is not None:
                # The earlier check would unload models that the worker was given after that check began.
                server.reconciling.cancel()
            models = {model["name"] for model in entry["models"]}
            server.reconciling = asyncio.create_task(self._node.reconcile(name, models))
        self._keep(opened(entry, self._contents.path), entry)

    async def _bring_up(self, body: Json) -> None:
        name = body["name"]
        async with self._lock(name):
            if name in self._workers:
                if self._sealed[name] == body and self._running(name) is not None:
                    return
                await self._end(name)
            worker = opened(body, self._contents.path)
            self._starting.add(name)
            try:
                await self._publish_all()
                await self._node.bring_up(worker)
                self._keep(worker, body)
            finally:
                self._starting.discard(name)

    async def _restart(self, body: Json) -> None:
        worker = opened(body["worker"], self._contents.path)
        async with self._lock(worker.name):
            if self._node.server(worker.name) is None:
                await self._node.bring_up(worker)
            else:
                await self._node.restart(worker, body["delay_s"])
            self._keep(worker, body["worker"])
            await self._publish_all()

    async def _retire(self, body: Json) -> None:
        async with self._lock(body["name"]):
            await self._end(body["name"])

    async def _load(self, body: Json) -> None:
        name, models = body["name"], opened_models(body, self._contents.path)
        async with self._lock(name):
            await self._node.load(name, models)
            self._change(name, {model.name for model in models}, add=body["models"])

    async def _unload(self, body: Json) -> None:
        name, names = body["name"], set(body["names"])
        async with self._lock(name):
            await self._node.unload(name, names)
            self._change(name, names)

    async def _kill(self, body: Json) -> None:
        """Kills a worker, unless another process runs in its place since the order was given."""
        server = self._running(body["name"])
        if server is not None and _incarnation(server) == body["incarnation"]:
            await self._node.kill(body["name"], body["cause"])

    async def _end(self, name: str) -> None:
        await self._node.retire(name)
        self._workers.pop(name, None)
        self._sealed.pop(name, None)
        self._save()
        await self._publish_all()

    async def _publish_all(self) -> None:
        await self._publish({*self._workers, *self._starting})

    def _change(self, name: str, gone: set[str], add: tuple[Json, ...] | list[Json] = ()) -> None:
        """Records that models of a worker are gone or have come."""
        if name not in self._workers:
            return
        before = self._sealed[name]
        models = [model for model in before["models"] if model["name"] not in gone]
        entry = {**before, "models": [*models, *add]}
        self._keep(opened(entry, self._contents.path), entry)

    def _keep(self, worker: Worker, entry: Json) -> None:
        self._workers[worker.name] = worker
        self._sealed[worker.name] = entry
        self._save()

    def _save(self) -> None:
        self._journal.keep_fact(WORKERS_FACT, json.dumps(self._sealed))

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    # --- questions -------------------------------------------------------------------------------------------------

    async def survey(self, body: Json) -> Json:
        """Returns the GPUs of a cluster in their current state, with the MIG instances of others."""
        return cluster_json(await self._node.survey(read_cluster(body["cluster"])))

    async def lost(self) -> list[int]:
        """Returns the indices of the lost GPUs."""
        return sorted(gpu.index for gpu in await self._node.lost_gpus())

    async def use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker."""
        return await self._node.use()

    async def energy(self) -> Mapping[int, float]:
        """Returns the energy of the GPUs in joules, by their indices; see `MigDriver.energy`."""
        return {gpu.index: joules for gpu, joules in (await self._node.energy()).items()}


def _incarnation(server: Server) -> str:
    """Returns a text that differs for each process of a server."""
    pid = server.process.pid
    assert pid is not None
    return f"{pid}.{start_time(pid)}"


ADOPT = "adopt"
"""Operation that reconciles a node with its controller."""

KINDS: Mapping[str, Callable[[NodeAgent, Json], Any]] = {
    "serve-on": NodeAgent._serve_on,
    ADOPT: NodeAgent._adopt,
    "bring-up": NodeAgent._bring_up,
    "restart": NodeAgent._restart,
    "retire": NodeAgent._retire,
    "load": NodeAgent._load,
    "unload": NodeAgent._unload,
    "kill": NodeAgent._kill,
}
"""Operations by name."""

FINAL = frozenset({"serve-on", ADOPT, "retire", "unload", "kill"})
"""Operations that cannot be undone."""
