"""Waits for conditions that other tasks, threads and processes fulfil."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

WAIT_LIMIT_S = 120.0
"""Seconds after which a test fails whose condition is still false. All of them become true much sooner, but tests also
run on busy machines."""

_POLL_S, _MOST_POLL_S = 0.002, 0.05
"""First and longest pause between two looks at a condition."""

_IDLE = 9
"""Pause after a look at a condition, as a multiple of its processor time, if that is longer."""

_POLL_OF_LOOP_S = 0.005

Value = TypeVar("Value")


async def until(condition: Callable[[], object]) -> None:
    """Waits until a condition is true, while the other tasks of the event loop go on."""
    async with asyncio.timeout(WAIT_LIMIT_S):
        while not condition():  # noqa: ASYNC110 - most conditions have no event
            await asyncio.sleep(_POLL_OF_LOOP_S)


def eventually(condition: Callable[[], Value | None], said: Callable[[], object] = lambda: "") -> Value:
    """Waits until a condition is true, and returns its value. Blocks.

    Args:
        condition: Returns a true value once the condition holds.
        said: Returns what explains the failure if it never does.
    """
    give_up_at, pause_s = time.monotonic() + WAIT_LIMIT_S, _POLL_S
    while True:
        began_s = time.thread_time()
        if found := condition():
            return found
        assert time.monotonic() < give_up_at, f"the condition was still false after {WAIT_LIMIT_S:g} s; {said()}"
        # Some conditions look at all processes of the machine. What other threads compute meanwhile does not count.
        time.sleep(max(pause_s, _IDLE * (time.thread_time() - began_s)))
        pause_s = min(2 * pause_s, _MOST_POLL_S)
