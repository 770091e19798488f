"""Another machine: a node whose agent changes its workers for the controller."""

import asyncio
import contextlib
import itertools
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.compiler.bundle import Worker, WorkerModel
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls, AwayError
from jigsaw_triton.controller.fleet.agent_checks import check_agents
from jigsaw_triton.controller.fleet.node import Process
from jigsaw_triton.controller.fleet.wire import (
    Digest,
    Json,
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

HEADLESS_S = 60.0
"""Seconds without an answer of its agent after which a node counts as lost although its workers can be called. An agent
that is restarted answers sooner. Longer, and workers that die there would be missed."""

_PULSE_S, _PULSE_TIMEOUT_S = 1.0, 2.0
"""Seconds that the agent waits for news before it answers, and that it may take in addition."""

_RETRY_S = 0.2
_UNDO_S = 60.0
"""Seconds that a cancelled operation may take to undo what it has begun."""

_OUTCOME_S = 2.0
"""Seconds that the agent waits for the end of an operation before it answers that it goes on."""

_REPEATABLE = frozenset({"serve-on", "retire", "unload", "kill"})
"""Operations that may be carried out twice, so that one whose outcome is lost is ordered again."""


@dataclass(frozen=True, slots=True)
class Running:
    """A worker that runs on a node.

    Attributes:
        process: Its process.
        incarnation: Text that differs for each process of the worker.
    """

    process: Process
    incarnation: str


def running_json(running: Mapping[str, Running]) -> Json:
    """Returns running workers by name as JSON, in the form of an agent's answer."""
    return {
        name: {"pid": one.process.pid, "uuid": one.process.uuid, "incarnation": one.incarnation}
        for name, one in running.items()
    }


def read_running(data: Json) -> Mapping[str, Running]:
    """Returns the running workers of `running_json`."""
    return {n: Running(Process(one["pid"], one["uuid"]), one["incarnation"]) for n, one in data.items()}


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
        running: Workers that ran there when an earlier controller last knew.
    """

    def __init__(
        self,
        name: str,
        calls: AgentCalls,
        digest: Digest,
        notify: Callable[[e.Event], None],
        reachable: Callable[[], Awaitable[bool]],
        changed: Callable[[], Awaitable[None]],
        running: Mapping[str, Running] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self._calls = calls
        self._digest = digest
        self._notify = notify
        self._reachable = reachable
        self._changed = changed
        self._cluster: Cluster | None = None
        self._workers: dict[str, Worker] = {}
        self._running = running
        self._lost: frozenset[GpuId] = frozenset()
        self._away = False
        self._agent = ""
        self._last = 0
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._seen_at = 0
        self._aligning = asyncio.Lock()
        self._line = ""
        self._follower: asyncio.Task[None] | None = None
        self._heard_s = time.monotonic()

    @property
    def away(self) -> bool:
        """True if the node does not answer."""
        return self._away

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
                await self._operate("serve-on", {"cluster": cluster_json(cluster)})
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
                await asyncio.sleep(_RETRY_S)
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
        await self._operate("bring-up", made.json, made)
        self._workers[worker.name] = worker
        await self._look()

    async def restart(self, worker: Worker, delay_s: float) -> None:
        """Restarts a dead worker; see `Node.restart`."""
        made = await asyncio.to_thread(sealed, worker, self._digest)
        await self._operate("restart", {**made.json, "worker": made.json, "delay_s": delay_s}, made)
        self._workers[worker.name] = worker
        await self._look()

    async def retire(self, worker: str) -> None:
        """Stops a worker; see `Node.retire`. A lost node does so when it is back."""
        with contextlib.suppress(AwayError):
            if not self._away:
                await self._operate("retire", {"name": worker})
        self._workers.pop(worker, None)

    async def load(self, worker: str, models: Sequence[WorkerModel]) -> None:
        """Loads more models on a worker; see `Node.load`."""
        made = await asyncio.to_thread(sealed_models, tuple(models), self._digest)
        await self._operate("load", {**made.json, "name": worker}, made)
        self._change(worker, {model.name for model in models}, models)

    async def unload(self, worker: str, models: Iterable[str]) -> None:
        """Unloads models of a worker; see `Node.unload`. A lost node does so when it is back."""
        names = sorted(models)
        with contextlib.suppress(AwayError):
            if not self._away:
                await self._operate("unload", {"name": worker, "names": names})
        self._change(worker, set(names))

    async def kill(self, worker: str, cause: str) -> None:
        """Kills a worker; see `Node.kill`. An agent that does not answer is tried again as long as the process runs."""
        process = self.process(worker)
        while process is not None and self.process(worker) == process and not self._away:
            try:
                return await self._operate("kill", {"name": worker, "cause": cause})
            except JigsawError as error:
                log.warning("%s cannot be killed: %s", worker, error)
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

    # --- operations ------------------------------------------------------------------------------------------------

    async def _operate(self, kind: str, body: Json, made: Sealed | None = None) -> None:
        """Has the agent carry out an operation exactly once, or at least once if it may be repeated.

        Args:
            kind: Name of the operation.
            body: Its arguments.
            made: Files that it needs; None if it needs none.

        Raises:
            AwayError: The node is lost. Whatever it has done is undone when it is back.
            JigsawError: The operation failed and left nothing behind.
        """
        while not await self._order(kind, body, made):
            if kind not in _REPEATABLE:
                raise StateError("the node was brought in line during this operation", where=f"node {self.name}")

    async def _order(
        self, kind: str, body: Json, made: Sealed | None, *, line: str = "", patience_s: float = HEADLESS_S
    ) -> bool:
        """Orders an operation and waits for its end, whatever happens to the connection.

        An agent accepts orders only once it has been brought in line, and only those that were given since. So an order
        waits for that, and is given anew after it unless it has begun.

        Args:
            kind: Name of the operation.
            body: Its arguments.
            made: Files that it needs; None if it needs none.
            line: Name of the alignment that this order begins; empty for any other order.
            patience_s: Seconds to wait for an agent that does not answer, unless the node is lost before.

        Returns:
            True if the operation was carried out. False if the node has been brought in line since it began.
        """
        path, known, begun, give_up_at = "", "", False, math.inf
        try:
            while True:
                try:
                    if not begun:
                        current = line or await self._in_line()
                        if current != known:
                            path, known = f"/operations/{self._prefix}.{next(self._numbers)}", current
                        begun = await self._begin(path, {"kind": kind, "body": body, "line": known}, made)
                    else:
                        found = await self._calls.get(path, wait_s=_OUTCOME_S)
                        if found["done"] or not found["known"]:
                            return bool(found["done"]) and known in (line, self._line)
                    give_up_at = math.inf
                except AwayError:
                    give_up_at = min(give_up_at, time.monotonic() + patience_s)
                    if self._away or time.monotonic() > give_up_at:
                        self._doubt()
                        raise
                    await asyncio.sleep(_RETRY_S)
        except asyncio.CancelledError:
            if path:
                try:
                    await asyncio.shield(self._calls.call("DELETE", path, timeout_s=_UNDO_S))
                except JigsawError:
                    self._doubt()
            raise

    async def _in_line(self) -> str:
        """Waits while the node is being brought in line. Returns the name of the last alignment."""
        async with self._aligning:
            return self._line

    def _doubt(self) -> None:
        """Notes that the node may have done more than is known, so that it is brought in line when it answers."""
        self._agent = ""

    async def _begin(self, path: str, order: Json, made: Sealed | None) -> bool:
        """Gives an order, and sends the files that are missing. Returns False if it must be given once more.

        Raises:
            AwayError: The agent does not answer, or has to be brought in line before.
        """
        found = await self._calls.post(path, order)
        if found["stale"]:
            if order["line"] == self._line:
                self._doubt()
            raise AwayError("the agent has to be brought in line before", where=f"node {self.name}")
        for digest, arrived in found["missing"].items():
            if made is None or digest not in made.contents:
                raise StateError(f"the file with the SHA-256 {digest} is nowhere", where=f"node {self.name}")
            sending = asyncio.ensure_future(self._calls.put(f"/contents/{digest}", made.contents[digest], arrived))
            try:
                # A call that sends has no timeout, and an agent that hangs may keep it open.
                while not (await asyncio.wait((sending,), timeout=_PULSE_S))[0]:
                    if self._away and order["kind"] != "adopt":
                        raise AwayError("the node was lost while it got files", where=f"node {self.name}")
                await sending
            finally:
                sending.cancel()
        return not found["missing"]

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

    async def _follow_pulse(self) -> None:
        """Follows the events of the node, and notices when it is lost or back."""
        self._heard_s = in_line_s = time.monotonic()
        said = ""
        while True:
            try:
                found = await self._calls.get("/pulse", wait_s=_PULSE_S, timeout_s=_PULSE_TIMEOUT_S, after=self._last)
                self._heard_s = time.monotonic()
                if self._away or found["agent"] != self._agent:
                    await self._bring_in_line()
                    await self._back()
                else:
                    await self._heard(found)
                self._heard_s = in_line_s = time.monotonic()
                said = ""
            except AwayError as error:
                if not self._away and await self._is_lost(self.silent_s):
                    await self._lose(error.message)
                await asyncio.sleep(_RETRY_S)
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

    async def _lose(self, reason: str) -> None:
        self._away = True
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
        async with self._aligning:
            try:
                while not await self._align():
                    pass
            except BaseException:
                self._doubt()
                raise

    async def _align(self) -> bool:
        """Brings the node in line once. Returns False if the workers that it is to have have changed meanwhile."""
        cluster, known = self._cluster, dict(self._workers)
        assert cluster is not None
        self._line = f"{self._prefix}.{next(self._numbers)}"
        check_agents({self.name: await self.describe()}, time.time())
        await self._meet()
        contents: dict[str, bytes | Path] = {}
        workers = []
        for _, worker in sorted(known.items()):
            one = await asyncio.to_thread(sealed, worker, self._digest)
            contents |= one.contents
            workers.append(one.json)
        body = {"line": self._line, "cluster": cluster_json(cluster), "workers": workers}
        done = await self._order("adopt", body, Sealed(body, contents), line=self._line, patience_s=AWAY_S)
        await self._look()
        return done and cluster == self._cluster and known == self._workers
