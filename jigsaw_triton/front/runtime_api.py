"""HAProxy's runtime API: its servers, their states and weights."""

from collections.abc import Mapping
from pathlib import Path

from jigsaw_triton.front.haproxy_stats import Servers, parse_servers
from jigsaw_triton.servers.haproxy.admin import ask

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
        answer = await ask(self._socket, "show stat -1 4 -1")
        return None if answer is None else parse_servers(answer)

    async def state(self) -> str | None:
        """Returns the states of all servers as text that HAProxy reads when it starts; None if it does not answer."""
        return await ask(self._socket, "show servers state")

    async def set_weights(self, weights: Mapping[tuple[str, str], int]) -> None:
        """Sets the weights of servers.

        Args:
            weights: (backend, server) -> weight.
        """
        commands = [f"set weight {backend}/{server} {weight}" for (backend, server), weight in weights.items()]
        for first in range(0, len(commands), _MOST_COMMANDS):
            await ask(self._socket, ";".join(commands[first : first + _MOST_COMMANDS]))
