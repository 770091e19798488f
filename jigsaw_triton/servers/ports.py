"""Checks if TCP ports are free, and finds the processes that listen on them."""

import errno
import random
import socket
from contextlib import closing
from pathlib import Path

from jigsaw_triton.errors import InputError

_BELOW_EPHEMERAL = range(20_000, 32_000)
"""Ports below the kernel's ephemeral range, so that no connection takes the port of a server that restarts."""


def check_free(address: str, port: int) -> None:
    """Checks that a port is free by binding it for a moment.

    Raises:
        InputError: Another process listens on the port, the address does not belong to this machine, or binding the
            port needs more privileges.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Servers set this option too: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise _refusal(address, port, error) from error


def free_ports(address: str, count: int) -> list[int]:
    """Returns ports that are free, chosen at random.

    Args:
        address: Address to listen on.
        count: Number of ports.

    Raises:
        InputError: There are not as many.
    """
    found: list[int] = []
    for port in random.sample(_BELOW_EPHEMERAL, len(_BELOW_EPHEMERAL)):
        with closing(socket.socket()) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise InputError("too few ports are free", where=address, hint="stop other servers")


def owner(port: int) -> str:
    """Returns the process that listens on a port: `process 4711 (tritonserver)`; empty if it cannot be determined."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listeners(Path("/proc/net") / table, port)}
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:  # The process belongs to another user or has ended.
            continue
    return ""


def _listeners(table: Path, port: int) -> list[str]:
    """Returns the targets that links to sockets listening on the port have in /proc/<pid>/fd."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]


def _refusal(address: str, port: int, error: OSError) -> InputError:
    where = f"{address}:{port}"
    if error.errno == errno.EADDRINUSE:
        who = owner(port) or "another process"
        return InputError(f"port {port} is already in use by {who}", where=where, hint="stop it or choose another port")
    return InputError(
        f"cannot listen on port {port}: {error.strerror}", where=where, hint="choose another address or port"
    )
