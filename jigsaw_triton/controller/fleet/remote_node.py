"""Another machine: a node whose agent changes its workers for the controller."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.compiler.bundle import Worker, WorkerModel
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls, AwayError
from jigsaw_triton.controller.fleet.agent_checks import check_agents
from jigsaw_triton.controller.fleet.agent_orders import HEADLESS_S, RETRY_S, AgentOrders
from jigsaw_triton.controller.fleet.following import AWAY_S, PULSE_S, Following
from jigsaw_triton.controller.fleet.node import Process
from jigsaw_triton.controller.fleet.running import Running
from jigsaw_triton.controller.fleet.succession import ReplacedError, Succession
from jigsaw_triton.controller.fleet.wire import (
    Digest,
    Json,
    NodeEvent,
    Sealed,
    cluster_json,
    read_gpu,
    sealed,
    sealed_models,
)
from jigsaw_triton.errors import JigsawError, ServerError
from jigsaw_triton.gpus.model import Cluster, DeviceUse, GpuId

log = logging.getLogger(__name__)


_TRACES_S = 2.0
"""Seconds that the agent may take to answer with records of batches, for which other nodes wait."""


class RemoteNode:
    """A node behind an agent. It follows what runs there, and reconciles it once the node is back.

    A node that does not answer for some seconds is lost, and so are its GPUs: the planner does without them. Nothing is
    started there meanwhile, and a worker that is retired meanwhile is ended when the node is back.

    Args:
        name: Name of the node.
        calls: Client of its agent.
        digest: Function that returns the SHA-256 of a file.
        notify: Callback for events that concern its workers.
        reachable: Function that returns True if the node itself answers, whether or not its agent does.
        changed: Callback for workers that begin or end, and for a node that is lost or back.
        succession: Place of this controller among those of its deployment.
        running: Workers that ran there when an earlier controller last knew.

    Attributes:
        described: Last description of the node by its agent; None until it was in sync with the controller.
    """

    def __init__(
        self,
        name: str,
        calls: AgentCalls,
        digest: Digest,
        notify: Callable[[NodeEvent], None],
        reachable: Callable[[], Awaitable[bool]],
        changed: Callable[[], Awaitable[None]],
        succession: Succession,
        running: Mapping[str, Running] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.described: Json | None = None
        self._calls = calls
        self._digest = digest
        self._notify = notify
        self._succession = succession
        self._cluster: Cluster | None = None
        self._workers: dict[str, Worker] = {}
        self._lost: frozenset[GpuId] = frozenset()
        self._following = Following(
            name, calls, notify, reachable, changed, succession, lambda: self._reconcile(), running
        )
        self._orders = AgentOrders(name, calls, lambda: self.away, self._following.doubt)

    @property
    def calls(self) -> AgentCalls:
        """Client of its agent."""
        return self._calls

    @property
    def away(self) -> bool:
        """True if the node does not answer."""
        return self._following.away

    @property
    def headless(self) -> bool:
        """True if the node serves, but its agent does not answer."""
        return self._following.headless

    @property
    def unanswered_s(self) -> float:
        """Seconds since its agent last answered."""
        return self._following.unanswered_s

    @property
    def workers(self) -> Mapping[str, Worker]:
        """Workers of the node, as far as the controller knows."""
        return self._workers

    @property
    def running(self) -> Mapping[str, Running]:
        """Workers that run there; none if the node does not answer."""
        return {} if self.away else self._following.known_running

    def process(self, name: str) -> Process | None:
        """Returns the process of a worker; None if it has none."""
        found = self._following.known_running.get(name)
        return found.process if found is not None else None

    async def describe(self) -> Json:
        """Returns what the agent says of its node.

        Raises:
            AwayError: The agent does not answer.
        """
        return await self._following.describe()

    async def serve_on(self, cluster: Cluster) -> None:
        """Sets the GPUs to serve on; see `Node.serve_on`. A node that is lost meanwhile gets them when it is back."""
        first, self._cluster = self._cluster is None, cluster
        try:
            if first:
                # Workers that a node kept because it was away when they were to end, end now.
                await self._reconcile()
            elif not self.away:
                with contextlib.suppress(AwayError):
                    await self._orders.operate("serve-on", {"cluster": cluster_json(cluster)})
        except JigsawError:
            if first:
                self._cluster = None
            raise
        self._following.begin()

    async def adopt(
        self, cluster: Cluster, workers: Mapping[str, Worker], others: Collection[str] = ()
    ) -> frozenset[str]:
        """Goes on with the workers of an earlier controller; see `Node.adopt`. Those that have ended are events.

        A node that does not answer, or cannot be reconciled, is lost at first and tried again.

        Raises:
            ReplacedError: A controller on another machine has replaced this one.
        """
        self._cluster, self._workers = cluster, dict(workers)
        try:
            await self._reconcile()
        except ReplacedError:
            raise
        except JigsawError as error:
            self._following.lose_at_first(error)
        self._following.begin()
        return frozenset()

    async def survey(self, cluster: Cluster) -> Cluster:
        """Returns the node's GPUs in their current state; none if the node is lost.

        A plan without the GPUs would move all workers away, so an agent that is being restarted is waited for.
        """
        give_up_at = time.monotonic() + HEADLESS_S
        while not self.away and time.monotonic() < give_up_at:
            try:
                found = await self._calls.post("/survey", {"cluster": cluster_json(cluster)})
                return replace(cluster, gpus=tuple(map(read_gpu, found["gpus"])))
            except AwayError:
                await asyncio.sleep(RETRY_S)
        return replace(cluster, gpus=())

    async def lost_gpus(self) -> frozenset[GpuId]:
        """Returns the known GPUs that are lost: all of them if the node does not answer."""
        known = frozenset(gpu.id for gpu in self._cluster.gpus) if self._cluster is not None else frozenset()
        if self.away:
            return known
        if not known:
            return frozenset()
        try:
            # The driver of a GPU that has just failed may take seconds to report it.
            found = await self._calls.get("/lost")
            self._lost = frozenset(GpuId(self.name, index) for index in found["lost"])
        except JigsawError as error:
            # An error of one node must not hide the loss of a GPU of another.
            log.warning("%s", error)
        return self._lost

    async def use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker, for the workers for which the driver reports it."""
        with contextlib.suppress(JigsawError):
            if not self.away:
                return {name: DeviceUse(**use) for name, use in (await self._calls.get("/use")).items()}
        return {}

    async def energy(self) -> Mapping[GpuId, float]:
        """Returns the energy of the node's GPUs in joules; see `MigDriver.energy`."""
        with contextlib.suppress(JigsawError):
            if not self.away:
                found = (await self._calls.get("/energy"))["joules"]
                return {GpuId(self.name, int(index)): joules for index, joules in found.items()}
        return {}

    async def run_records(self) -> list[str]:
        """Returns the records of traced batches since the last call; none if the node is away."""
        with contextlib.suppress(JigsawError):
            if not self.away:
                return list((await self._calls.get("/traces", timeout_s=_TRACES_S))["lines"])
        return []

    async def bring_up(self, worker: Worker) -> None:
        """Starts a worker; see `Node.bring_up`."""
        made = await asyncio.to_thread(sealed, worker, self._digest)
        await self._orders.operate("bring-up", made.json, made)
        self._workers[worker.name] = worker
        await self._following.look()

    async def restart(self, worker: Worker, delay_s: float) -> None:
        """Restarts a dead worker; see `Node.restart`.

        The delay passes here, since orders to a node that is away fail at once.
        """
        made = await asyncio.to_thread(sealed, worker, self._digest)
        await asyncio.sleep(delay_s)
        if worker.name not in self._workers:
            raise ServerError("the worker no longer exists", where=worker.name)
        await self._orders.operate("restart", {**made.json, "worker": made.json, "delay_s": 0.0}, made)
        self._workers[worker.name] = worker
        await self._following.look()

    async def retire(self, worker: str) -> None:
        """Stops a worker; see `Node.retire`. A lost node does so when it is back."""
        with contextlib.suppress(AwayError):
            if not self.away:
                await self._orders.operate("retire", {"name": worker})
        self._workers.pop(worker, None)

    async def load(self, worker: str, models: Sequence[WorkerModel]) -> None:
        """Loads more models on a worker; see `Node.load`."""
        made = await asyncio.to_thread(sealed_models, tuple(models), self._digest)
        await self._orders.operate("load", {**made.json, "name": worker}, made)
        self._change(worker, {model.name for model in models}, models)

    async def unload(self, worker: str, models: Iterable[str]) -> None:
        """Unloads models of a worker; see `Node.unload`. A lost node does so when it is back."""
        names = sorted(models)
        with contextlib.suppress(AwayError):
            if not self.away:
                await self._orders.operate("unload", {"name": worker, "names": names})
        self._change(worker, set(names))

    async def kill(self, worker: str, cause: str, incarnation: str = "") -> None:
        """Kills a worker; see `Node.kill`. An agent that does not answer is tried again as long as the process runs.

        Args:
            worker: Name of the worker.
            cause: Reason.
            incarnation: Process that is meant; empty for the present one. Another one is left alone.
        """
        found = self._following.known_running.get(worker)
        if found is None or incarnation not in ("", found.incarnation):
            return
        order = {"name": worker, "cause": cause, "incarnation": found.incarnation}
        while self.running.get(worker) == found:
            try:
                return await self._orders.operate("kill", order)
            except JigsawError as error:
                log.warning("%s cannot be killed: %s", worker, error, extra={"worker": worker})
                await asyncio.sleep(PULSE_S)

    async def end_agent(self) -> None:
        """Ends the agent with its proxy, after all workers have been retired.

        Raises:
            JigsawError: The agent does not answer, or still has workers.
        """
        await self._calls.post("/end", {})

    async def stop(self) -> None:
        """Stops following the node. Its workers go on."""
        await self._following.stop()
        await self._calls.close()

    def _change(self, name: str, gone: Collection[str], come: Sequence[WorkerModel] = ()) -> None:
        if name in self._workers:
            worker = self._workers[name]
            models = tuple(model for model in worker.models if model.name not in gone)
            self._workers[name] = replace(worker, models=(*models, *come))

    # --- reconciliation --------------------------------------------------------------------------------------------

    async def _reconcile(self) -> None:
        """Has the node end the workers that the controller does not know, and report those that are missing.

        Operations that are under way fail, and later ones wait. Workers that are retired meanwhile, which does not wait
        for a lost node, are ended by another round.
        """
        async with self._orders.reconciling():
            while not await self._reconcile_once():
                pass

    def _learn(self, described: Json) -> None:
        """Notes what an agent says that may have been started from another release."""
        before, self.described = self.described, described
        if before is not None and _software(before) != _software(described):
            text = f"node {self.name} now has {_software(described)}; it had {_software(before)}"
            self._notify(e.Noticed("node", text))

    async def _reconcile_once(self) -> bool:
        """Reconciles the node once. Returns False if the workers that it is to have have changed meanwhile."""
        cluster, known = self._cluster, dict(self._workers)
        assert cluster is not None
        described = await self.describe()
        check_agents({self.name: described}, time.time())
        # The state of a controller that runs is outdated once it was replaced, so only a next start may go on with it.
        await self._succession.claim(self.name, described, self.describe, first=self.described is None)
        await self._following.meet()
        contents: dict[str, bytes | Path] = {}
        workers = []
        for _, worker in sorted(known.items()):
            one = await asyncio.to_thread(sealed, worker, self._digest)
            contents |= one.contents
            workers.append(one.json)
        gateway = cluster.standby_gateway is not None and cluster.standby_gateway.node == self.name
        body = {"cluster": cluster_json(cluster), "workers": workers, "gateway": gateway}
        done = await self._orders.reconcile(body, Sealed(body, contents), AWAY_S)
        await self._following.look()
        # Only after reconciling does the agent know the image that its workers run in.
        self._learn(await self.describe())
        return done and cluster == self._cluster and known == self._workers


def _software(described: Json) -> str:
    return f"jigsaw-triton {described['release']} and tritonserver {described['tritonserver']}"
