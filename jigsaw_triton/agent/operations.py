"""Operations of a node that take long. A controller that loses the connection asks for their outcome again."""

import asyncio
import logging
from collections.abc import Awaitable

from jigsaw_triton.errors import JigsawError, ServerError, StateError

log = logging.getLogger(__name__)

KEPT = 1000
"""Number of outcomes that are remembered, the latest. A convention: a controller asks for each within seconds."""


_UNDO_S = 10.0
"""Seconds to wait for operations that are ended to undo what they have begun. They do so in any case."""


class Operations:
    """Runs operations, each once, whatever number of times it is ordered."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Future[object]] = {}
        self._final: set[str] = set()

    def begin(self, number: str, operation: Awaitable[object], *, final: bool = False) -> None:
        """Begins an operation that has not begun yet.

        Args:
            number: Number of the operation.
            operation: The operation.
            final: True if it cannot be undone, so that `end_others` lets it go on.
        """
        assert number not in self._tasks, "the caller has looked"
        self._tasks[number] = asyncio.ensure_future(operation)
        if final:
            self._final.add(number)
        for old in list(self._tasks)[:-KEPT]:
            if self._tasks[old].done():
                del self._tasks[old]
                self._final.discard(old)

    def __contains__(self, number: str) -> bool:
        return number in self._tasks

    async def outcome(self, number: str, wait_s: float) -> bool:
        """Waits for the end of an operation. Returns False if it goes on.

        Args:
            number: Number of the operation.
            wait_s: Seconds to wait at most.

        Raises:
            JigsawError: The operation has failed with this error, or was cancelled.
        """
        task = self._tasks[number]
        done, _ = await asyncio.wait((task,), timeout=wait_s)
        if not done:
            return False
        if task.cancelled():
            raise StateError("the operation was cancelled", where=f"operation {number}")
        error = task.exception()
        if isinstance(error, JigsawError):
            raise error
        if isinstance(error, OSError):
            where = f"{error.filename or 'the files of the agent'}"
            hint = "free space on the disk of this node, and check the permissions there"
            raise ServerError(f"a file cannot be written or read ({error.strerror})", where=where, hint=hint) from error
        if error is not None:
            log.error("operation %s failed", number, exc_info=error, extra={"request": number})
            raise JigsawError(f"{type(error).__name__}: {error}", where=f"operation {number}")
        return True

    async def cancel(self, number: str) -> None:
        """Cancels an operation, and waits until it has undone what it has begun. One that comes later never begins."""
        task = self._tasks.setdefault(number, asyncio.get_running_loop().create_future())
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))

    async def end_others(self) -> None:
        """Cancels the operations that can be undone, and waits a while until they are.

        Whoever has ordered them has given them up, or has been replaced.
        """
        others = {task for number, task in self._tasks.items() if number not in self._final and not task.done()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_UNDO_S)
