"""Processes of a deployment, found by their environment.

Each server that a controller starts carries the state folder of its deployment and its own name in its environment,
and passes both on to its children. So the kernel knows the servers of a deployment whatever happens to its files. The
planning process and its solvers are not among them: they end with their controller.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.os_process import start_time

DEPLOYMENT_VARIABLE, SERVER_VARIABLE = "JIGSAW_DEPLOYMENT", "JIGSAW_SERVER"
"""Environment variables with the state folder of a deployment and with the name of one of its servers."""

_DEVICE_VARIABLE = "CUDA_VISIBLE_DEVICES"
_POLL_S = 0.02
_GONE_S = 10.0
"""Seconds that a process may take to end after SIGKILL."""


@dataclass(frozen=True, slots=True)
class Member:
    """A running process of a deployment.

    Attributes:
        pid: Process id.
        started: Start time in kernel ticks since boot. With the id it identifies the process uniquely.
        server: Name of the server that it is, or that it descends from.
        leads: True if it leads a session of its own, as each server does that a controller starts.
        device: UUID of the MIG instance or GPU that it sees; empty if it sees none.
    """

    pid: int
    started: int
    server: str
    leads: bool
    device: str


def marks(state: Path, server: str) -> Mapping[str, str]:
    """Returns the environment variables that make a process and its children members of a deployment.

    Args:
        state: State folder of the deployment.
        server: Name of the server.
    """
    return {DEPLOYMENT_VARIABLE: str(state), SERVER_VARIABLE: server}


def members(state: Path) -> tuple[Member, ...]:
    """Returns the running processes of the deployment with this state folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(
                text.split(b"=", 1) for text in (process / "environ").read_bytes().split(b"\0") if b"=" in text
            )
            if os.fsdecode(variables.get(DEPLOYMENT_VARIABLE.encode(), b"")) != str(state):
                continue
            pid = int(process.name)
            leads = os.getsid(pid) == pid
        except OSError:
            # The process has ended, or belongs to another user.
            continue
        server, device = (os.fsdecode(variables.get(n.encode(), b"")) for n in (SERVER_VARIABLE, _DEVICE_VARIABLE))
        if (started := start_time(pid)) is not None:
            found.append(Member(pid, started, server, leads, device))
    return tuple(found)


def leaders(found: Iterable[Member]) -> dict[str, Member]:
    """Returns the process of each server by name: the oldest that leads a session, since a model may start another."""
    oldest_last = sorted((m for m in found if m.leads), key=lambda m: (m.started, m.pid), reverse=True)
    return {member.server: member for member in oldest_last}


def newest(found: Iterable[Member], server: str) -> Member | None:
    """Returns the process of a server that was started last; None if it has none.

    After a reload of HAProxy, the process before goes on until its last call has ended.
    """
    own = (member for member in found if member.server == server and member.leads)
    return max(own, key=lambda member: (member.started, member.pid), default=None)


def end_members(state: Path, keep: Collection[str] = (), only: Collection[str] | None = None) -> frozenset[str]:
    """Kills the processes of a deployment and waits until they have ended. Blocks.

    Args:
        state: State folder of the deployment.
        keep: Names of the servers whose processes are left alone.
        only: Names of the servers whose processes are killed; None for all others.

    Returns:
        Names of the servers that had a process.

    Raises:
        ServerError: A process does not end.
    """
    ended: set[str] = set()
    give_up_at = time.monotonic() + _GONE_S

    def ends(server: str) -> bool:
        return server not in keep if only is None else server in only

    while left := [member for member in members(state) if ends(member.server)]:
        if time.monotonic() > give_up_at:
            pids = ", ".join(str(member.pid) for member in left)
            raise ServerError(f"processes {pids} did not end after SIGKILL", where=str(state))
        ended |= {member.server for member in left}
        for member in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return frozenset(ended)
