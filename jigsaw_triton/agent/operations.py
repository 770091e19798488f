"""Operations of a node that take long. A controller that loses the connection asks for their outcome again."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable

from jigsaw_triton.errors import JigsawError, StateError

log = logging.getLogger(__name__)

KEPT = 1000
"""Number of outcomes that are remembered, the latest. A convention: a controller asks for each within seconds."""


class Operations:
    """Runs operations, each once, whatever number of times it is ordered."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[object]] = {}

    def begin(self, number: str, operation: Awaitable[object]) -> None:
        """Begins an operation that has not begun yet."""
        assert number not in self._tasks, "the caller has looked"
        self._tasks[number] = asyncio.ensure_future(operation)
        for old in list(self._tasks)[:-KEPT]:
            if self._tasks[old].done():
                del self._tasks[old]

    def __contains__(self, number: str) -> bool:
        return number in self._tasks

    async def outcome(self, number: str, wait_s: float) -> bool:
        """Waits for the end of an operation. Returns False if it goes on.

        Args:
            number: Number of the operation.
            wait_s: Seconds to wait at most.

        Raises:
            StateError: There is no such operation: the agent has been restarted.
            JigsawError: The operation has failed with this error.
        """
        task = self._tasks.get(number)
        if task is None:
            raise StateError("the agent was restarted during this operation", where=f"operation {number}")
        done, _ = await asyncio.wait((task,), timeout=wait_s)
        if not done:
            return False
        if task.cancelled():
            raise StateError("the operation was cancelled", where=f"operation {number}")
        error = task.exception()
        if isinstance(error, JigsawError):
            raise error
        if error is not None:
            log.error("operation %s failed", number, exc_info=error)
            raise JigsawError(f"{type(error).__name__}: {error}", where=f"operation {number}")
        return True

    async def cancel(self, number: str) -> None:
        """Cancels an operation, and waits until it has undone what it has begun."""
        task = self._tasks.get(number)
        if task is not None and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(asyncio.wait((task,)))
