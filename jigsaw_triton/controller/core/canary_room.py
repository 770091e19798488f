"""Reasons why a change cannot begin with a canary, found before anything starts. Pure."""

from collections.abc import Iterable, Iterator
from itertools import takewhile

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.graph.model import Task, TaskGraph


def canary_obstacle(stages: Iterable[Stage], running: Generation | None, target: Generation) -> str:
    """Returns a sentence that says why a canary is impossible; empty if it is possible.

    Args:
        stages: Stages of the change with the canary.
        running: Generation in service, by `standby.in_service`; None if there is none.
        target: Generation to serve next.
    """
    if running is None:
        return "no generation serves yet with which it could be compared; deploy without a canary"
    names = sorted(running.bundle.graphs.keys() & target.bundle.graphs.keys())
    if not names:
        return "no graph of the running generation stays; deploy without a canary"
    for name in names:
        if reason := _unlike(name, running, target):
            return f"{reason}; deploy without a canary"
    lacking = list(dict.fromkeys(_lacking(stages, running)))
    if lacking:
        return f"both generations do not fit at once: {'; '.join(lacking)}; free the room, or deploy without a canary"
    return ""


def _unlike(name: str, running: Generation, target: Generation) -> str:
    """Returns a sentence if the running front of a graph cannot send requests to the new generation; else nothing."""
    for generation in (running, target):
        made = generation.bundle.graphs[name].target
        if made != "graph":
            return (
                f"graph {name} has target `{made}`, which calls its tasks one by one and may mix two generations in a "
                "request; a canary needs target `graph`"
            )
    old, new = running.wanted.graphs[name], target.wanted.graphs[name]
    if _interface(old) != _interface(new):
        return f"the inputs, outputs or Python steps of graph {name} change, which only its new front can serve"
    for task in sorted(old.tasks.keys() | new.tasks.keys()):
        if task not in old.tasks or task not in new.tasks or _flow(old.tasks[task]) != _flow(new.tasks[task]):
            return f"task {task} of graph {name} is new, gone or connected differently, which only the new front knows"
    called = [{t.task for t in g.bundle.graphs[name].tasks} for g in (running, target)]
    if called[0] != called[1]:
        return f"graph {name} calls other tasks as chains in one call than before, which only its new front does"
    return ""


def _interface(graph: TaskGraph) -> object:
    return {n: i.type for n, i in graph.inputs.items()}, dict(graph.outputs), dict(graph.steps), graph.overload


def _flow(task: Task) -> object:
    """Returns what the front knows about a task, apart from its variants."""
    when = task.when and (task.when.tensor, task.when.above, task.when.below)
    return dict(task.inputs), dict(task.outputs), task.for_each, when, dict(task.counts), task.retry


def _lacking(stages: Iterable[Stage], running: Generation) -> Iterator[str]:
    """Yields a sentence for each action that takes something away before the new generation serves.

    Models that stand by carry no load, so that they may make room.
    """
    idle = {(worker.name, model.name) for worker in running.bundle.workers.values() for model in worker.standby}
    for action in (action for stage in takewhile(lambda stage: not stage.watches, stages) for action in stage.actions):
        match action:
            case a.UnloadModels(worker, models) if not {(worker, model) for model in models} <= idle:
                yield f"{worker} has no memory for its old models beside the new ones"
            case a.Retire(worker):
                yield f"{worker.name} must make room for another slice"
