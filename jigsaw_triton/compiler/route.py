"""Routes: which models on which workers do a task."""

import json
from collections.abc import Iterable, Mapping

from jigsaw_triton.compiler.bundle import RouteEntry, Worker
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Task
from jigsaw_triton.runtime.spec import ROUTE_VERSION


def route(graph: str, task: Task, workers: Mapping[str, Worker]) -> tuple[RouteEntry, ...]:
    """Every replica of a task, one slot an instance.

    In the order of preference: the most accurate variant first, then larger batches, then by worker name.

    Args:
        graph: Of the task.
        task: Whose replicas are looked for.
        workers: By name.

    Raises:
        InputError: There is none.
    """
    found = [
        (-task.variant(model.variant).accuracy, -model.batch, worker.name, model.name, model.instances)
        for worker in workers.values()
        for model in worker.models
        if (model.graph, model.task) == (graph, task.name)
    ]
    if not found:
        raise InputError(
            "the plan gives this task no slice", where=f"{graph}.{task.name}", hint="plan again with the graph as it is"
        )
    return tuple(RouteEntry(worker, model, -batch, slots) for _, batch, worker, model, slots in sorted(found))


def route_json(entries: Iterable[RouteEntry]) -> bytes:
    """The content of `routes/<dispatcher>.json`."""
    workers = [{"worker": e.worker, "model": e.model, "batch": e.batch, "slots": e.slots} for e in entries]
    return (json.dumps({"version": ROUTE_VERSION, "workers": workers}, indent=1) + "\n").encode()
