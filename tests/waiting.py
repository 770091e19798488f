"""Waits for conditions that other tasks, threads and processes fulfil."""

import asyncio
import time
from collections.abc import Callable

WAIT_LIMIT_S = 60.0
"""Seconds after which a test fails whose condition is still false. All of them become true much sooner, but tests also
run on busy machines."""

_POLL_S = 0.005


async def until(condition: Callable[[], object]) -> None:
    """Waits until a condition is true, while the other tasks of the event loop go on."""
    async with asyncio.timeout(WAIT_LIMIT_S):
        while not condition():  # noqa: ASYNC110 - most conditions have no event
            await asyncio.sleep(_POLL_S)


def eventually(condition: Callable[[], object]) -> None:
    """Waits until a condition is true. Blocks."""
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"the condition was still false after {WAIT_LIMIT_S:g} s"
        time.sleep(_POLL_S)
