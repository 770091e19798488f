"""View of a controller for the web console: its state, graphs, GPUs and workers, without measurements."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from jigsaw_triton import __version__
from jigsaw_triton.compiler.bundle import Worker, WorkerModel
from jigsaw_triton.console.status import summary
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.gpus.model import Board, DeviceUse, Placement
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, When
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef
from jigsaw_triton.planner.domain.paths import longest_path
from jigsaw_triton.planner.domain.plan import GraphPlan
from jigsaw_triton.profiles.table import ProfileKey

OUTPUTS = "graph outputs"
"""Name of the end of the edges that lead to the outputs of a graph. No task can have it, since it contains a space."""

_DEPLOYMENT = (
    "state",
    "serving",
    "degraded",
    "reasons",
    "paused",
    "doing",
    "error",
    "generation",
    "driver",
    "emulated",
    "canary",
)
"""Entries of the status that concern the whole deployment."""

_SHOWN = ("state", "slice", "start", "process", "pid", "restarts", "use")
"""Entries of a worker's status that are shown as they are."""


def view(controller: Controller, fleet: Fleet, use: Mapping[str, DeviceUse] = MappingProxyType({})) -> dict[str, Any]:
    """Returns the document State of the web console's API, without measurements.

    Args:
        controller: Running controller.
        fleet: Servers of the controller.
        use: Utilisation of the MIG instances by worker, for the workers for which it is known.
    """
    state, status = controller.state, summary(controller, fleet, use)
    generation = state.running or state.pending
    workers = {worker["name"]: worker for worker in status["workers"]}
    busy = dict(_busy(state))
    return {
        "deployment": {**{name: status[name] for name in _DEPLOYMENT}, "version": __version__},
        "gateway": status["gateway"],
        "standby_gateway": status["standby_gateway"],
        "edge": status["edge"],
        "nodes": {node["name"]: node for node in status["nodes"]},
        "graphs": _graphs(generation, status["graphs"]) if generation is not None else {},
        "gpus": _gpus(state),
        "workers": {
            name: _worker(worker, workers.get(name), busy.get(name), generation)
            for name, worker in sorted(_existing(state).items())
        },
        "change": _change(state),
    }


def _graphs(generation: Generation, status: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _graph(generation.wanted.graphs[name], plan, status.get(name, {}))
        for name, plan in generation.plan.graphs.items()
    }


def _graph(graph: TaskGraph, plan: GraphPlan, status: Mapping[str, Any]) -> dict[str, Any]:
    rates_rps = {
        GRAPH_INPUTS: plan.demand_rps,
        **dict.fromkeys(graph.steps, plan.demand_rps),
        **{name: task.rate_rps for name, task in plan.tasks.items()},
    }
    nodes = tuple(graph.in_order())
    return {
        "demand_rps": plan.demand_rps,
        "capacity_rps": plan.capacity_rps,
        "arrivals_rps": status.get("arrivals_rps"),
        "slo_latency_ms": graph.slo.latency_ms,
        "percentile": graph.slo.percentile,
        "slo_accuracy": graph.slo.accuracy,
        "accuracy": plan.accuracy,
        "latency_ms": plan.latency_ms,
        "target": status.get("target", graph.target),
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "critical_path": list(longest_path(graph, {name: task.budget_ms for name, task in plan.tasks.items()})),
        "tasks": {node.name: _node(node, plan, rates_rps[node.name]) for node in nodes},
        "edges": [edge for node in nodes for edge in _edges_to(node, rates_rps)] + _output_edges(graph),
    }


def _node(node: Task | PythonStep, plan: GraphPlan, rate_rps: float) -> dict[str, Any]:
    if isinstance(node, PythonStep):
        return {"step": True, "budget_ms": node.latency_ms, "rate_rps": rate_rps, "variants": {}}
    planned = plan.tasks[node.name]
    variants = {v.name: {"accuracy": v.accuracy, "share_planned": planned.mix.get(v.name, 0.0)} for v in node.variants}
    return {"step": False, "budget_ms": planned.budget_ms, "rate_rps": rate_rps, "variants": variants}


