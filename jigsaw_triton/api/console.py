"""The web console of a deployment: starting it as a process that ends with the deployment."""

import os
import subprocess
import sys
import threading
import time

from jigsaw_triton.console.web.assets import load_assets
from jigsaw_triton.console.web.running import (
    LOG,
    ConsoleHungError,
    OpenConsole,
    assets_dir,
    check_port,
    running_console,
)
from jigsaw_triton.console.web.settings import PORT, ConsoleSettings
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.servers.logfile import tail

_MODULE = "jigsaw_triton.console.web.process"

_START_S = 60.0
"""Seconds that a console may take until it answers."""

_POLL_S = 0.05
_LOG_LINES = 15


def check_console(paths: Paths, port: int) -> None:
    """Checks that a console could be started, before anything is deployed.

    Raises:
        InputError: The port is in use.
        StateError: The console is running on another port than the one that the user has chosen, or does not answer.
        MissingDependencyError: The pages have not been built.
    """
    running = running_console(paths)
    if running is None:
        load_assets(assets_dir())
        check_port(ConsoleSettings(port=port))
    elif port not in (PORT, running.options.get("port", port)):
        raise StateError(
            f"the console is running already, on port {running.options['port']}",
            where=f"--console {port}",
            hint="leave out the port; or end the console with `jigsaw-triton console --stop`, and try again",
        )


def start_console(paths: Paths, port: int) -> str:
    """Starts the console of a deployment, unless it is running. It ends when the deployment is taken down.

    Args:
        paths: Paths of the deployment.
        port: TCP port to listen on, on this machine alone.

    Returns:
        URL that opens the console once.

    Raises:
        JigsawError: The console did not start.
    """
    if (running := running_console(paths)) is not None:
        return running.url
    log = paths.log(LOG)
    began = log.stat().st_size if log.exists() else 0
    # -P keeps a folder in the user's working directory from shadowing the package.
    command = [sys.executable, "-P", "-m", _MODULE, str(paths.state), str(port)]
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
    deadline = time.monotonic() + _START_S
    while (running := _started(paths)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            lines = "\n".join(f"  {line}" for line in tail(log, _LOG_LINES, since=began))
            raise JigsawError(f"the console did not start; its log ends with:\n{lines}", where=str(log))
        time.sleep(_POLL_S)
    # The console may end while this process lives on: somebody has to collect its exit status.
    threading.Thread(target=process.wait, daemon=True).start()
    return running.url


def _started(paths: Paths) -> OpenConsole | None:
    try:
        return running_console(paths)
    except ConsoleHungError:
        return None
