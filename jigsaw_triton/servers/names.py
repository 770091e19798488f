"""Addresses of hosts that are known by their names. HAProxy resolves these only when it starts."""

import ipaddress
import socket
from collections.abc import Iterable, Mapping

LOOK_S = 30.0
"""Seconds between two looks if a name has another address: the usual lifetime of records that are meant to change."""


class Names:
    """Follows the addresses of hosts.

    Args:
        known: Host -> address in use, if every name is replaced by an address; None if HAProxy resolves the names when
            it starts, so that only those are replaced whose address has changed since.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self._replaces_all = known is not None
        self._first: dict[str, frozenset[str]] = {}
        self._moved: dict[str, str] = dict(known or {})

    def look(self, hosts: Iterable[str]) -> None:
        """Resolves names again. Those that cannot be resolved now keep their address. Blocks.

        Args:
            hosts: Names of hosts; addresses are passed over.
        """
        for host in sorted({host for host in hosts if not is_address(host)}):
            found = resolve(host)
            first = self._first.setdefault(host, frozenset() if self._replaces_all else found)
            known = frozenset({self._moved[host]}) if host in self._moved else first
            if found and not found & known:
                self._moved[host] = min(found, key=lambda address: (":" in address, address))

    def address(self, host: str) -> str:
        """Returns the address that replaces a host, and else its name."""
        return self._moved.get(host, host)


def resolve(host: str) -> frozenset[str]:
    """Returns the addresses of a host; none if its name cannot be resolved. Blocks."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # UnicodeError if a label of the name is empty or too long.
        return frozenset()
    return frozenset(str(address[0]) for *_, address in found)


def is_address(host: str) -> bool:
    """Returns True if a host is given by its IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
