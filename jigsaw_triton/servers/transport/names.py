"""Addresses of nodes that are known by the names of their hosts. HAProxy resolves these only when it starts."""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import replace

from jigsaw_triton.servers.transport.config import Node

LOOK_S = 30.0
"""Seconds between two looks if a name has another address: the usual lifetime of records that are meant to change."""


class Names:
    """Follows the addresses of hosts, so that HAProxy gets the new one where it has changed since its start."""

    def __init__(self) -> None:
        self._first: dict[str, frozenset[str]] = {}
        self._moved: dict[str, str] = {}

    def look(self, hosts: Iterable[str]) -> None:
        """Resolves names again. Those that cannot be resolved now keep their address. Blocks.

        Args:
            hosts: Names of hosts; addresses are passed over.
        """
        for host in sorted({host for host in hosts if not _is_address(host)}):
            found = resolve(host)
            first = self._first.setdefault(host, found)
            known = frozenset({self._moved[host]}) if host in self._moved else first
            if found and not found & known:
                self._moved[host] = min(found, key=lambda address: (":" in address, address))

    def placed(self, node: Node) -> Node:
        """Returns a node with the address of its host, if that has changed since the first look."""
        return replace(node, host=self._moved.get(node.host, node.host))


def resolve(host: str) -> frozenset[str]:
    """Returns the addresses of a host; none if its name cannot be resolved. Blocks."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # UnicodeError if a label of the name is empty or too long.
        return frozenset()
    return frozenset(str(address[0]) for *_, address in found)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
