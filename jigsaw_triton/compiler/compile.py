"""Compiles a plan to a bundle: the models of each worker and of the gateway, and the routes of the tasks' batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import ensemble, front, fusion, names, pipeline
from jigsaw_triton.compiler.bundle import (
    Bundle,
    CompiledGraph,
    ModelFolder,
    Place,
    RouteEntry,
    TaskFront,
    Worker,
    WorkerModel,
    in_order,
)
from jigsaw_triton.compiler.model_config import ModelConfig
from jigsaw_triton.compiler.plan_check import PLAN_AGAIN, check_plan
from jigsaw_triton.compiler.route import route, standby_route, step_route
from jigsaw_triton.compiler.service import rest_ms, service_ms
from jigsaw_triton.compiler.steps import steps_worker
from jigsaw_triton.compiler.templates import Template, template
from jigsaw_triton.compiler.worker_config import Identity, Server, worker_model
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Board, Cluster, Placement
from jigsaw_triton.graph.chain import Chain, with_chains
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.chained import chains
from jigsaw_triton.planner.domain.plan import GraphPlan, PlacedModel, PlacedSlice, Plan, PlannedGpu
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
    job = _Job(plan, graphs, cluster, profiles, generation, templates, backends, identity, fused, deterministic)
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
    compiled = {name: _graph(job, graphs[name], serving.get(name, {})) for name in sorted(plan.graphs)}
    names.require_unique((name for graph in compiled.values() for name in _gateway_names(graph)), where="gateway")
    return Bundle(generation, workers, compiled)


@dataclass(frozen=True, slots=True)
class _Job:
    """The arguments of `compile_plan`, by graph the chains that workers execute in one call, and what was compiled.

    Attributes:
        compiled: Models that were compiled. Most slices of a large cluster hold copies of a few models.
    """

    plan: Plan
    graphs: Mapping[str, TaskGraph]
    cluster: Cluster
    profiles: Mapping[str, ProfileTable]
    generation: int
    templates: Mapping[str, Template]
    backends: frozenset[str]
    identity: Identity
    chains: Mapping[str, tuple[Chain, ...]]
    deterministic: bool
    compiled: dict[tuple[PlacedModel, tuple[object, ...]], WorkerModel] = field(default_factory=dict)

    def template(self, name: str) -> Template:
        """Returns one of the compiler's own templates."""
        return template(self.templates, name, where="compiler")


def _workers(job: _Job, gpu: PlannedGpu, board: Board, placed: PlacedSlice, running: Bundle | None) -> Iterator[Worker]:
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
    job: _Job,
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


def _steps_worker(job: _Job, graph: TaskGraph, running: Bundle | None) -> Worker:
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


def _worker_model(job: _Job, model: PlacedModel, server: Server) -> WorkerModel:
    # The name of a board identifies it, and is compared much faster than its contents.
    key = (model, (server.board.name, server.slice, server.shared, server.processes))
    if key not in job.compiled:
        job.compiled[key] = _compiled_model(job, model, server)
    return job.compiled[key]


def _compiled_model(job: _Job, model: PlacedModel, server: Server) -> WorkerModel:
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


def _chain_models(job: _Job, graph: str, models: Iterable[WorkerModel]) -> Iterator[WorkerModel]:
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


def _graph(job: _Job, graph: TaskGraph, workers: Mapping[str, Worker]) -> CompiledGraph:
    ensemble.check_target(graph)
    plan = job.plan.graphs[graph.name]
    services = service_ms(job.plan, graph, job.profiles.get(graph.name))
    found = job.chains[graph.name]
    apart = _form(job, graph, plan, services, workers, apart=bool(found))
    if not found:
        return apart
    whole = with_chains(graph, found)
    services, plan = fusion.in_chains(services, found), fusion.chain_plan(plan, found)
    return replace(_form(job, whole, plan, services, workers, made={t.task: t for t in apart.tasks}), apart=apart)


