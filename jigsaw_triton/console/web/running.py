"""The console's process as other processes see it: its pages, its port and its socket.

The command line imports this module without the libraries of the process, which take most of the time of a command.
"""

import contextlib
import json
import os
import select
import signal
import socket as sockets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.servers.ports import check_free

LOG = "console"
"""Name of the log of a deployment's own console."""

ASSETS_VARIABLE = "JIGSAW_CONSOLE_ASSETS"
"""Environment variable with another folder of built pages, for work on them."""

_ANSWER_S = 20.0
"""Seconds that a running console may take to answer the command line."""

_END_S = 10.0
"""Seconds that a console may take to end, after which it is killed. It has nothing to save."""

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group at the other end of a Unix socket (`struct ucred`)."""


class ConsoleHungError(StateError):
    """The console is running, but does not answer."""


@dataclass(frozen=True, slots=True)
class OpenConsole:
    """A running console.

    Attributes:
        url: URL that opens it.
        options: Settings of the console, as `ConsoleSettings.to_json` returns them; empty for one of an earlier
            release.
    """

    url: str
    options: Mapping[str, Any]


def assets_dir() -> Path:
    """Returns the folder of the built pages."""
    given = os.environ.get(ASSETS_VARIABLE)
    return Path(given) if given else Path(__file__).parents[1] / "assets"


def check_port(settings: ConsoleSettings) -> None:
    """Checks that the console's port is free.

    Raises:
        InputError: Another process has it, or this user may not listen there.
    """
    try:
        check_free(settings.address, settings.port)
    except InputError as error:
        hint = "choose another one, such as --port 8090, or end that process"
        raise InputError(error.message, where=error.where, hint=hint) from error


def running_console(paths: Paths) -> OpenConsole | None:
    """Returns the running console of a deployment, with a new URL; None if none is running. Blocks.

    Raises:
        ConsoleHungError: The console does not answer.
    """
    request = b"POST /url HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    with sockets.socket(sockets.AF_UNIX) as connection:
        if not _connected(connection, paths):
            return None
        try:
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            found = json.loads(answer.partition(b"\r\n\r\n")[2])
            return OpenConsole(str(found["url"]), found.get("options", {}))
        except TimeoutError as error:
            raise _hung(paths) from error
        except (OSError, ValueError, KeyError):
            # The console is about to end.
            return None


def stop_console(paths: Paths) -> bool:
    """Ends the running console of a deployment, whether it answers or not. Blocks until it has ended.

    Returns:
        True if it ended by itself; False if it had to be killed.

    Raises:
        StateError: None is running, or it cannot be ended from here.
    """
    with sockets.socket(sockets.AF_UNIX) as connection:
        if not _connected(connection, paths):
            hint = "start it with `jigsaw-triton console`, or name another deployment with --state"
            raise StateError("no console is running here", where=str(paths.state), hint=hint)
        # The kernel knows who listens, even if that process hangs.
        options = connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, _CREDENTIALS.size)
        pid = _CREDENTIALS.unpack(options)[0]
    if not pid:
        hint = "end it there, or end that container"
        raise StateError("the console is running in another container", where=str(paths.state), hint=hint)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], _END_S)[0]:
                return number is signal.SIGTERM
    finally:
        os.close(process)
    raise StateError(
        f"process {pid} of the console was killed, but has not ended",
        where=str(paths.state),
        hint="a full or unreachable disk may hold it; `ps` shows what it waits for",
    )


def _connected(connection: sockets.socket, paths: Paths) -> bool:
    """Connects to the running console. Returns False if none listens.

    Raises:
        ConsoleHungError: The console has not accepted the connections before this one.
    """
    connection.settimeout(_ANSWER_S)
    try:
        connection.connect(str(paths.console_socket))
    except (TimeoutError, BlockingIOError) as error:
        raise _hung(paths) from error
    except OSError:
        return False
    return True


def _hung(paths: Paths) -> ConsoleHungError:
    return ConsoleHungError(
        "the console is running, but does not answer",
        where=str(paths.state),
        hint="its log is `jigsaw-triton logs console`; `jigsaw-triton console --stop` ends it",
    )
