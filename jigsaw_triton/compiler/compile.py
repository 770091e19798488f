"""Compiles a plan to a bundle: the models of each worker and of the gateway, and the routes of the tasks' batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from jigsaw_triton.compiler import fusion, names
from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph, Place, Worker, WorkerModel, in_order
from jigsaw_triton.compiler.gateway_models import compiled_graph
from jigsaw_triton.compiler.job import Job
from jigsaw_triton.compiler.plan_check import PLAN_AGAIN, check_plan
from jigsaw_triton.compiler.steps import steps_worker
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.compiler.worker_config import Identity, Server, worker_model
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Board, Cluster, Placement
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.chained import chains
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu
from jigsaw_triton.profiles.table import ProfileTable


def compile_plan(
    plan: Plan,
    graphs: Mapping[str, TaskGraph],
    cluster: Cluster,
    profiles: Mapping[str, ProfileTable],
    *,
    generation: int,
    templates: Mapping[str, Template],
    backends: frozenset[str],
    identity: Identity,
    running: Bundle | None = None,
    deterministic: bool = False,
) -> Bundle:
    """Compiles a plan. The same arguments give the same bytes.

    If `running` has a worker model with the same digest at the same place, the new bundle keeps that model and its
    name, so that nothing has to be loaded.

    Args:
        plan: Plan for these graphs on this cluster.
        graphs: Graphs of the plan, by name.
        cluster: Cluster of the plan.
        profiles: Profiles, by graph. Variants with template `emulated` need them.
        generation: Number of the new generation, greater than that of `running`.
        templates: Templates, by name.
        backends: Backends of the workers' tritonserver.
        identity: Function that maps an artifact's path to a string that identifies its content; see `store.Identities`.
        running: Bundle that serves now.
        deterministic: True if emulated variants do not draw their times and rows.

    Raises:
        InputError: The plan does not match the graphs or the cluster; a template, artifact, backend or profile is
            missing; or a graph's target cannot express the graph.
        ValueError: `generation` is not greater than that of `running`.
    """
    if running is not None and generation <= running.generation:
        raise ValueError(f"generation {generation} does not follow {running.generation}")
    check_plan(plan, graphs, cluster)
    fused = {name: chains(graph, plan) for name, graph in graphs.items()}
    job = Job(plan, graphs, cluster, profiles, generation, templates, backends, identity, fused, deterministic)
    boards = {gpu.id: gpu.board for gpu in cluster.gpus}
    workers: dict[str, Worker] = {}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            if placed.models:
                workers |= {worker.name: worker for worker in _workers(job, gpu, boards[gpu.id], placed, running)}
    for graph in graphs.values():
        if graph.steps:
            worker = _steps_worker(job, graph, running)
            workers[worker.name] = worker
    workers = dict(sorted(workers.items()))
    serving = _serving(workers)
    compiled = {name: compiled_graph(job, graphs[name], serving.get(name, {})) for name in sorted(plan.graphs)}
    names.require_unique((name for graph in compiled.values() for name in _gateway_names(graph)), where="gateway")
    return Bundle(generation, workers, compiled)


def _workers(job: Job, gpu: PlannedGpu, board: Board, placed: PlacedSlice, running: Bundle | None) -> Iterator[Worker]:
    """Yields the workers of a slice: one, or under MPS one for each instance of its model."""
    placement = placed.placement
    where = f"GPU {gpu.id}"
    if placement.slice not in board.profiles:
        raise InputError(f"{board.name} has no slice {placement.slice}", where=where, hint=PLAN_AGAIN)
    mps = job.cluster.processes == "mps"
    if mps and len(placed.models) > 1:
        raise InputError(
            f"{len(placed.models)} models share the slice {placement}, but processes under MPS cannot take turns",
            where=where,
            hint="plan without --share, or set `processes: streams` in cluster.yaml",
        )
    server = Server(
        board=board,
        slice=placement.slice,
        backends=job.backends,
        gpu=job.cluster.driver == "nvml" and board.arch != "cpu",
        shared=len(placed.models) > 1,
        processes=placed.models[0].instances if mps else 1,
    )
    made = [_worker_model(job, model, server) for model in placed.models]
    standby = [_worker_model(job, model, server) for model in placed.standby]
    for process in range(1, server.processes + 1) if mps else (0,):
        yield _worker(job, gpu, server, placement, made, standby, process, running)


def _worker(
    job: Job,
    gpu: PlannedGpu,
    server: Server,
    placement: Placement,
    made: Sequence[WorkerModel],
    standby: Sequence[WorkerModel],
    process: int,
    running: Bundle | None,
) -> Worker:
    name = names.worker(gpu.id, placement, process)
    before = running.workers.get(name) if running is not None else None
    kept = {_identity(model): model for model in (*before.models, *before.standby)} if before is not None else {}
    models, idle = ([kept.get(_identity(model), model) for model in part] for part in (made, standby))
    chain_models = (_chain_models(job, graph, models) for graph in sorted({model.graph for model in models}))
    models += [kept.get(_identity(model), model) for graph_models in chain_models for model in graph_models]
    names.require_unique((model.name for model in (*models, *idle)), where=f"worker {name}")
    memory_mib = server.board.profiles[placement.slice].memory_mib
    return Worker(
        name=name,
        models=in_order(models),
        place=Place(gpu.id, server.board.name, placement),
        memory_mib=None if memory_mib is None else memory_mib // server.processes,
        process=process,
        standby=in_order(idle),
        remote=job.cluster.agents is not None,
    )


def _steps_worker(job: Job, graph: TaskGraph, running: Bundle | None) -> Worker:
    """Returns the worker of a graph's Python steps. Unchanged models keep their names."""
    made = steps_worker(
        graph,
        job.template("step"),
        demand_rps=job.plan.graphs[graph.name].demand_rps,
        generation=job.generation,
    )
    before = running.workers.get(made.name) if running is not None else None
    kept = {_identity(model): model for model in before.models} if before is not None else {}
    return replace(made, models=in_order(kept.get(_identity(model), model) for model in made.models))


