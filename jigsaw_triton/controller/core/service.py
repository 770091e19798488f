"""Service of a deployment: which graphs are not served, how much is served, and which servers are missing. Pure."""

from collections.abc import Iterator, Mapping

from jigsaw_triton.compiler.bundle import CompiledGraph, RouteEntry, TaskFront
from jigsaw_triton.controller.core.standby import in_service
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


def available_rps(state: State) -> Mapping[str, float]:
    """Returns the requests a second that the servers which can be used now carry, by graph.

    This is the capacity of the running plan if all servers can be used. Otherwise it is the share of it that the task
    with the largest part of its throughput missing still has.
    """
    if state.running is None:
        return {}
    graphs, plans = in_service(state.running, state.actual, state.standby).bundle.graphs, state.running.plan.graphs
    return {
        name: plan.capacity_rps * min((_available_share(state, task) for task in graphs[name].tasks), default=1.0)
        for name, plan in plans.items()
    }


def troubles(state: State) -> tuple[str, ...]:
    """Returns what is wrong with the servers, in a sentence each: lost, missing, silent, restarting, or left over."""
    restarting = {name: restarts.cause for name, restarts in state.restarts.items() if restarts.waiting}
    found = [f"{name} is restarting: {cause}" for name, cause in restarting.items()]
    found += [f"GPU {gpu} is lost" for gpu in sorted(state.lost)]
    found += [f"{name} does not answer" for name in sorted(state.stalled - restarting.keys())]
    if state.restore_at_s is not None:
        found.append("the last change could not be completed or undone in full; the controller tries again")
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
    """Returns True if a route of the task leads to a worker that has the model and runs."""
    return any(_leads(state, entry) for entry in state.actual.routes.get(task.name, ()))


def _leads(state: State, entry: RouteEntry) -> bool:
    """Returns True if an entry of a route leads to a worker that has the model and runs."""
    return _usable(state, entry.worker) and any(
        model.name == entry.model for model in state.actual.workers[entry.worker].models
    )


def _available_share(state: State, task: TaskFront) -> float:
    """Returns the share of a task's planned throughput that workers which can be used have; 0 without a gateway."""
    if not _usable(state, GATEWAY):
        return 0.0
    planned = sum(map(_throughput, task.route))
    return sum(_throughput(entry) for entry in task.route if _leads(state, entry)) / planned if planned else 1.0


def _throughput(entry: RouteEntry) -> float:
    """Returns the items a millisecond of an entry, or batches in flight if its profile is not known."""
    service_ms = entry.service_ms.get(str(entry.batch), 0.0)
    return entry.slots * entry.batch / service_ms if service_ms else float(entry.slots)


def _usable(state: State, name: str) -> bool:
    worker = state.actual.workers.get(name)
    exists = state.actual.gateway if name == GATEWAY else worker is not None
    lost = worker is not None and worker.place is not None and worker.place.gpu in state.lost
    return exists and not lost and not state.restarts.get(name, Restarts()).waiting and name not in state.stalled
