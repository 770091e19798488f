"""The console's process as other processes see it: its pages, its port and its socket.

The command line imports this module without the libraries of the process, which take most of the time of a command.
"""

import json
import os
import socket
from pathlib import Path

from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.ports import check_free

ASSETS_VARIABLE = "JIGSAW_CONSOLE_ASSETS"
"""Environment variable with another folder of built pages, for work on them."""

_ANSWER_S = 20.0
"""Seconds that a running console may take to answer the command line."""


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


def running_console(paths: Paths) -> str | None:
    """Returns a URL that opens the running console of a deployment; None if none is running. Blocks."""
    request = b"POST /url HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(paths.console_socket))
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["url"])
    except (OSError, ValueError, KeyError):
        return None