def _worker_model(job: Job, model: PlacedModel, server: Server) -> WorkerModel:
    # The name of a board identifies it, and is compared much faster than its contents.
    key = (model, (server.board.name, server.slice, server.shared, server.processes))
    if key not in job.compiled:
        job.compiled[key] = _compiled_model(job, model, server)
    return job.compiled[key]


def _compiled_model(job: Job, model: PlacedModel, server: Server) -> WorkerModel:
    graph = job.graphs[model.graph]
    chain = next((chain for chain in job.chains[model.graph] if model.task in chain.tasks), None)
    return worker_model(
        graph,
        model,
        server,
        job.profiles.get(model.graph),
        generation=job.generation,
        templates=job.templates,
        identity=job.identity,
        one_by_one=chain is not None and fusion.comes_one_by_one(graph, chain),
        deterministic=job.deterministic,
    )


def _chain_models(job: Job, graph: str, models: Iterable[WorkerModel]) -> Iterator[WorkerModel]:
    """Yields the chains of a graph that a worker with these models can execute."""
    by_task = {model.task: model for model in models if model.graph == graph}
    for chain in job.chains[graph]:
        if by_task.keys() >= set(chain.tasks):
            yield fusion.chain_model(
                job.graphs[graph],
                chain,
                [by_task[task] for task in chain.tasks],
                job.template("ensemble"),
                generation=job.generation,
            )


def _identity(model: WorkerModel) -> tuple[str, str, str, str]:
    """Returns a key that is equal for models that differ at most in the generation in their names."""
    return model.graph, model.task, model.variant, model.digest


def _serving(workers: Mapping[str, Worker]) -> dict[str, dict[str, Worker]]:
    """Returns the workers that have a model of each graph, by name."""
    found: dict[str, dict[str, Worker]] = {}
    for worker in workers.values():
        for model in (*worker.models, *worker.standby):
            found.setdefault(model.graph, {})[worker.name] = worker
    return found


def _gateway_names(graph: CompiledGraph) -> Iterator[str]:
    """Yields the names of a graph's models at the gateway in all its forms, which may have tasks in common."""
    yield graph.front.name
    yield from (model.name for model in graph.models)
    if graph.apart is not None:
        yield from (model.name for model in graph.apart.models if model not in graph.models)
