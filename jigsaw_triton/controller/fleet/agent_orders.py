"""Orders to the agent of a node: each is carried out once, whatever happens to the connection."""

import asyncio
import itertools
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from jigsaw_triton.controller.fleet.agent_calls import AgentCalls, AwayError
from jigsaw_triton.controller.fleet.wire import Json, Sealed
from jigsaw_triton.errors import JigsawError, StateError

HEADLESS_S = 60.0
"""Seconds without an answer of its agent after which a node counts as lost although its workers can be called. An agent
that is restarted answers sooner. Longer, and workers that die there would be missed."""

RETRY_S = 0.2
"""Seconds between two tries of a call that an agent does not answer."""

_UNDO_S = 60.0
"""Seconds that a cancelled operation may take to undo what it has begun."""

_OUTCOME_S = 2.0
"""Seconds that the agent waits for the end of an operation before it answers that it goes on."""

_REPEATABLE = frozenset({"serve-on", "retire", "unload", "kill"})
"""Operations that may be carried out twice, so that one whose outcome is lost is ordered again."""

_RECONCILE = "adopt"
"""Operation that reconciles a node."""


class AgentOrders:
    """Orders operations from the agent of a node, and sends the files that they need.

    An agent accepts orders only once it has been reconciled with the controller, and only those that were given
    since. So orders wait while the node is being reconciled, and are given anew after it unless they have begun.

    Args:
        node: Name of the node, for messages.
        calls: Client of the agent.
        is_lost: Function that returns True if the node counts as lost. Orders then fail.
        doubt: Callback for a node that may have done more than is known, and must be reconciled when it answers.
    """

    def __init__(self, node: str, calls: AgentCalls, is_lost: Callable[[], bool], doubt: Callable[[], None]) -> None:
        self._node = node
        self._calls = calls
        self._is_lost = is_lost
        self._doubt = doubt
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._reconciling = asyncio.Lock()
        self._line = ""
        self._sending: dict[str, asyncio.Event] = {}
        self._sent: dict[str, int] = {}

    @asynccontextmanager
    async def reconciling(self) -> AsyncIterator[None]:
        """Keeps other orders waiting inside the `with` block. If it fails, the node has to be reconciled again."""
        async with self._reconciling:
            try:
                yield
            except BaseException:
                self._doubt()
                raise

    async def reconcile(self, body: Json, made: Sealed, wait_limit_s: float) -> bool:
        """Reconciles the node; the caller is inside `reconciling`. Orders from before are stale from then on.

        Args:
            body: Cluster and workers that the node is to have.
            made: Files of the workers.
            wait_limit_s: Seconds to wait for an agent that does not answer.

        Returns:
            True if the node is in sync; False if the agent has ended meanwhile.
        """
        self._line = f"{self._prefix}.{next(self._numbers)}"
        order = {**body, "line": self._line}
        return await self._order(_RECONCILE, order, made, line=self._line, wait_limit_s=wait_limit_s)

    async def operate(self, kind: str, body: Json, made: Sealed | None = None) -> None:
        """Has the agent carry out an operation exactly once, or at least once if it may be repeated.

        Args:
            kind: Name of the operation.
            body: Arguments of the operation.
            made: Files that it needs; None if it needs none.

        Raises:
            AwayError: The node is lost. Whatever it has done is undone when it is back.
            JigsawError: The operation failed and left nothing behind.
        """
        while not await self._order(kind, body, made):
            if kind not in _REPEATABLE:
                raise StateError("the node was reconciled during this operation", where=f"node {self._node}")

    async def _order(
        self, kind: str, body: Json, made: Sealed | None, *, line: str = "", wait_limit_s: float | None = None
    ) -> bool:
        """Orders an operation and waits for its end, whatever happens to the connection.

        Args:
            kind: Name of the operation.
            body: Arguments of the operation.
            made: Files that it needs; None if it needs none.
            line: Name of the reconciliation that this order begins; empty for any other order.
            wait_limit_s: Seconds to wait for an agent that does not answer, unless the node is lost before; None for
                HEADLESS_S.

        Returns:
            True if the operation was carried out. False if the node has been reconciled since it began.
        """
        path, known, begun, give_up_at = "", "", False, math.inf
        try:
            while True:
                try:
                    if not begun:
                        current = line or await self._last_line()
                        if current != known:
                            path, known = f"/operations/{self._prefix}.{next(self._numbers)}", current
                        begun = await self._begin(path, {"kind": kind, "body": body, "line": known}, made)
                    else:
                        found = await self._calls.get(path, wait_s=_OUTCOME_S)
                        if found["done"] or not found["known"]:
                            return bool(found["done"]) and known in (line, self._line)
                    give_up_at = math.inf
                except AwayError:
                    wait_s = HEADLESS_S if wait_limit_s is None else wait_limit_s
                    give_up_at = min(give_up_at, time.monotonic() + wait_s)
                    if self._is_lost() or time.monotonic() > give_up_at:
                        self._doubt()
                        raise
                    await asyncio.sleep(RETRY_S)
        except asyncio.CancelledError:
            if path:
                try:
                    await asyncio.shield(self._calls.call("DELETE", path, timeout_s=_UNDO_S))
                except JigsawError:
                    self._doubt()
            raise

    async def _last_line(self) -> str:
        """Waits while the node is being reconciled. Returns the name of the last reconciliation."""
        async with self._reconciling:
            return self._line

    async def _begin(self, path: str, order: Json, made: Sealed | None) -> bool:
        """Gives an order, and sends the files that are missing. Returns False if it must be given once more.

        Raises:
            AwayError: The agent does not answer, or must be reconciled first.
        """
        asked = next(self._numbers)
        found = await self._calls.post(path, order)
        if found["stale"]:
            if order["line"] == self._line:
                self._doubt()
            raise AwayError("the agent must be reconciled first", where=f"node {self._node}")
        # A node that is lost is reconciled once it is back.
        is_lost = (lambda: False) if order["kind"] == _RECONCILE else self._is_lost
        for digest, arrived in found["missing"].items():
            if made is None or digest not in made.contents:
                message = f"neither the controller nor the node has the file with the SHA-256 {digest}"
                raise StateError(message, where=f"node {self._node}")
            if digest in self._sending:
                # Workers that start together often share weights. The order is given once more after this transfer, and
                # sends the file itself if the transfer has failed.
                await self._sending[digest].wait()
                continue
            if self._sent.get(digest, 0) > asked:
                # The file arrived while the agent's response was on its way.
                continue
            self._sending[digest] = sent = asyncio.Event()
            try:
                await self._calls.send(digest, made.contents[digest], arrived, is_lost)
                self._sent[digest] = next(self._numbers)
            finally:
                del self._sending[digest]
                sent.set()
        return not found["missing"]
