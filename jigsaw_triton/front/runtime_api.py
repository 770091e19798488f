"""HAProxy's runtime API: its servers, their states and weights."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from jigsaw_triton.front.haproxy_stats import Servers, parse_servers

_ANSWER_S = 2.0
"""Seconds within which HAProxy answers."""

_MOST_COMMANDS = 100
"""Commands in one request, which must fit into HAProxy's buffer."""


class RuntimeApi:
    """The runtime API of one HAProxy.

    Args:
        socket: Path of its socket.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def servers(self) -> Servers | None:
        """Returns the servers of all backends; None if HAProxy does not answer."""
        answer = await self._ask("show stat -1 4 -1")
        return None if answer is None else parse_servers(answer)

    async def state(self) -> str | None:
        """Returns the states of all servers as text that HAProxy reads when it starts; None if it does not answer."""
        return await self._ask("show servers state")

    async def set_weights(self, weights: Mapping[tuple[str, str], int]) -> None:
        """Sets the weights of servers.

        Args:
            weights: (backend, server) -> weight.
        """
        commands = [f"set weight {backend}/{server} {weight}" for (backend, server), weight in weights.items()]
        for first in range(0, len(commands), _MOST_COMMANDS):
            await self._ask(";".join(commands[first : first + _MOST_COMMANDS]))

    async def _ask(self, command: str) -> str | None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(f"{command}\n".encode())
                    return (await reader.read()).decode()
                finally:
                    writer.close()
        return None
