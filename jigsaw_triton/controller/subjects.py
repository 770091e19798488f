"""Subjects of actions and states: the worker, the graph or the generation that they concern. Pure."""

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.state import GATEWAY, State


def generation_of(state: State) -> int | None:
    """Returns the number of the generation that a change leads to, else of the one that serves; None without any."""
    generation = state.pending or state.running
    return generation.bundle.generation if generation is not None else None


def worker_of(action: a.Action) -> str | None:
    """Returns the name of the worker that an action concerns; None if it concerns none."""
    match action:
        case a.BringUp(worker) | a.Retire(worker) | a.RestartWorker(worker):
            return worker.name
        case a.LoadModels(worker=name) | a.UnloadModels(worker=name) | a.Drain(worker=name):
            return name
        case _:
            return None


def subject_of(action: a.Action) -> str:
    """Returns what an action concerns: a worker, a graph, models, a generation or the gateway."""
    if (worker := worker_of(action)) is not None:
        return worker
    match action:
        case a.Flip(graph) | a.Compare(graph):
            return graph
        case a.UnloadGateway(models):
            return ", ".join(models)
        case a.LoadGateway(models=folders):
            return ", ".join(folder.name for folder in folders)
        case a.Solve(generation=generation):
            return f"generation {generation}"
        case _:
            return GATEWAY
