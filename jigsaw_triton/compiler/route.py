"""Routes: which models on which workers do a task."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from jigsaw_triton.compiler.bundle import RouteEntry, Worker
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.planner.plan import TaskPlan
from jigsaw_triton.runtime.counters import MOST_VARIANTS
from jigsaw_triton.runtime.spec import ROUTE_VERSION


def route(graph: TaskGraph, task: Task, plan: TaskPlan, workers: Mapping[str, Worker]) -> tuple[RouteEntry, ...]:
    """Every replica of a task, one slot an instance.

    Shares are held where the accuracy is a mean, which hangs on them; elsewhere whatever has room takes what comes.

    In the order of preference: the most accurate variant first, then larger batches, then by worker name.

    Args:
        graph: That has the task.
        task: Whose replicas are looked for.
        plan: Of the task.
        workers: By name.

    Raises:
        InputError: There is none, or there are too many variants.
    """
    found = [
        (-task.variant(model.variant).accuracy, -model.batch, worker.name, model.name, model.instances, model.variant)
        for worker in workers.values()
        for model in worker.models
        if (model.graph, model.task) == (graph.name, task.name)
    ]
    where = f"{graph.name}.{task.name}"
    if not found:
        raise InputError("the plan gives this task no slice", where=where, hint="plan again with the graph as it is")
    if (count := len({variant for *_, variant in found})) > MOST_VARIANTS:
        raise InputError(
            f"the plan uses {count} variants of this task at once, and {MOST_VARIANTS} can be counted",
            where=where,
            hint="leave out variants that are nearly alike",
        )
    shares = plan.mix if graph.slo.accuracy_mode == "mean" else {}
    return tuple(
        RouteEntry(worker, model, -batch, slots, variant, shares.get(variant, 0.0))
        for _, batch, worker, model, slots, variant in sorted(found)
    )


def route_json(entries: Iterable[RouteEntry]) -> bytes:
    """The content of `routes/<dispatcher>.json`."""
    workers = [asdict(entry) for entry in entries]
    return (json.dumps({"version": ROUTE_VERSION, "workers": workers}, indent=1) + "\n").encode()
