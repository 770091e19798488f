"""The web console of a deployment: starting it as a process that ends with the deployment."""

import sys
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
from jigsaw_triton.errors import StateError
from jigsaw_triton.servers.background_process import started

_MODULE = "jigsaw_triton.console.web.process"

_START_S = 60.0
"""Seconds that a console may take until it answers."""

_POLL_S = 0.05


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
    # -P keeps a folder in the user's working directory from shadowing the package.
    command = [sys.executable, "-P", "-m", _MODULE, str(paths.state), str(port)]
    with started("the console", command, paths.log(LOG)) as process:
        give_up_at = time.monotonic() + _START_S
        while (running := _running(paths)) is None:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise process.failure()
            time.sleep(_POLL_S)
    return running.url


def _running(paths: Paths) -> OpenConsole | None:
    try:
        return running_console(paths)
    except ConsoleHungError:
        return None
