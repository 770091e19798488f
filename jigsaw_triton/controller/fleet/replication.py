"""Replication of the gateway to its standby on another machine.

The standby follows the gateway: after each change of the gateway, the agent of the standby's node is sent the whole
content that the standby is to serve. A change waits for the standby only where a worker would otherwise lose
a model that the standby may still call.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.fleet.agent_calls import AwayError
from jigsaw_triton.controller.fleet.gateway_content import GatewayContent, sealed_content, standby_content
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.remote_nodes import RemoteNodes
from jigsaw_triton.controller.fleet.wire import Json, Sealed
from jigsaw_triton.controller.persistence.model_files import names
from jigsaw_triton.errors import JigsawError, ServerError, error_text
from jigsaw_triton.gpus.gateway import StandbyGateway
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""Seconds between two checks of a standby that has nothing to do. Files of the user may also have changed."""

_APPLIED_S = 0.25
"""Seconds to wait for the standby to carry out an order, before newer ones are looked for."""

_RETRY_S, _MOST_RETRY_S = 1.0, 60.0
"""First and longest delay of the exponential backoff after a failure, in seconds."""

_COPY_S = 5.0
"""Seconds between two copies of the controller's state during a change, each step of which changes it. Another
generation that has begun to serve, and the end of the change, are copied at the next look."""

_BEHIND_S = 10.0
"""Seconds that a change waits for the standby to follow. After that, changes go on without it."""

_DRAIN_S = 60.0
"""Seconds that a change waits for calls in flight at the standby, as for those at the gateway."""

_POLL_S = 0.05

_END_S = 20.0
"""Seconds to wait for the end of the standby."""


