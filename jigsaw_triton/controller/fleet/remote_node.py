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
from jigsaw_triton.controller.fleet import succession
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls, AwayError
from jigsaw_triton.controller.fleet.agent_checks import check_agents
from jigsaw_triton.controller.fleet.agent_orders import HEADLESS_S, RETRY_S, AgentOrders
from jigsaw_triton.controller.fleet.node import Process
from jigsaw_triton.controller.fleet.running import Running, read_running
from jigsaw_triton.controller.fleet.wire import (
    Digest,
    Json,
    NodeEvent,
    Sealed,
    cluster_json,
    read_event,
    read_gpu,
    sealed,
    sealed_models,
)
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.gpus.model import Cluster, DeviceUse, GpuId

log = logging.getLogger(__name__)

AWAY_S = 4.0
"""Seconds without an answer after which a node counts as lost. Short pauses of its processor or of the network pass."""

_PULSE_S, _PULSE_TIMEOUT_S = 1.0, 2.0
"""Seconds that the agent waits for news before it answers, and that it may take in addition."""


class RemoteNode:
    """A node behind an agent. It follows what runs there, and brings it in line once the node is back.

    A node that does not answer for some seconds is lost, and so are its GPUs: the planner does without them. Nothing is
    started there meanwhile, and a worker that is retired meanwhile is ended when the node is back.

    Args:
        name: Name of the node.
        calls: Client of its agent.
        digest: Function that returns the SHA-256 of a file.
        notify: Callback for events that concern its workers.
        reachable: Returns true if the node itself answers, whether or not its agent does.
        changed: Called when workers begin or end, and when the node is lost or back.
        surpass: Begins an epoch of this controller whose number is above that one.
        running: Workers that ran there when an earlier controller last knew.

    Attributes:
        described: Last description of the node by its agent; None until it was in line with the controller.
    """

    def __init__(
        self,
        name: str,
        calls: AgentCalls,
        digest: Digest,
        notify: Callable[[NodeEvent], None],
        reachable: Callable[[], Awaitable[bool]],
        changed: Callable[[], Awaitable[None]],
        surpass: Callable[[int], Awaitable[None]],
        running: Mapping[str, Running] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.described: Json | None = None
        self._calls = calls
        self._digest = digest
        self._notify = notify
        self._reachable = reachable
        self._changed = changed
        self._surpass = surpass
        self._cluster: Cluster | None = None
        self._workers: dict[str, Worker] = {}
        self._running = running
        self._lost: frozenset[GpuId] = frozenset()
        self._away = False
        self._headless = False
        self._agent = ""
        self._last = 0
        self._seen_at = 0
        self._orders = AgentOrders(name, calls, lambda: self._away, self._doubt)
        self._follower: asyncio.Task[None] | None = None
        self._heard_s = time.monotonic()

    @property
    def calls(self) -> AgentCalls:
        """Client of its agent."""
        return self._calls

    @property
    def away(self) -> bool:
        """True if the node does not answer."""
        return self._away

    @property
    def headless(self) -> bool:
        """True if the node serves, but its agent does not answer."""
        return self._headless

    @property
    def silent_s(self) -> float:
        """Seconds since its agent last answered."""
        return time.monotonic() - self._heard_s

    @property
    def workers(self) -> Mapping[str, Worker]:
        """Workers of the node, as far as the controller knows."""
        return self._workers

    @property
    def running(self) -> Mapping[str, Running]:
        """Workers that run there; none if the node does not answer."""
        return {} if self._away else self._running

    def process(self, name: str) -> Process | None:
        """Returns the process of a worker; None if it has none."""
        found = self._running.get(name)
        return found.process if found is not None else None

    async def describe(self) -> Json:
        """Returns what the agent says of its node.

        Raises:
            AwayError: It does not answer.
        """
        found: Json = await self._calls.get("/node")
        return found

    async def serve_on(self, cluster: Cluster) -> None:
        """Sets the GPUs to serve on; see `Node.serve_on`."""
        first, self._cluster = self._cluster is None, cluster
        try:
            if first:
                # Workers that a node kept because it was away when they were to end, end now.
                await self._bring_in_line()
            elif not self._away:
                await self._orders.operate("serve-on", {"cluster": cluster_json(cluster)})
        except JigsawError:
            if first:
                self._cluster = None
            raise
        self._follow()

    async def adopt(
        self, cluster: Cluster, workers: Mapping[str, Worker], others: Collection[str] = ()
    ) -> frozenset[str]:
        """Goes on with the workers of an earlier controller; see `Node.adopt`. Those that have ended are events.

        A node that does not answer, or cannot be brought in line, is lost at first and tried again.
        """
        self._cluster, self._workers = cluster, dict(workers)
        try:
            await self._bring_in_line()
        except JigsawError as error:
            self._away = True
            self._notify(e.Noticed("error", f"node {self.name} is lost: {error}"))
        self._follow()
        return frozenset()

    async def survey(self, cluster: Cluster) -> Cluster:
        """Returns the node's GPUs in their current state; none if the node is lost.

        A plan without the GPUs would move all workers away, so an agent that is being restarted is waited for.
        """
        give_up_at = time.monotonic() + HEADLESS_S
        while not self._away and time.monotonic() < give_up_at:
            try:
                found = await self._calls.post("/survey", {"cluster": cluster_json(cluster)})
                return replace(cluster, gpus=tuple(map(read_gpu, found["gpus"])))
            except AwayError:
                await asyncio.sleep(RETRY_S)
        return replace(cluster, gpus=())

    async def lost_gpus(self) -> frozenset[GpuId]:
        """Returns the known GPUs that are lost: all of them if the node does not answer."""
        known = frozenset(gpu.id for gpu in self._cluster.gpus) if self._cluster is not None else frozenset()
        if self._away:
            return known
        if not known:
            return frozenset()
        try:
            found = await self._calls.get("/lost")
            self._lost = frozenset(GpuId(self.name, index) for index in found["lost"])
        except JigsawError as error:
            # Trouble of one node must not hide the loss of another one.
            log.warning("%s", error)
        return self._lost

    async def use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker, for the workers for which the driver reports it."""
        with contextlib.suppress(JigsawError):
            if not self._away:
                return {name: DeviceUse(**use) for name, use in (await self._calls.get("/use")).items()}
        return {}

    async def bring_up(self, worker: Worker) -> None:
        """Starts a worker; see `Node.bring_up`."""
        made = await asyncio.to_thread(sealed, worker, self._digest)
        await self._orders.operate("bring-up", made.json, made)
        self._workers[worker.name] = worker
        await self._look()

    async def restart(self, worker: Worker, delay_s: float) -> None:
        """Restarts a dead worker; see `Node.restart`."""
        made = await asyncio.to_thread(sealed, worker, self._digest)
        await self._orders.operate("restart", {**made.json, "worker": made.json, "delay_s": delay_s}, made)
        self._workers[worker.name] = worker
        await self._look()

    async def retire(self, worker: str) -> None:
        """Stops a worker; see `Node.retire`. A lost node does so when it is back."""
        with contextlib.suppress(AwayError):
            if not self._away:
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
            if not self._away:
                await self._orders.operate("unload", {"name": worker, "names": names})
        self._change(worker, set(names))

    async def kill(self, worker: str, cause: str) -> None:
        """Kills a worker; see `Node.kill`. An agent that does not answer is tried again as long as the process runs."""
        process = self.process(worker)
        while process is not None and self.process(worker) == process and not self._away:
            try:
                return await self._orders.operate("kill", {"name": worker, "cause": cause})
            except JigsawError as error:
                log.warning("%s cannot be killed: %s", worker, error, extra={"worker": worker})
                await asyncio.sleep(_PULSE_S)

    async def end_agent(self) -> None:
        """Ends the agent with its proxy, after all workers have been retired.

        Raises:
            JigsawError: It does not answer, or still has workers.
        """
        await self._calls.post("/end", {})

    async def stop(self) -> None:
        """Stops to follow the node. Its workers go on."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait((self._follower,))
            self._follower = None
        await self._calls.close()

    def _change(self, name: str, gone: Collection[str], come: Sequence[WorkerModel] = ()) -> None:
        if name in self._workers:
            worker = self._workers[name]
            models = tuple(model for model in worker.models if model.name not in gone)
            self._workers[name] = replace(worker, models=(*models, *come))

    # --- following -------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        if self._follower is None:
            self._follower = asyncio.create_task(self._follow_pulse(), name=f"follow node {self.name}")

    async def _meet(self) -> None:
        """Begins to follow the agent that runs there now, from the present on."""
        found = await self._calls.get("/pulse")
        self._agent, self._last, self._seen_at = found["agent"], found["last"], 0

    async def _look(self) -> None:
        """Looks at once what runs, so that a new process can be called when this returns."""
        with contextlib.suppress(AwayError):
            await self._heard(await self._calls.get("/pulse", after=self._last))

    def _doubt(self) -> None:
        """Notes that the node may have done more than is known, so that it is brought in line when it answers."""
        self._agent = ""

    async def _follow_pulse(self) -> None:
        """Follows the events of the node, and notices when it is lost or back."""
        self._heard_s = in_line_s = time.monotonic()
        said = ""
        while True:
            try:
                found = await self._pulse()
                self._heard_s = time.monotonic()
                if found is None or self._away or found["agent"] != self._agent:
                    await self._bring_in_line()
                    await self._back()
                else:
                    await self._heard(found)
                self._note_agent(answers=True)
                self._heard_s = in_line_s = time.monotonic()
                said = ""
            except AwayError as error:
                silent_s = self.silent_s
                if not self._away and await self._is_lost(silent_s):
                    await self._lose(error.message)
                elif not self._away and silent_s > AWAY_S:
                    self._note_agent(answers=False)
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                # An agent that refuses, or that says what this release cannot read, must not end the following.
                text = str(error) if isinstance(error, JigsawError) else f"{type(error).__name__}: {error}"
                if text != said:
                    log.warning("node %s", self.name, exc_info=error)
                    self._notify(e.Noticed("error", f"node {self.name} cannot be brought in line: {text}"))
                    said = text
                if not self._away and time.monotonic() - in_line_s > HEADLESS_S:
                    await self._lose(text)
                await asyncio.sleep(_PULSE_S)

    async def _pulse(self) -> Json | None:
        """Waits for news of the node. Returns None if it has to be brought in line: another controller has ended.

        Raises:
            StateError: The other controller commands the node, or has replaced this one from another machine.
        """
        try:
            found: Json = await self._calls.get("/pulse", wait_s=_PULSE_S, timeout_s=_PULSE_TIMEOUT_S, after=self._last)
        except StateError:
            described = await self.describe()
            # Its state is outdated if another machine has taken over, so only its next start may take that back.
            if not succession.has_ended(described) or succession.is_fenced(described, self._calls):
                raise
            return None
        return found

    def _note_agent(self, *, answers: bool) -> None:
        """Notes whether the agent answers. While it does not, its workers serve on for a while."""
        if self._headless and answers:
            self._notify(e.Noticed("node", f"the agent of node {self.name} answers again"))
        elif not self._headless and not answers:
            text = f"the agent of node {self.name} does not answer; its workers serve on for up to {HEADLESS_S:.0f} s"
            self._notify(e.Noticed("error", text))
        self._headless = not answers

    async def _lose(self, reason: str) -> None:
        self._away, self._headless = True, False
        self._notify(e.Noticed("error", f"node {self.name} is lost: {reason}"))
        await self._changed()

    async def _back(self) -> None:
        """Notes that the node is in line. Its workers can be called again, also those that have run all the time."""
        if self._away:
            self._away = False
            self._notify(e.Noticed("gpu", f"node {self.name} is back"))
            await self._changed()

    async def _is_lost(self, silent_s: float) -> bool:
        """Returns true if the node counts as lost, given the seconds since its agent last answered."""
        return silent_s > HEADLESS_S or (silent_s > AWAY_S and not await self._reachable())

    async def _heard(self, found: Json) -> None:
        if found["agent"] != self._agent or found["at"] < self._seen_at:
            return
        self._seen_at = found["at"]
        for number, event in found["events"]:
            if number > self._last:
                self._notify(read_event(event))
        self._last = max(self._last, found["last"])
        running = read_running(found["workers"])
        if running != self._running:
            self._running = running
            await self._changed()

    async def _bring_in_line(self) -> None:
        """Has the node end the workers that the controller does not know, and report those that are missing.

        Operations that are under way fail, and later ones wait. Workers that are retired meanwhile, which does not wait
        for a lost node, are ended by another round.
        """
        async with self._orders.aligning():
            while not await self._align():
                pass

    def _learn(self, described: Json) -> None:
        """Notes what an agent says that may have been started from another release."""
        before, self.described = self.described, described
        if before is not None and _software(before) != _software(described):
            text = f"node {self.name} now has {_software(described)}; it had {_software(before)}"
            self._notify(e.Noticed("node", text))

    async def _align(self) -> bool:
        """Brings the node in line once. Returns False if the workers that it is to have have changed meanwhile."""
        cluster, known = self._cluster, dict(self._workers)
        assert cluster is not None
        described = await self.describe()
        check_agents({self.name: described}, time.time())
        await succession.outrank(self.name, described, self._calls, self.describe, self._surpass)
        await self._meet()
        contents: dict[str, bytes | Path] = {}
        workers = []
        for _, worker in sorted(known.items()):
            one = await asyncio.to_thread(sealed, worker, self._digest)
            contents |= one.contents
            workers.append(one.json)
        gateway = cluster.standby_gateway is not None and cluster.standby_gateway.node == self.name
        body = {"cluster": cluster_json(cluster), "workers": workers, "gateway": gateway}
        done = await self._orders.align(body, Sealed(body, contents), AWAY_S)
        await self._look()
        # Only now the agent knows the image that its workers run in.
        self._learn(await self.describe())
        return done and cluster == self._cluster and known == self._workers


def _software(described: Json) -> str:
    return f"jigsaw-triton {described['release']} and tritonserver {described['tritonserver']}"
