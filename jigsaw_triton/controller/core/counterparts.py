"""Tasks of two generations that can take each other's place, so that both can serve a graph side by side."""

from jigsaw_triton.compiler.bundle import TaskFront
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.graph.chain import Chain, as_task
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.runtime.chains import members


def binds(running: Generation, target: Generation, graph: str) -> bool:
    """Returns True if requests of a graph can be bound to a generation: if one front executes the whole graph."""
    compiled = (generation.bundle.graphs.get(graph) for generation in (running, target))
    return all(found is None or found.target == "graph" for found in compiled)


def counterpart(running: Generation, target: Generation, name: str, task: str) -> TaskFront | None:
    """Returns the target's task whose models the running graph can call for a task; None if there is none."""
    if running.bundle is target.bundle:
        return None
    compiled = target.bundle.graphs.get(name)
    if compiled is None or not callable_by(running, target, name, task):
        return None
    return next((t for t in compiled.every_task.values() if t.task == task), None)


def callable_by(running: Generation, target: Generation, name: str, task: str) -> bool:
    """Returns True if a running graph can call the target's models for a task or a chain."""
    old, new = running.wanted.graphs.get(name), target.wanted.graphs.get(name)
    return old is not None and new is not None and _same_call(old, new, task)


def are_separate(running: Generation, target: Generation, graph: str) -> bool:
    """Returns True if both generations cannot serve a graph side by side before its front is switched."""
    known = running.wanted.graphs.get(graph)
    names = (*known.tasks, *known.steps) if known is not None else ()
    return not binds(running, target, graph) or not all(callable_by(running, target, graph, name) for name in names)


def in_other_chains(running: Generation, target: Generation, graph: str) -> bool:
    """Returns True if the target lacks a chain that the running front calls in one call."""
    compiled = running.bundle.graphs.get(graph)
    tasks = compiled.tasks if compiled is not None and compiled.apart is not None else ()
    return any(counterpart(running, target, graph, task.task) is None for task in tasks)


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
