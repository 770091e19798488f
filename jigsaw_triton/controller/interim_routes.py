"""Routes during a rollout: which workers of the next generation may serve requests of the running one.

Models of the new generation may finish a request that began in the old one, as long as every mix of their variants
keeps the graph's accuracy SLO. A front that calls single tasks can use any worker with models of these tasks. A front
that calls a whole chain can only use workers that have the same chain.
"""

import math
from collections.abc import Collection, Iterable, Iterator

from jigsaw_triton.compiler.bundle import Bundle, RouteEntry, TaskFront
from jigsaw_triton.controller.actual import Actual
from jigsaw_triton.controller.generation import Generation
from jigsaw_triton.graph.chain import Chain, as_task
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.runtime.chains import members

Routes = dict[str, tuple[RouteEntry, ...]]

_ROUNDING = 1e-9


def interim_routes(
    actual: Actual, running: Generation | None, target: Generation, leaving: Collection[str] = ()
) -> Routes:
    """Returns routes for the running tasks over their own workers and over the target's workers that are already up.

    Args:
        actual: Servers and models that exist now.
        running: Generation that serves; None if none does.
        target: Generation whose workers may help.
        leaving: Names of workers to leave out.
    """
    alive = {w.name: {m.name for m in w.models} for w in actual.workers.values() if w.name not in leaving}

    def up(route: Iterable[RouteEntry]) -> tuple[RouteEntry, ...]:
        return tuple(e for e in route if e.model in alive.get(e.worker, ()))

    routes: Routes = {}
    for name, task in _serving(actual, running):
        own = up(task.route)
        coming = up(_coming(running, target, name, task.task, forced=not own))
        known = {(entry.worker, entry.model) for entry in own}
        routes[task.name] = (*own, *(entry for entry in coming if (entry.worker, entry.model) not in known))
    return routes


def handover(actual: Actual, running: Generation | None, target: Generation) -> Routes:
    """Returns routes for the running tasks over the target's workers alone, for each task that these workers can serve.

    The new generation's capacity then serves the requests in the old generation's queues.
    """
    if running is not None and running.bundle is target.bundle:
        return {}
    routes: Routes = {}
    for name, task in _serving(actual, running):
        coming = _coming(running, target, name, task.task, forced=not actual.routes.get(task.name))
        if coming:
            routes[task.name] = coming
    return routes


def _serving(actual: Actual, running: Generation | None) -> Iterator[tuple[str, TaskFront]]:
    """Yields (graph name, front) for each running task that has a route."""
    for name, graph in running.bundle.graphs.items() if running is not None else ():
        for task in graph.every_task.values():
            if task.name in actual.routes:
                yield name, task


def _coming(
    running: Generation | None, target: Generation, name: str, task: str, *, forced: bool
) -> tuple[RouteEntry, ...]:
    """Returns the target's route for a task; empty if the front of the old graph may not use it.

    Args:
        running: Generation that serves.
        target: Generation whose workers the route uses.
        name: Name of the graph.
        task: Name of the task or chain.
        forced: True if the task has no other worker. An answer of lower accuracy is then better than none.
    """
    old = running.wanted.graphs.get(name) if running is not None else None
    new, compiled = target.wanted.graphs.get(name), target.bundle.graphs.get(name)
    if running is None or old is None or new is None or compiled is None or not _same_call(old, new, task):
        return ()
    if not forced and not _mixes_hold(running, target, name):
        return ()
    return next((t.route for t in compiled.every_task.values() if t.task == task), ())


def _same_call(old: TaskGraph, new: TaskGraph, task: str) -> bool:
    """Returns True if a task or chain of the old graph can call models that were compiled for the new graph."""
    if task in old.steps or task in new.steps:
        return old.steps.get(task) == new.steps.get(task)
    if not old.tasks.keys() & new.tasks.keys() >= set(members(task)):
        return False
    before, after = _called(old, task), _called(new, task)
    return dict(before.outputs) == dict(after.outputs) and {n: old.input_type(before, n) for n in before.inputs} == {
        n: new.input_type(after, n) for n in after.inputs
    }


def _called(graph: TaskGraph, name: str) -> Task:
    """Returns a task, or a chain as one task with an arbitrary choice of variants."""
    names = members(name)
    if len(names) == 1:
        return graph.tasks[name]
    return as_task(graph, Chain(names, tuple(graph.tasks[task].variants[0].name for task in names)))


def _mixes_hold(running: Generation, target: Generation, name: str) -> bool:
    """Returns True if every path keeps the old graph's accuracy with the worst variant that either generation uses."""
    old, new = running.wanted.graphs[name], target.wanted.graphs[name]
    worst = {
        # A task whose variants neither graph has any more counts as accuracy 0.
        task: min(_accuracies(old, running.bundle, task) + _accuracies(new, target.bundle, task), default=0.0)
        for task in old.tasks
    }
    return all(math.prod(worst[task] for task in path) >= old.slo.accuracy - _ROUNDING for path in old.paths())


def _accuracies(graph: TaskGraph, bundle: Bundle, name: str) -> list[float]:
    """Returns the accuracies of a task's variants in use, relative to its best; empty if the graph lacks the task."""
    task = graph.tasks.get(name)
    if task is None:
        return []
    used = {m.variant for w in bundle.workers.values() for m in w.models if (m.graph, m.task) == (graph.name, name)}
    return [v.accuracy / task.best_accuracy for v in task.variants if v.name in used]
