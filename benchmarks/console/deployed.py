"""A small deployment with a web console, as both parts of the benchmark that need one start it."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.api.deploying import deploy
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.commands.init import SKELETON
from jigsaw_triton.console.web.running import ASSETS_VARIABLE, running_console
from jigsaw_triton.servers.ports import free_ports

_MODULE = "jigsaw_triton.console.web.process"

START_S = 60.0
"""Seconds that the console may take to start."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment of the skeleton's graph, and the process of its console.

    Attributes:
        deployment: The deployment.
        console: Id of the console's process.
        http: HTTP port of the gateway.
    """

    deployment: Deployment
    console: int
    http: int

    def url(self) -> str:
        """Returns a URL that opens the console, once it is running. Blocks."""
        deadline = time.monotonic() + START_S
        while (found := running_console(self.deployment.paths)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("the console did not start")
            time.sleep(0.05)
        return found.url


@asynccontextmanager
async def deployed(demand_rps: float, *, pages: bool) -> AsyncIterator[Deployed]:
    """Deploys inside the `with` block.

    Args:
        demand_rps: Demand of the graph.
        pages: True for a console with its built pages; False for one with an empty page.
    """
    with tempfile.TemporaryDirectory(prefix="jigsaw-console-") as name:
        folder = Path(name)
        shutil.copytree(SKELETON, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        environment = dict(os.environ)
        if not pages:
            (folder / "pages").mkdir()
            (folder / "pages" / "index.html").write_text("<title>console</title>")
            environment[ASSETS_VARIABLE] = str(folder / "pages")
        http, grpc, metrics, port = free_ports("127.0.0.1", 4)
        deployment = await asyncio.to_thread(
            deploy,
            folder / "app",
            demand=demand_rps,
            gpus="2xcpu",
            state=folder / "state",
            http=http,
            grpc=grpc,
            metrics=metrics,
        )
        command = [sys.executable, "-m", _MODULE, str(deployment.paths.state), str(port)]
        try:
            console = await asyncio.create_subprocess_exec(*command, env=environment)
            try:
                yield Deployed(deployment, console.pid, http)
            finally:
                console.terminate()
                await console.wait()
        finally:
            await asyncio.to_thread(deployment.down, missing_ok=True)
