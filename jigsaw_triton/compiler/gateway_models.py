"""Compiles a graph to the models of the gateway, in each of its forms: with chains as single tasks, and without."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import ensemble, front, fusion, names, pipeline
from jigsaw_triton.compiler.bundle import CompiledGraph, ModelFolder, RouteEntry, TaskFront, Worker
from jigsaw_triton.compiler.job import Job
from jigsaw_triton.compiler.model_config import ModelConfig
from jigsaw_triton.compiler.route import route, standby_route, step_route
from jigsaw_triton.compiler.service import rest_ms, service_ms
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.chain import with_chains
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import GraphPlan


def compiled_graph(job: Job, graph: TaskGraph, workers: Mapping[str, Worker]) -> CompiledGraph:
    """Compiles a graph in all its forms.

    Args:
        job: Arguments of the compilation.
        graph: The graph.
        workers: Workers of the graph, by name.

    Raises:
        InputError: The graph's target cannot express the graph.
    """
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
    job: Job,
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
    job: Job, graph: TaskGraph, name: str, entries: Iterable[RouteEntry], standby: Iterable[RouteEntry]
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
        InputError: Triton would not serve one of them.
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
    job: Job, graph: TaskGraph, tasks: tuple[TaskFront, ...], *, apart: bool
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
