"""Routes: the models on workers that execute a task."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace

from jigsaw_triton.compiler.bundle import RouteEntry, Worker, WorkerModel
from jigsaw_triton.compiler.service import call_times
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.planner.domain.plan import TaskPlan
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.runtime.spec import ROUTE_VERSION


def route(
    graph: TaskGraph,
    task: Task,
    plan: TaskPlan,
    workers: Mapping[str, Worker],
    profiles: Mapping[str, ProfileTable],
    *,
    one_by_one: bool,
) -> tuple[RouteEntry, ...]:
    """Returns the replicas of a task, with one slot for each instance.

    Entries have shares only if the graph's accuracy is a mean, which depends on them. Otherwise any free replica takes
    the next batch.

    The entries are in order of preference: more accurate variants first, then larger batches, then by worker name.

    Args:
        graph: Graph of the task.
        task: Task to route.
        plan: Plan of the task.
        workers: Workers, by name.
        profiles: Profiles, by graph.
        one_by_one: True if each item of the task is a separate call.

    Raises:
        InputError: The task has no replica.
    """
    found = [
        (-task.variant(model.variant).accuracy, -model.batch, worker.name, worker, model)
        for worker in workers.values()
        for model in worker.models
        if (model.graph, model.task) == (graph.name, task.name)
    ]
    if not found:
        raise InputError(
            "the plan gives this task no slice",
            where=f"{graph.name}.{task.name}",
            hint="plan again with the current graph",
        )
    shares = plan.mix if graph.slo.accuracy_mode == "mean" else {}
    return tuple(
        _entry(graph, worker, model, workers, profiles, one_by_one, share=shares.get(model.variant, 0.0))
        for *_, worker, model in sorted(found, key=lambda item: item[:3])
    )


def standby_route(
    graph: TaskGraph,
    task: Task,
    workers: Mapping[str, Worker],
    profiles: Mapping[str, ProfileTable],
    *,
    one_by_one: bool,
) -> tuple[RouteEntry, ...]:
    """Returns the standby models of a task, by worker name. They have no shares. Arguments as for `route`."""
    return tuple(
        _entry(graph, replace(worker, models=(model,)), model, workers, profiles, one_by_one)
        for _, worker in sorted(workers.items())
        for model in worker.standby
        if (model.graph, model.task) == (graph.name, task.name)
    )


def _entry(
    graph: TaskGraph,
    worker: Worker,
    model: WorkerModel,
    workers: Mapping[str, Worker],
    profiles: Mapping[str, ProfileTable],
    one_by_one: bool,
    share: float = 0.0,
) -> RouteEntry:
    processes = sum(other.shares_with(worker) for other in workers.values()) or 1
    alone = one_by_one and not model.pads
    times = call_times(worker, model, profiles, processes=processes, one_by_one=alone)
    return RouteEntry(
        worker=worker.name,
        model=model.name,
        batch=model.batch,
        slots=model.instances,
        variant=model.variant,
        share=share,
        tokens=model.tokens,
        pads=model.pads,
        service_ms=times.service_ms,
        deadline_ms=times.deadline_ms,
        slo_ms=graph.slo.latency_ms,
        remote=worker.remote,
        node=worker.node,
    )


def step_route(worker: Worker, step: str) -> tuple[RouteEntry, ...]:
    """Returns the route of a Python step: its model on the graph's steps worker.

    Args:
        worker: Steps worker of the graph.
        step: Name of the step.
    """
    (model,) = (model for model in worker.models if model.task == step)
    return (RouteEntry(worker.name, model.name, model.batch, model.instances, tokens=model.tokens),)


def route_json(entries: Iterable[RouteEntry], epoch: int = 0) -> bytes:
    """Returns the content of `routes/<name>.json`.

    Args:
        entries: Entries of the route.
        epoch: Epoch of the controller that writes it; 0 for none.
    """
    written = {"epoch": epoch} if epoch else {}
    workers = [asdict(entry) for entry in entries]
    return (json.dumps({"version": ROUTE_VERSION, **written, "workers": workers}, indent=1) + "\n").encode()
