"""Following of a node behind an agent: what runs there, what happens to it, and whether it is lost or back."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls, AwayError
from jigsaw_triton.controller.fleet.agent_orders import HEADLESS_S, RETRY_S
from jigsaw_triton.controller.fleet.running import Running, read_running
from jigsaw_triton.controller.fleet.succession import ReplacedError, Succession, has_ended
from jigsaw_triton.controller.fleet.wire import Json, NodeEvent, read_event
from jigsaw_triton.errors import JigsawError, StateError, error_text

log = logging.getLogger(__name__)

AWAY_S = 4.0
"""Seconds without an answer after which a node counts as lost. Short pauses of its processor or of the network pass."""

PULSE_S = 1.0
"""Seconds that the agent waits for news before it answers."""

_PULSE_TIMEOUT_S = 2.0
"""Seconds that its answer may take in addition."""


class Following:
    """Follows a node by the pulse of its agent, and has it reconciled when it is back.

    Args:
        name: Name of the node.
        calls: Client of its agent.
        notify: Callback for events that concern its workers.
        reachable: Function that returns True if the node itself answers, whether or not its agent does.
        changed: Callback for workers that begin or end, and for a node that is lost or back.
        succession: Place of this controller among those of its deployment.
        reconcile: Function that reconciles the node, which includes `meet`.
        running: Workers that ran there when an earlier controller last knew.

    Attributes:
        away: True if the node does not answer.
        headless: True if the node serves, but its agent does not answer.
        known_running: Workers that ran there when it last answered.
    """

    def __init__(
        self,
        name: str,
        calls: AgentCalls,
        notify: Callable[[NodeEvent], None],
        reachable: Callable[[], Awaitable[bool]],
        changed: Callable[[], Awaitable[None]],
        succession: Succession,
        reconcile: Callable[[], Awaitable[None]],
        running: Mapping[str, Running],
    ) -> None:
        self.away = False
        self.headless = False
        self.known_running = running
        self._name = name
        self._calls = calls
        self._notify = notify
        self._reachable = reachable
        self._changed = changed
        self._succession = succession
        self._reconcile = reconcile
        self._agent = ""
        self._last = 0
        self._seen_at = 0
        self._task: asyncio.Task[None] | None = None
        self._heard_s = time.monotonic()

    @property
    def unanswered_s(self) -> float:
        """Seconds since the agent last answered."""
        return time.monotonic() - self._heard_s

    async def describe(self) -> Json:
        """Returns what the agent says of its node. Unlike other calls, this commands nothing.

        Raises:
            AwayError: The agent does not answer.
        """
        found: Json = await self._calls.get("/node")
        self._heard_s = time.monotonic()
        return found

    def begin(self) -> None:
        """Begins to follow the node."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name=f"follow node {self._name}")

    async def stop(self) -> None:
        """Stops following the node."""
        await end_tasks(self._task)
        self._task = None

    async def meet(self) -> None:
        """Takes the agent that runs there now for the one that is followed, from the present on."""
        found = await self._calls.get("/pulse")
        self._agent, self._last, self._seen_at = found["agent"], found["last"], 0

    async def look(self) -> None:
        """Looks at once what runs, so that a new process can be called when this returns."""
        with contextlib.suppress(AwayError):
            await self._heard(await self._calls.get("/pulse", after=self._last))

    def doubt(self) -> None:
        """Notes that the node may have done more than is known, so that it is reconciled when it answers."""
        self._agent = ""

    def lose_at_first(self, error: JigsawError) -> None:
        """Notes that the node is lost from the start. Whoever calls this links no workers yet."""
        self.away = True
        self._notify(e.Noticed("error", f"node {self._name} is lost: {error}"))

    async def _follow(self) -> None:
        """Follows the events of the node, and notices when it is lost or back."""
        self._heard_s = in_sync_s = time.monotonic()
        said = ""
        while True:
            try:
                found = await self._pulse()
                if found is None or self.away or found["agent"] != self._agent:
                    await self._reconcile()
                    await self._back()
                else:
                    await self._heard(found)
                self._note_agent(answers=True)
                self._heard_s = in_sync_s = time.monotonic()
                said = ""
            except AwayError as error:
                unanswered_s = self.unanswered_s
                if not self.away and await self._is_lost(unanswered_s):
                    await self._lose(error.message)
                elif not self.away and unanswered_s > AWAY_S:
                    self._note_agent(answers=False)
                await asyncio.sleep(RETRY_S)
            except ReplacedError as error:
                return self._succession.give_way(error)
            except Exception as error:
                # An agent that refuses, or that says what this release cannot read, must not end the following.
                text = error_text(error)
                if text != said:
                    log.warning("node %s", self._name, exc_info=error)
                    self._notify(e.Noticed("error", f"node {self._name} cannot be reconciled: {text}"))
                    said = text
                if not self.away and time.monotonic() - in_sync_s > HEADLESS_S:
                    await self._lose(text)
                await asyncio.sleep(PULSE_S)

    async def _pulse(self) -> Json | None:
        """Waits for news of the node. Returns None if it has to be reconciled first.

        Raises:
            StateError: Another controller commands the node.
        """
        if self.away:
            # A command, such as this call, would end the epoch of a controller that may have come meanwhile.
            return None
        try:
            found: Json = await self._calls.get("/pulse", wait_s=PULSE_S, timeout_s=_PULSE_TIMEOUT_S, after=self._last)
        except StateError:
            described = await self.describe()
            # Reconciling it raises an error if this controller was replaced.
            if not has_ended(described) and not self._succession.is_fenced(described):
                raise
            return None
        self._heard_s = time.monotonic()
        return found

    def _note_agent(self, *, answers: bool) -> None:
        """Notes whether the agent answers. While it does not, its workers serve on for a while."""
        if self.headless and answers:
            self._notify(e.Noticed("node", f"the agent of node {self._name} answers again"))
        elif not self.headless and not answers:
            text = f"the agent of node {self._name} does not answer; its workers serve on for up to {HEADLESS_S:.0f} s"
            self._notify(e.Noticed("error", text))
        self.headless = not answers

    async def _lose(self, reason: str) -> None:
        self.away, self.headless = True, False
        self._notify(e.Noticed("error", f"node {self._name} is lost: {reason}"))
        await self._changed()

    async def _back(self) -> None:
        """Notes that the node is in sync. Its workers can be called again, also those that have run all the time."""
        if self.away:
            self.away = False
            self._notify(e.Noticed("gpu", f"node {self._name} is back"))
            await self._changed()

    async def _is_lost(self, unanswered_s: float) -> bool:
        """Returns True if the node counts as lost, given the seconds since its agent last answered."""
        return unanswered_s > HEADLESS_S or (unanswered_s > AWAY_S and not await self._reachable())

    async def _heard(self, found: Json) -> None:
        if found["agent"] != self._agent or found["at"] < self._seen_at:
            return
        self._seen_at = found["at"]
        for number, event in found["events"]:
            if number > self._last:
                self._notify(read_event(event))
        self._last = max(self._last, found["last"])
        running = read_running(found["workers"])
        if running != self.known_running:
            self.known_running = running
            await self._changed()
