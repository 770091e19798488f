"""Systems under load: graphs behind a gateway with workers, and the same models as native ensembles in one server."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from benchmarks import system
from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import ensemble
from jigsaw_triton.compiler.bundle import ModelFolder, TaskFront, WorkerModel
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.compiler.templates import CONFIG_FILE
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.evaluation.load import EmptyWindowError, Load, Measured, request_tensors
from jigsaw_triton.evaluation.perf_analyzer import LoadRun
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.os_process import processor_s
from jigsaw_triton.servers.process import group_members

BATCH = 64

LONG_S = 10.0
"""Seconds of a measurement in which each window of perf_analyzer has finished requests, even on a busy machine."""

SETTINGS = Settings(rise_over=inf, fall_under=0.0, restart_window_s=1.0)
"""Settings of a controller that restarts dead servers without limit, and ignores changes of the load."""


@dataclass(frozen=True, slots=True)
class Side:
    """A system under load.

    Attributes:
        graph: Graph as clients see it.
        ports: Ports of the server that serves the graph.
        fleet: Servers that do the work of the graph.
    """

    graph: TaskGraph
    ports: GatewayPorts
    fleet: Fleet

    def load(self, analyzer: Path, folder: Path, clients: int, seconds: float) -> Measured:
        """Loads the graph with perf_analyzer over gRPC. Blocks.

        Args:
            analyzer: Path of perf_analyzer.
            folder: Folder for its files.
            clients: Number of requests in flight.
            seconds: Approximate duration.

        Raises:
            ServerError: perf_analyzer failed.
        """
        url = f"{self.ports.address}:{self.ports.grpc}"
        run = LoadRun(analyzer, Load(self.graph.name, "grpc", url, clients, duration_s=seconds), folder)
        run.prepare(request_tensors(self.graph)[0])
        try:
            return run.measure()
        except EmptyWindowError:
            # In a smoke run on a busy machine, the short windows may be empty.
            if seconds >= LONG_S:
                raise
            return self.load(analyzer, folder, clients, 3 * seconds)

    def cpu_s(self) -> float:
        """Returns the processor time that the servers and their model processes have used so far, in seconds."""
        return processor_s(member for pid in self.fleet.pids() for member in group_members(pid))


def one_worker_per_task(graphs: Iterable[TaskGraph], cluster: Cluster, *, share: bool = False) -> Wanted:
    """Returns a deployment whose profiles give each task exactly one worker, whatever the load.

    Args:
        graphs: Graphs to serve.
        cluster: Cluster to serve on.
        share: True if tasks may share a worker.
    """
    by_name = {graph.name: graph for graph in graphs}
    tasks = dict.fromkeys(task for graph in by_name.values() for task in graph.tasks)
    rows = ProfileTable(system.profile("cpu", task, "only", BATCH, 1.0, 1e6) for task in tasks)
    return Wanted(
        by_name,
        dict.fromkeys(by_name, 1.0),
        dict.fromkeys(by_name, rows),
        cluster,
        share=share,
        latency_model=system.BY_HAND,
    )


@asynccontextmanager
async def behind_gateway(installation: Installation, wanted: Wanted) -> AsyncIterator[dict[str, Side]]:
    """Runs a deployment with workers and a gateway. Yields the side of each graph."""
    async with system.system(installation, SETTINGS) as running:
        await running.deploy(wanted)
        yield _sides(wanted.graphs, wanted.cluster, running.fleet)


@asynccontextmanager
async def native(
    installation: Installation, models: Sequence[ModelFolder], graphs: Mapping[str, TaskGraph], cluster: Cluster
) -> AsyncIterator[dict[str, Side]]:
    """Runs one server with these models. Yields the side of each graph."""
    async with system.lone_server(installation, cluster.gateway) as server:
        await server.gateway.load(models)
        yield _sides(graphs, cluster, server)


def native_ensembles(wanted: Wanted, backends: frozenset[str]) -> list[ModelFolder]:
    """Returns the models that workers would get, and for each graph a native ensemble that calls them."""
    models = worker_models(wanted, backends)
    template = system.templates()["ensemble"]
    fronts = []
    for graph in wanted.graphs.values():
        of_task = {model.task: model.folder for model in models if model.graph == graph.name}
        direct = [TaskFront(of_task[task].name, task, (), of_task[task]) for task in graph.tasks]
        steps = ensemble.steps(graph, direct, clocks=False)
        fronts.append(ensemble.front(graph, steps, template, max_batch=BATCH))
    return [*(model.folder for model in models), *fronts]


def worker_models(wanted: Wanted, backends: frozenset[str]) -> list[WorkerModel]:
    """Returns the models that workers would get, for one server: each once, with the instances of all its workers."""
    workloads = tuple(Workload(graph, wanted.demand_rps[name]) for name, graph in wanted.graphs.items())
    bundle = compile_plan(
        make_plan(Problem(workloads, wanted.cluster, wanted.profiles), wanted.options),
        wanted.graphs,
        wanted.cluster,
        wanted.profiles,
        generation=1,
        templates=system.templates(),
        backends=backends,
        identity=Identities(),
    )
    found: dict[str, WorkerModel] = {}
    for worker in bundle.workers.values():
        for model in worker.models:
            before = found.get(model.name)
            instances = model.instances + (before.instances if before is not None else 0)
            found[model.name] = replace(model, instances=instances, folder=_batching(model.folder, instances))
    return list(found.values())


def _batching(folder: ModelFolder, instances: int) -> ModelFolder:
    """Returns the model with Triton's dynamic batching, which workers do not need because the gateway forms batches."""
    config = cfg.of_folder(folder)
    config.dynamic_batching.SetInParent()
    config.instance_group[0].count = instances
    return replace(folder, files={**folder.files, CONFIG_FILE: cfg.render(config)})


def _sides(graphs: Mapping[str, TaskGraph], cluster: Cluster, fleet: Fleet) -> dict[str, Side]:
    return {name: Side(graph, cluster.gateway, fleet) for name, graph in graphs.items()}