class Replication:
    """Keeps the standby gateway in sync with the gateway, if the cluster has one.

    Args:
        nodes: Nodes of the cluster, one of which has the standby.
        notify: Callback for events.
        copy: Function that returns a copy of the controller's state, which goes along.
    """

    def __init__(self, nodes: RemoteNodes, notify: Callable[[e.Event], None], copy: Callable[[], bytes]) -> None:
        self._nodes = nodes
        self._copy = copy
        self._copied, self._copied_at_s, self._copied_generation = b"", -math.inf, 0
        self._generation = 0
        self._notify = notify
        self._cluster: Cluster | None = None
        self._actual: Actual | None = None
        self._graphs: Mapping[str, TaskGraph] = {}
        self._lacking: dict[str, int] = {}
        """Digests of the files that the standby's node lacks for the next controller, and bytes that it has of each."""
        self._number = 0
        self._sent: Json | None = None
        self._version, self._served, self._turned, self._saved = 1, 0, 0, 0
        self._said: Json = {}
        self._failure, self._failures, self._retry_at_s = "", 0, 0.0
        self._behind = False
        self._ending = False
        self._noted, self._noted_at_s = ("", False), 0.0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        nodes.on_change = self._changed.set

    @property
    def _standby(self) -> StandbyGateway | None:
        return self._cluster.standby_gateway if self._cluster is not None else None

    @property
    def in_sync(self) -> bool:
        """True if the standby serves what the gateway serves and its node has all for a takeover, or if there is none.

        That is the controller's state, and the copies of the files of models.
        """
        return self._standby is None or (self._follows and not self._lacking)

    @property
    def _follows(self) -> bool:
        return self._standby is None or self._served == self._saved == self._version

    async def wait_followed(self, timeout_s: float) -> None:
        """Waits until the standby serves what the gateway serves, or until the timeout."""
        give_up_at = time.monotonic() + timeout_s
        while not self._follows and time.monotonic() < give_up_at:  # noqa: ASYNC110 - several things change it
            await asyncio.sleep(_POLL_S)

    def status(self) -> dict[str, Any] | None:
        """Returns the part of the status about the standby; None if there is none."""
        if self._cluster is None or (standby := self._standby) is None:
            return None
        ports, said = self._cluster.gateway, self._said
        self._note(standby)
        state, in_sync = self._noted
        return {
            "node": standby.node,
            "state": state,
            "in_line": in_sync,
            "since": self._noted_at_s,
            "failure": self._failure or said.get("failure", ""),
            "pid": said.get("pid"),
            "http": f"{standby.address}:{ports.http}",
            "grpc": f"{standby.address}:{ports.grpc}",
            "metrics": f"http://{standby.address}:{ports.metrics}/metrics",
        }

    def _note(self, standby: StandbyGateway) -> None:
        """Notes the state of the standby, and since when it has it."""
        node = self._nodes.get(standby.node)
        state = "lost" if node is None or node.away else self._said.get("state", "absent")
        if (state, self.in_sync) != self._noted:
            self._noted, self._noted_at_s = (state, self.in_sync), round(time.time(), 3)

    async def serve_on(self, cluster: Cluster) -> None:
        """Sets the cluster. A standby that it no longer has, or has on another node, ends."""
        before, self._cluster = self._standby, cluster
        if before is not None and (self._standby is None or self._standby.node != before.node):
            # An order that is on its way, or that a change causes meanwhile, would start the standby again.
            self._ending = True
            try:
                await self.stop()
                await self._end_at(before.node)
            finally:
                self._ending = False
        self._follow()

    def follow(self, actual: Actual, graphs: Mapping[str, TaskGraph], generation: int = 0) -> None:
        """Sets what the gateway serves, which the standby follows.

        Args:
            actual: Servers, models and routes that exist.
            graphs: Served graphs, by name.
            generation: Number of the generation that serves. The first copy with it goes along at once.
        """
        if not actual.gateway:
            self._ending = False
        if actual is not self._actual or (graphs.keys(), generation) != (self._graphs.keys(), self._generation):
            self._actual, self._graphs, self._generation = actual, graphs, generation
            self._follow()

    def renew(self) -> None:
        """Has the standby follow once more, because the epoch of the controller has changed."""
        self._follow()

    async def unused(self, models: Iterable[tuple[str, str]] = (), generations: Iterable[tuple[str, int]] = ()) -> None:
        """Waits until the standby has followed, and uses none of these models and generations.

        A standby that does not follow delays a change once, and is reported.

        Args:
            models: (worker, model) pairs.
            generations: (graph, generation) pairs.
        """
        standby, version = self._standby, self._version
        node = self._nodes.get(standby.node) if standby is not None else None
        if node is None or self._behind:
            return
        body = {"models": list(models), "generations": list(generations)}
        give_up_at = time.monotonic() + _BEHIND_S
        while self._served < version and not node.away:
            if self._said and self._said["state"] != "ready":
                return
            if time.monotonic() > give_up_at:
                return self._fall_behind(node)
            await asyncio.sleep(_POLL_S)
        give_up_at, answers = time.monotonic() + _DRAIN_S, True
        while not node.away and time.monotonic() < give_up_at:
            try:
                if (await node.calls.post("/gateway/unused?wait=1", body, timeout_s=_BEHIND_S))["unused"]:
                    return
                answers = True
            except AwayError:
                answers = False
            await asyncio.sleep(_POLL_S)
        if node.away:
            return
        if not answers:
            return self._fall_behind(node)
        raise ServerError(f"calls are still in flight after {_DRAIN_S:g} s", where="the standby gateway")

    def _fall_behind(self, node: RemoteNode) -> None:
        """Notes that changes do not wait for the standby any more, until it follows again."""
        if not self._behind:
            self._behind = True
            text = f"the standby gateway on node {node.name} does not follow; changes go on without it"
            self._notify(e.Noticed("error", text))

    async def end(self) -> None:
        """Ends the standby, with the gateway. It stays so until the gateway no longer exists."""
        self._ending = True
        await self.stop()
        if self._standby is not None:
            await self._end_at(self._standby.node)

    async def stop(self) -> None:
        """Stops following the gateway. The standby goes on."""
        await end_tasks(self._task)
        self._task = None

    def _follow(self) -> None:
        self._version += 1
        self._changed.set()
        # Until recovery has found which servers exist, an order would end a standby that serves.
        known = self._standby is not None and self._actual is not None
        if known and self._task is None and not self._ending:
            self._task = asyncio.create_task(self._run(), name="follow the gateway")

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            wait_s = _RETRY_S
            try:
                if await self._turn():
                    wait_s = _LOOK_S
                    self._note_success()
            except AwayError as error:
                log.info("the standby gateway: %s", error)
            except Exception as error:
                wait_s = self._note_failure(error)
            if self._standby is not None:
                self._note(self._standby)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_s)

    def _note_failure(self, error: Exception) -> float:
        """Reports a failure, unless it is the last one again. Returns the seconds to wait before the next attempt.

        That may succeed whatever failed, such as a full disk on the other machine.
        """
        text = error_text(error)
        if text != self._failure:
            log.warning("the standby gateway is not in sync", exc_info=error)
            self._notify(e.Noticed("error", f"the standby gateway is not in sync: {text}"))
        wait_s = min(_RETRY_S * 2.0 ** min(self._failures, 64), _MOST_RETRY_S)
        self._failure, self._failures, self._retry_at_s = text, self._failures + 1, time.monotonic() + wait_s
        return wait_s

    def _note_success(self) -> None:
        """Reports the end of a failure, if there was one and nothing is left to send."""
        if self._failure and self.in_sync:
            self._notify(e.Noticed("standby", "the standby gateway is in sync again"))
            self._failure, self._failures = "", 0

    async def _turn(self) -> bool:
        """Has the standby follow once. Returns False if its node cannot be reached now."""
        cluster, standby, actual = self._cluster, self._standby, self._actual
        node = self._nodes.get(standby.node) if standby is not None else None
        if cluster is None or standby is None or actual is None or node is None or node.away:
            self._said = {}
            return False
        version = self._version
        settled, self._turned = self._turned == version, version
        graphs = tuple(sorted(self._graphs))
        content = standby_content(
            actual, graphs, cluster, self._nodes.remote_workers(), self._nodes.addresses, self._nodes.epoch
        )
        made = await asyncio.to_thread(self._sealed, content, settled) if content is not None else None
        sent = made.json if made is not None else {}
        if sent == self._sent:
            self._said = await node.calls.get("/gateway")
        if sent != self._sent or self._said["order"] != [self._nodes.epoch, self._number]:
            self._sent = None
            self._number += 1
            await self._tell(node, made)
            self._sent = sent
        while not self._changed.is_set():
            self._said = await node.calls.get("/gateway", after=self._number, wait_s=_APPLIED_S)
            if self._said["applied"] == [self._nodes.epoch, self._number]:
                self._served = version
                self._saved = version if settled else self._saved
                if self._behind:
                    self._behind = False
                    self._notify(e.Noticed("standby", f"the standby gateway on node {node.name} follows again"))
                await self._send_copies(node, made)
                break
            if self._said["order"] != [self._nodes.epoch, self._number]:
                # The agent has been restarted, and has forgotten the order.
                break
        return True

    def _sealed(self, content: GatewayContent, settled: bool) -> Sealed:
        now_s, generation = time.monotonic(), self._generation
        if settled or generation != self._copied_generation or now_s - self._copied_at_s >= _COPY_S:
            self._copied, self._copied_at_s, self._copied_generation = self._copy(), now_s, generation
        return sealed_content(content, self._nodes.digest, self._copied, names(self._graphs))

    async def _tell(self, node: RemoteNode, made: Sealed | None) -> None:
        """Gives an order, and sends the files that the node lacks."""
        order = {"number": self._number, "content": made.json if made is not None else None}
        while missing := (answer := await node.calls.post("/gateway", order))["missing"]:
            for digest, arrived in missing.items():
                assert made is not None
                await node.calls.send(digest, made.contents[digest], arrived, lambda: node.away)
        self._lacking = answer.get("later", {})

    async def _send_copies(self, node: RemoteNode, made: Sealed | None) -> None:
        """Sends the files that the next controller needs. The next order does not wait for them.

        After a failure they are sent again at the end of the backoff, however many orders there are meanwhile.
        """
        if time.monotonic() < self._retry_at_s:
            return
        for digest, arrived in tuple(self._lacking.items()):
            assert made is not None
            try:
                await node.calls.send(
                    digest, made.contents[digest], arrived, lambda: node.away or self._changed.is_set()
                )
            except AwayError:
                if not self._changed.is_set():
                    raise
                return
            except JigsawError:
                # An agent whose disk is full removes the part that has arrived.
                self._lacking[digest] = 0
                raise
            del self._lacking[digest]

    async def _end_at(self, name: str) -> None:
        """Ends a standby on a node. One that does not answer ends it when it is reconciled."""
        self._sent, self._said = None, {}
        self._failure, self._failures, self._retry_at_s = "", 0, 0.0
        node = self._nodes.get(name)
        if node is None:
            return
        try:
            async with asyncio.timeout(_END_S):
                self._number += 1
                number = self._number
                await self._tell(node, None)
                while True:
                    said = await node.calls.get("/gateway", after=number, wait_s=_LOOK_S)
                    if said["applied"] == [self._nodes.epoch, number]:
                        return
        except (JigsawError, TimeoutError) as error:
            log.warning("the standby gateway on node %s: %s", name, error)
            text = f"the standby gateway on node {name} has not ended; its agent ends it at the next deploy"
            self._notify(e.Noticed("error", text))
