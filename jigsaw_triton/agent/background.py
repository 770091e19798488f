"""Starts an agent in the background, and ends it. Imports nothing of what an agent runs."""

import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

from jigsaw_triton.controller.persistence.lock import end_owner, is_locked
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.servers.background_process import started

READY_VARIABLE = "NOTIFY_SOCKET"
"""Environment variable with the socket to which an agent reports that it listens, by systemd's protocol (sd_notify)."""

_START_S, _END_S = 120.0, 20.0
"""Seconds that an agent may take until it listens, and until it has ended after SIGTERM."""

_READY = b"READY=1"
_POLL_S = 0.2


def start_agent(paths: Paths, command: Sequence[str]) -> int:
    """Starts an agent in the background, in a session of its own, and waits until it listens.

    Args:
        paths: Paths of the node's files, created if missing.
        command: Command line of the agent, which calls `run_agent`.

    Returns:
        Id of its process.

    Raises:
        JigsawError: The agent did not start; the error has the end of its log.
    """
    paths.create()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        # An abstract address: no file is left, whatever happens.
        address = f"jigsaw-triton-{secrets.token_hex(16)}"
        ready.bind(f"\0{address}")
        ready.settimeout(_POLL_S)
        with started("the agent", command, paths.log("agent"), {READY_VARIABLE: f"@{address}"}) as process:
            give_up_at = time.monotonic() + _START_S
            while process.poll() is None and time.monotonic() < give_up_at:
                with suppress(TimeoutError):
                    if ready.recv(len(_READY)) == _READY:
                        return process.pid
            error = process.failure()
            error.exit_code = process.poll() or JigsawError.exit_code
            raise error


def end_agent(paths: Paths) -> None:
    """Ends the agent that runs with this folder, if there is one. Its workers go on. Blocks.

    Raises:
        StateError: A controller runs there, or the agent does not end.
    """
    if is_locked(paths.supervisor_lock):
        hint = "give each agent its own folder with --state"
        raise StateError("a controller is running here", where=str(paths.state), hint=hint)
    end_owner(paths.lock, _END_S)


def announce(address: str) -> None:
    """Sends whoever started the agent the message that it listens, by systemd's protocol.

    Args:
        address: Path of a socket, or an abstract address after `@`; empty if nobody waits.
    """
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
            teller.sendto(_READY, f"\0{address[1:]}" if address.startswith("@") else address)
