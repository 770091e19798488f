"""Deployments for benchmarks, made of the parts of real ones, in temporary folders."""

import asyncio
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.harness import LIMIT_S
from jigsaw_triton.compiler.templates import Template, load_templates
from jigsaw_triton.controller.core.events import Event
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation, Wanted
from jigsaw_triton.controller.core.service import troubles
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.controller.planning.process import PlanningProcess
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.problem import LatencyModel
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.members import members
from jigsaw_triton.servers.os_process import processor_s
from jigsaw_triton.servers.ports import free_ports
from jigsaw_triton.spec.load import load_graph

T = TypeVar("T")

_WAIT_S = 1.0


def run(work: Coroutine[Any, Any, T], limit_s: float = LIMIT_S) -> T:
    """Runs a benchmark. The time limit, SIGTERM and Ctrl-C interrupt it, and it then takes everything down.

    Args:
        work: Coroutine of the benchmark.
        limit_s: Time limit in seconds.

    Raises:
        TimeoutError: The time limit was reached.
    """

    async def limited() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"not done within {limit_s:g} s") from error

    return asyncio.run(limited())


def templates() -> Mapping[str, Template]:
    """Loads all model repository templates."""
    return load_templates(templates_dir())


def read_graph(folder: Path, document: str, files: Mapping[str, str] | None = None) -> TaskGraph:
    """Writes a graph.yaml and its files into a folder, and loads the graph from there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"graph.yaml": document, **(files or {})}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return build_graph(load_graph(folder), templates=frozenset(templates()), require_files=True)


BY_HAND: LatencyModel = "2p95"
"""Latency model of deployments whose profiles are made up so that the plan has certain workers."""


def profile(
    gpu: str, task: str, variant: str, batch: int, p95_ms: float, throughput_rps: float, *, slice_: str = "1g"
) -> ProfileRow:
    """Returns a made-up profile of one instance of a variant on a slice."""
    key = ProfileKey(gpu, task, variant, slice_, 1, batch)
    return ProfileRow(key, p95_ms, p95_ms, p95_ms, throughput_rps, 60.0, "assumed")


def cluster(model: str, count: int = 1) -> Cluster:
    """Returns a cluster of boards with emulated MIG, and a gateway on free ports."""
    return Cluster(tuple(Gpu(GpuId("bench", index), board(model)) for index in range(count)), gateway=gateway_ports())


def gateway_ports() -> GatewayPorts:
    """Returns free ports for a gateway."""
    http, grpc, metrics = free_ports("127.0.0.1", 3)
    return GatewayPorts(http, grpc, metrics)


@contextmanager
def folders() -> Iterator[Paths]:
    """Creates the folders of a deployment, with paths short enough for Unix sockets, and removes them at the end."""
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as state:
        paths = deployment_paths(Path(state))
        try:
            paths.create()
            yield paths
        finally:
            shutil.rmtree(paths.run, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class System:
    """A running controller and its servers.

    Attributes:
        controller: The controller.
        fleet: The servers.
        state: State folder of the deployment.
    """

    controller: Controller
    fleet: Fleet
    state: Path

    @property
    def generation(self) -> Generation:
        """Generation that serves."""
        found = self.controller.state.running
        assert found is not None
        return found

    def processor_s(self) -> float:
        """Returns the processor time that the processes of all servers have used so far, in seconds."""
        return processor_s(member.pid for member in members(self.state))

    async def deploy(self, wanted: Wanted) -> None:
        """Deploys or updates. Returns when the deployment serves.

        Raises:
            ServerError: The deployment failed.
        """
        await self.controller.ask(ChangeRequest(wanted))
        await self.settled()

    async def settled(self) -> None:
        """Returns when the wanted generation serves and no action is in flight.

        Raises:
            ServerError: The deployment failed.
        """
        while (state := self.controller.state).phase is not Phase.READY or state.inflight or state.queued is not None:
            if state.phase is Phase.STOPPED:
                break
            await self.controller.wait_changed(_WAIT_S)
        if state.error or troubles(state) or state.phase is not Phase.READY:
            raise ServerError(f"the deployment failed: {state.error or state.phase}")


@asynccontextmanager
async def system(installation: Installation, settings: Settings | None = None) -> AsyncIterator[System]:
    """Runs a controller without a deployment, and takes everything down at the end.

    Args:
        installation: Installation of tritonserver.
        settings: Settings of the controller; None for the defaults.
    """
    with folders() as paths:
        journal = Journal(paths.journal)
        controller: Controller

        def notify(event: Event) -> None:
            controller.notify(event)

        fleet = Fleet(paths, installation, journal, secrets.token_urlsafe(24), notify)
        with PlanningProcess() as planning:
            executor = Executor(paths, fleet, templates(), journal, planning)
            controller = Controller(executor, fleet, journal, settings or Settings())
            running = asyncio.create_task(controller.run())
            try:
                yield System(controller, fleet, paths.state)
            finally:
                controller.down()
                await running
                journal.close()


@asynccontextmanager
async def lone_server(installation: Installation, ports: GatewayPorts) -> AsyncIterator[Fleet]:
    """Runs one tritonserver without models, started like a gateway, and kills it at the end."""
    with folders() as paths:
        journal = Journal(paths.journal)
        fleet = Fleet(paths, installation, journal, secrets.token_urlsafe(24), lambda _: None)
        try:
            await fleet.gateway.start(ports)
            yield fleet
        finally:
            # With models in Python, Triton takes seconds to stop.
            if (server := fleet.server(fleet.GATEWAY)) is not None:
                server.process.kill()
            await fleet.gateway.stop()
            journal.close()
