"""Tasks that run in the background of an event loop until somebody ends them."""

import asyncio
from typing import Any


async def end_tasks(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels tasks and waits until they have ended, whatever their outcome. None stands for a task that never began.

    If the caller is cancelled meanwhile, the tasks go on with their end, and the caller does not wait for it.
    """
    begun = {task for task in tasks if task is not None}
    for task in begun:
        task.cancel()
    if begun:
        await asyncio.wait(begun)