def _form(
    job: _Job,
    graph: TaskGraph,
    plan: GraphPlan,
    services: Mapping[str, float],
    workers: Mapping[str, Worker],
    *,
    made: Mapping[str, TaskFront] = MappingProxyType({}),
    apart: bool = False,
) -> CompiledGraph:
    """Compiles one form of a graph.

    Args:
        job: Arguments of the compilation.
        graph: Graph, in which each chain is one task.
        plan: Plan of the graph, in which each chain is one task.
        services: Task -> milliseconds of a batch.
        workers: Workers of the graph, by name.
        made: Tasks of the form without chains, which this form reuses.
        apart: True if this is the form without chains of a graph that has chains.
    """
    rest = rest_ms(graph, services)
    routes = {
        name: route(graph, task, plan.tasks[name], workers, job.profiles, one_by_one=front.one_by_one(graph, task))
        for name, task in graph.tasks.items()
    }
    standby = {
        name: standby_route(graph, task, workers, job.profiles, one_by_one=front.one_by_one(graph, task))
        for name, task in graph.tasks.items()
    }
    if graph.target in ("auto", "graph"):
        routes |= {name: step_route(workers[names.steps_worker(graph.name)], name) for name in graph.steps}
        tasks = tuple(
            _task(job, graph, node.name, routes[node.name], standby.get(node.name, ())) for node in graph.in_order()
        )
        folder = front.graph_front(
            graph, tasks, job.template("front"), rest_ms=rest, capacity_rps=round(plan.capacity_rps, 3)
        )
        return CompiledGraph(folder, None, tasks, "graph")
    tasks = tuple(
        made.get(name)
        or replace(
            front.task_front(
                graph,
                task,
                routes[name],
                job.template("front"),
                rest_ms=rest[name],
                generation=job.generation,
                blaming=graph.target == "bls",
            ),
            standby=standby[name],
        )
        for name, task in graph.tasks.items()
    )
    compiled, members = _of_steps(job, graph, tasks, apart=apart)
    _check_ensembles(graph, compiled.front, members)
    return compiled


def _task(
    job: _Job, graph: TaskGraph, name: str, entries: Iterable[RouteEntry], standby: Iterable[RouteEntry]
) -> TaskFront:
    """Returns a task of the front of a whole graph."""
    # The front binds each request to this generation, until a change lets others serve it.
    own = (job.generation,)
    return TaskFront(
        names.route(graph.name, name, job.generation),
        name,
        tuple(replace(entry, generations=own) for entry in entries),
        standby=tuple(replace(entry, generations=own) for entry in standby),
    )


def _check_ensembles(graph: TaskGraph, folder: ModelFolder, members: Sequence[ModelFolder]) -> None:
    """Checks that Triton would serve the ensembles of a graph.

    Args:
        graph: The graph.
        folder: Model that clients call.
        members: Models behind it.

    Raises:
        InputError: It would not.
    """
    configs = _configs(members)
    ensembles = [cfg.of_folder(folder), *(c for c in configs.values() if c.platform == "ensemble")]
    wrong = [reason for config in ensembles for reason in ensemble.check_ensemble(config, configs)]
    if wrong:
        raise InputError(
            f"Triton would not serve the graph: {'; '.join(wrong)}",
            where=graph.name,
            hint="rename these inputs, outputs or tasks, or correct their types",
        )


def _of_steps(
    job: _Job, graph: TaskGraph, tasks: tuple[TaskFront, ...], *, apart: bool
) -> tuple[CompiledGraph, list[ModelFolder]]:
    """Returns a graph as an ensemble or a BLS pipeline of one-task fronts, and the models behind its front."""
    template = job.template("ensemble")
    members = [task.folder for task in tasks if task.folder is not None]
    if graph.target == "bls":
        model: ModelFolder | None = pipeline.pipeline(
            graph, tasks, job.template("pipeline"), generation=job.generation, apart=apart
        )
        assert model is not None
        outer = ensemble.front(graph, (pipeline.front_step(graph, model),), template, max_batch=front.MAX_BATCH)
        return CompiledGraph(outer, model, tasks, "bls"), [model]
    # Items of a batch have different numbers of rows, which cannot be stacked.
    most = 1 if graph.fans_out else front.MAX_BATCH
    steps, model = ensemble.steps(graph, tasks), None
    if ensemble.needs_whole(graph, steps):
        name = names.pipeline(graph.name, job.generation, apart=apart)
        model = ensemble.whole(graph, name, steps, template, max_batch=most)
        steps = (pipeline.front_step(graph, model),)
        members.append(model)
    outer = ensemble.front(graph, steps, template, max_batch=most)
    return CompiledGraph(outer, model, tasks, "ensemble"), members


def _configs(folders: Iterable[ModelFolder]) -> dict[str, ModelConfig]:
    return {folder.name: cfg.of_folder(folder) for folder in folders}


def _gateway_names(graph: CompiledGraph) -> Iterator[str]:
    """Yields the names of a graph's models at the gateway in all its forms, which may have tasks in common."""
    yield graph.front.name
    yield from (model.name for model in graph.models)
    if graph.apart is not None:
        yield from (model.name for model in graph.apart.models if model not in graph.models)
