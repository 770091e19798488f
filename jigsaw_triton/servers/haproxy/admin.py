"""Questions to HAProxy over its admin socket."""

import asyncio
import contextlib
from pathlib import Path

_ANSWER_S = 2.0
"""Seconds within which HAProxy answers."""


async def ask(socket: Path, command: str) -> str | None:
    """Returns HAProxy's answer to a command; None if it does not answer.

    Args:
        socket: Path of its admin socket.
        command: Command, or several separated by semicolons.
    """
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(f"{command}\n".encode())
                return (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    return None
