"""A deployment whose controller is a process of its own with a supervisor, as `deploy --detach` leaves it.

The deployment serves the application of `replans`: each answer shows its request and the variants that made it.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import system
from benchmarks.controller.replans import BOARD, GRAPH, MODEL, ROWS, Target, profiles
from jigsaw_triton.api.deploying import deploy
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.console.client import ControllerHungError
from jigsaw_triton.errors import ServerError
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.servers.members import leaders, members
from jigsaw_triton.servers.os_process import start_time

NAME = "bench"
"""Name of the graph."""

WAIT_LIMIT_S = 120.0
"""Seconds after which a wait for the deployment has failed."""

_GPUS = f"2x{BOARD}"
_POLL_S = 0.02


class Supervised:
    """A running deployment.

    Args:
        folder: Folder of the application, which `update` writes.
        state: State folder of the deployment.

    Attributes:
        deployment: The deployment.
        ports: Ports of its gateway.
    """

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self.deployment = Deployment(state)
        self.ports = system.gateway_ports()

    @property
    def url(self) -> str:
        """Address of the gateway over gRPC."""
        return f"127.0.0.1:{self.ports.grpc}"

    def update(self, target: Target) -> None:
        """Deploys or updates, and waits until the change has ended. Blocks.

        Raises:
            JigsawError: The change failed.
        """
        document = GRAPH.format(slo_ms=target.slo_ms, accuracy=target.accuracy, rows=ROWS, log=self._folder / "log")
        self._folder.mkdir(exist_ok=True)
        files = {"graph.yaml": document, "model.py": MODEL, "profiles.csv": write_profiles(profiles(target).rows())}
        for name, text in files.items():
            (self._folder / name).write_text(text, encoding="utf-8")
        deploy(
            self._folder,
            demand=target.demand_rps,
            gpus=_GPUS,
            driver="emulated",
            http=self.ports.http,
            grpc=self.ports.grpc,
            metrics=self.ports.metrics,
            latency_model=system.BY_HAND,
            state=self.deployment.paths.state,
        )

    def status(self) -> dict[str, Any] | None:
        """Returns the status; None if no controller answers."""
        with contextlib.suppress(ControllerHungError):
            return self.deployment.find_status()
        return None

    def controller(self) -> int | None:
        """Returns the process id of the controller; None if none runs."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.deployment.paths.lock.read_text())
            return pid if start_time(pid) is not None else None
        return None

    def servers(self) -> dict[str, int]:
        """Returns the process ids of the gateway and the workers by name."""
        return {name: leader.pid for name, leader in leaders(members(self.deployment.paths.state)).items()}

    async def wait(self, reached: Callable[[], bool], what: str) -> float:
        """Waits until the deployment is in a state. Returns the seconds that this took.

        Raises:
            ServerError: The deployment does not reach the state in time.
        """
        began_s = time.monotonic()
        while not await asyncio.to_thread(reached):
            if time.monotonic() > began_s + WAIT_LIMIT_S:
                raise ServerError(f"{what} not within {WAIT_LIMIT_S:g} s", where=str(self.deployment.paths.state))
            await asyncio.sleep(_POLL_S)
        return time.monotonic() - began_s

    def events(self, count: int = 30) -> list[str]:
        """Returns the last events, one line each."""
        return [f"{event.at} {event.kind}: {event.text}" for event in self.deployment.events(limit=count)]


def is_settled(status: dict[str, Any] | None) -> bool:
    """True if everything serves and no change is in progress."""
    return (
        status is not None
        and status["state"] == "ready"
        and status["serving"]
        and not status["degraded"]
        and all(worker["state"] == "ready" for worker in status["workers"])
    )


@asynccontextmanager
async def supervised() -> AsyncIterator[Supervised]:
    """Makes room for a deployment, and takes it down at the end."""
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as folder:
        running = Supervised(Path(folder) / "app", Path(folder) / "state")
        try:
            yield running
        finally:
            await asyncio.shield(asyncio.to_thread(running.deployment.down, missing_ok=True))


def kill(pid: int, number: int) -> bool:
    """Sends a signal. Returns False if the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