def _edges_to(node: Task | PythonStep, rates_rps: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Yields an edge for each node whose tensors a node uses."""
    iterates = node.for_each if isinstance(node, Task) else None
    when = node.when if isinstance(node, Task) else None
    refs = [*node.inputs.values(), *([iterates] if iterates else []), *([when.tensor] if when else [])]
    for source, tensors in _by_source(refs).items():
        rate_rps = rates_rps[source]
        yield {
            "from": source,
            "to": node.name,
            "tensors": tensors,
            "for_each": iterates is not None and iterates.task == source,
            "when": _condition(when) if when is not None and when.tensor.task == source else None,
            "fan_out_planned": rates_rps[node.name] / rate_rps if rate_rps > 0 else None,
        }


def _output_edges(graph: TaskGraph) -> list[dict[str, Any]]:
    return [
        {"from": s, "to": OUTPUTS, "tensors": t, "for_each": False, "when": None, "fan_out_planned": None}
        for s, t in _by_source(list(graph.outputs.values())).items()
    ]


def _by_source(refs: list[TensorRef]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for ref in dict.fromkeys(refs):
        found.setdefault(ref.task, []).append(ref.name)
    return found


def _condition(when: When) -> str:
    bound = f"> {when.above:g}" if when.above is not None else f"< {when.below:g}"
    return f"{when.tensor} {bound}"


def _gpus(state: State) -> dict[str, Any]:
    """Returns all GPUs of the cluster, with the MIG instances that exist or are being created."""
    wanted = state.wanted
    if wanted is None:
        return {}
    at: dict[str, dict[Placement, str]] = {}
    for name, worker in sorted(_existing(state).items()):
        if worker.place is not None:
            # Servers that share an instance under MPS share its piece of the picture.
            at.setdefault(str(worker.place.gpu), {}).setdefault(worker.place.placement, name)
    found = {}
    for gpu in wanted.cluster.gpus:
        ours = at.get(str(gpu.id), {})
        foreign = [placement for placement in gpu.foreign if placement not in ours]
        slices = [_piece(gpu.board, place, name) for place, name in ours.items()]
        slices += [_piece(gpu.board, place, None) for place in foreign]
        found[str(gpu.id)] = {
            "node": gpu.id.node,
            "index": gpu.id.index,
            "model": gpu.board.name,
            "size": gpu.board.compute_slices,
            "memory": gpu.board.memory_slices,
            "lost": gpu.id in state.lost,
            "slices": sorted(slices, key=lambda piece: piece["start"]),
        }
    return found


def _piece(board: Board, placement: Placement, worker: str | None) -> dict[str, Any]:
    profile = board.profile(placement.slice)
    return {
        "slice": placement.slice,
        "start": placement.start,
        "size": profile.memory_slices if profile is not None else board.memory_slices,
        "worker": worker,
        "foreign": worker is None,
    }


def _existing(state: State) -> dict[str, Worker]:
    """Returns the workers that exist, and those that are being brought up."""
    coming = {x.worker.name: x.worker for x in state.inflight.values() if isinstance(x, a.BringUp)}
    return {**coming, **state.actual.workers}


def _busy(state: State) -> Iterator[tuple[str, str]]:
    """Yields the workers that an action in progress changes, with the state that this stands for."""
    for action in state.inflight.values():
        match action:
            case a.BringUp(worker):
                yield worker.name, "loading"
            case a.LoadModels(worker=name):
                yield name, "loading"
            case a.Drain(worker=name):
                yield name, "draining"
            case a.Retire(worker):
                yield worker.name, "draining"


def _worker(
    worker: Worker, status: Mapping[str, Any] | None, busy: str | None, generation: Generation | None
) -> dict[str, Any]:
    place = worker.place
    shown: dict[str, Any] = {name: status[name] for name in _SHOWN} if status is not None else {}
    if status is None or (busy is not None and status["state"] == "ready"):
        shown["state"] = busy or "absent"
    standby = {model["name"] for model in status["models"] if model["standby"]} if status is not None else set()
    return {
        **shown,
        "gpu": str(place.gpu) if place is not None else None,
        "slice": place.placement.slice if place is not None else None,
        "start": place.placement.start if place is not None else None,
        "models": [
            {
                "name": model.name,
                "graph": model.graph,
                "task": model.task,
                "variant": model.variant,
                "instances": model.instances,
                "batch": model.batch,
                "standby": model.name in standby,
                "planned": _planned(worker, model, generation),
            }
            for model in worker.models
        ],
    }


def _planned(worker: Worker, model: WorkerModel, generation: Generation | None) -> dict[str, float] | None:
    """Returns the figures of a model's profile; None for chains, steps, and configurations without a profile."""
    table = generation.wanted.profiles.get(model.graph) if generation is not None else None
    place = worker.place
    if table is None or place is None:
        return None
    key = ProfileKey(place.board, model.task, model.variant, place.placement.slice, model.instances, model.batch)
    row = table.get(key)
    if row is None:
        return None
    return {
        "throughput_rps": row.throughput_rps,
        "p50_ms": row.latency_p50_ms,
        "p99_ms": row.latency_p99_ms,
        "memory_mib": row.memory_mib,
    }


def _change(state: State) -> dict[str, Any] | None:
    """Returns the change in progress: its stage, the stages to come, and its actions that have begun."""
    if state.stage is None and not state.stages:
        return None
    running = state.running.bundle.generation if state.running is not None else 0
    pending = state.pending.bundle.generation if state.pending is not None else 0
    stages = [str(stage) for stage in ([] if state.stage is None else [state.stage])]
    why = "rollback of a failed change" if state.rolling_back else state.carried.reason if state.carried else ""
    return {
        "from": running,
        "to": pending,
        "why": why,
        "stages": [*stages, *map(str, state.stages)],
        "at": 0,
        "moves": [move for action in state.inflight.values() if (move := _move(state, action)) is not None],
    }


def _move(state: State, action: a.Action) -> dict[str, Any] | None:
    match action:
        case a.BringUp(worker):
            return _moved(worker, "create")
        case a.Retire(worker):
            return _moved(worker, "destroy")
        case a.RestartWorker(worker):
            return _moved(worker, "load")
        case a.LoadModels(worker=name):
            return _moved(state.actual.workers.get(name), "load")
        case a.UnloadModels(worker=name):
            return _moved(state.actual.workers.get(name), "unload")
        case a.Drain(worker=name):
            return _moved(state.actual.workers.get(name), "drain")
        case a.SetRoutes() | a.Flip() | a.LoadGateway() | a.UnloadGateway() | a.Settle() | a.Compare():
            return {"gpu": None, "kind": "route", "worker": None}
        case _:
            return None


def _moved(worker: Worker | None, kind: str) -> dict[str, Any] | None:
    if worker is None:
        return None
    gpu = str(worker.place.gpu) if worker.place is not None else None
    return {"gpu": gpu, "kind": kind, "worker": worker.name}
