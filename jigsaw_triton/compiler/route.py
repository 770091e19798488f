"""Routes: which models on which workers do a task."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from jigsaw_triton.compiler.bundle import RouteEntry, Worker
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
    """Every replica of a task, one slot an instance.

    Shares are held where the accuracy is a mean, which hangs on them; elsewhere whatever has room takes what comes.

    The order is that of preference: the most accurate variant first, then larger batches, then by worker name.

    Args:
        graph: Graph that has the task.
        task: Task whose replicas are looked for.
        plan: Plan of the task.
        workers: Workers by name.
        profiles: Profiles by graph.
        one_by_one: True if each item of the task is a call of its own.

    Raises:
        InputError: There is no replica.
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
            hint="plan again with the graph as it is",
        )
    shares = plan.mix if graph.slo.accuracy_mode == "mean" else {}
    entries = []
    for *_, worker, model in sorted(found, key=lambda item: item[:3]):
        processes = sum(other.shares_with(worker) for other in workers.values()) or 1
        alone = one_by_one and not model.pads
        times = call_times(worker, model, profiles, processes=processes, one_by_one=alone)
        entries.append(
            RouteEntry(
                worker=worker.name,
                model=model.name,
                batch=model.batch,
                slots=model.instances,
                variant=model.variant,
                share=shares.get(model.variant, 0.0),
                tokens=model.tokens,
                pads=model.pads,
                service_ms=times.service_ms,
                deadline_ms=times.deadline_ms,
            )
        )
    return tuple(entries)


def step_route(worker: Worker, step: str) -> tuple[RouteEntry, ...]:
    """The route of a python step: the one model of its graph's steps worker.

    Args:
        worker: Steps worker of the graph.
        step: Name of the step.
    """
    (model,) = (model for model in worker.models if model.task == step)
    return (RouteEntry(worker.name, model.name, model.batch, model.instances, tokens=model.tokens),)


def route_json(entries: Iterable[RouteEntry]) -> bytes:
    """The content of `routes/<name>.json`."""
    workers = [asdict(entry) for entry in entries]
    return (json.dumps({"version": ROUTE_VERSION, "workers": workers}, indent=1) + "\n").encode()
