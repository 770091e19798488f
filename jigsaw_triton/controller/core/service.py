"""Service of a deployment: which graphs are not served, and which servers are missing. Pure."""

from collections.abc import Iterator

from jigsaw_triton.compiler.bundle import CompiledGraph, TaskFront
from jigsaw_triton.controller.core.state import GATEWAY, Phase, Restarts, State


def unserved(state: State) -> tuple[str, ...]:
    """Returns the reasons why requests fail, one sentence each; empty if every graph is served.

    A graph is served if the gateway has its models, and each of its tasks has a worker.
    """
    if state.running is None:
        return ("no generation serves yet",)
    if not _usable(state, GATEWAY):
        return ("the gateway does not serve",)
    graphs = state.running.bundle.graphs
    return tuple(sentence for name, graph in graphs.items() for sentence in _unserved_parts(state, name, graph))


def troubles(state: State) -> tuple[str, ...]:
    """Returns what is wrong with the servers, in a sentence each: lost, missing, silent, restarting, half restored."""
    restarting = {name: restarts.cause for name, restarts in state.restarts.items() if restarts.waiting}
    found = [f"{name} is restarting: {cause}" for name, cause in restarting.items()]
    found += [f"GPU {gpu} is lost" for gpu in sorted(state.lost)]
    found += [f"{name} does not answer" for name in sorted(state.stalled - restarting.keys())]
    if state.restore_at_s is not None:
        found.append("the generation that serves is only partly restored, since the last rollback failed")
    if state.phase is Phase.READY and state.running is not None:
        missing = sorted(state.running.bundle.workers.keys() - state.actual.workers.keys())
        found += [f"{name} is missing" for name in (*missing, *([] if state.actual.gateway else [GATEWAY]))]
    return tuple(found)


def _unserved_parts(state: State, name: str, graph: CompiledGraph) -> Iterator[str]:
    if name not in state.actual.fronts:
        yield f"graph {name} is not loaded at the gateway"
        return
    # During a change another form of the graph, or an earlier generation's routes, may serve.
    if all(any(not _served(state, task) for task in form.tasks) for form in graph.forms):
        for task in graph.tasks:
            if not _served(state, task):
                yield f"task {task.task} of graph {name} has no worker"


def _served(state: State, task: TaskFront) -> bool:
    """True if a route of the task leads to a worker that has the model and runs."""
    return any(
        _usable(state, entry.worker) and any(m.name == entry.model for m in state.actual.workers[entry.worker].models)
        for entry in state.actual.routes.get(task.name, ())
    )


def _usable(state: State, name: str) -> bool:
    exists = state.actual.gateway if name == GATEWAY else name in state.actual.workers
    return exists and not state.restarts.get(name, Restarts()).waiting and name not in state.stalled
