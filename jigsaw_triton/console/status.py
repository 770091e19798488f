"""Status of a running deployment as one JSON document."""

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from jigsaw_triton.console.emulated import emulated_parts
from jigsaw_triton.console.metrics import Reading, WorkerState
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.request_counts import RequestCounts
from jigsaw_triton.controller.core.rows import deviations, measured
from jigsaw_triton.controller.core.service import available_rps, troubles, unserved
from jigsaw_triton.controller.core.standby import idle, in_service
from jigsaw_triton.controller.core.state import GATEWAY, Restarts, State
from jigsaw_triton.controller.energy import EnergyMeter
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.gpus.model import DeviceUse


def snapshot(
    controller: Controller, fleet: Fleet, use: Mapping[str, DeviceUse] = MappingProxyType({})
) -> dict[str, Any]:
    """Returns the status, which is the document that `status -o json` prints.

    Args:
        controller: Running controller.
        fleet: Servers of the controller.
        use: Utilisation of the MIG instances by worker, for the workers for which it is known.
    """
    running = controller.state.running
    return {**summary(controller, fleet, use), "plan": running.plan.to_json() if running is not None else None}


def summary(
    controller: Controller, fleet: Fleet, use: Mapping[str, DeviceUse] = MappingProxyType({})
) -> dict[str, Any]:
    """Returns the status without the plan, which takes most of the time; see `snapshot`."""
    state = controller.state
    serving = in_service(state.running, state.actual, state.standby) if state.running is not None else None
    workers = [_worker(state, fleet, name, use.get(name), serving) for name in sorted(state.actual.workers)]
    return {**overview(controller, fleet), "workers": workers}


def reading(controller: Controller, fleet: Fleet) -> Reading:
    """Returns the values of the metrics. Those of a thousand GPUs are quickly gathered; writing them takes longer."""
    state = controller.state
    workers = tuple(
        WorkerState(
            name,
            worker.node if worker.place is not None else "",
            worker.place.placement.slice if worker.place is not None else "",
            _worker_state(state, name) == "ready",
        )
        for name, worker in sorted(state.actual.workers.items())
    )
    plan = state.running.plan if state.running is not None else None
    return Reading(overview(controller, fleet), plan, workers, controller.totals.copy())


def overview(controller: Controller, fleet: Fleet) -> dict[str, Any]:
    """Returns the status without the plan and the workers."""
    state = controller.state
    running, server = state.running, fleet.commands.installation
    failing, degrading = list(unserved(state)), list(troubles(state))
    edge = fleet.edge.status()
    if not failing and edge is not None and edge["state"] != "ready":
        failing.append("the edge does not serve")
    standby = fleet.replication.status()
    if standby is not None and (standby["failure"] or standby["state"] != "ready"):
        failure = f" and not in sync: {standby['failure']}" if standby["failure"] else ""
        degrading.append(f"the standby gateway on node {standby['node']} is {standby['state']}{failure}")
    if controller.journal_failure:
        degrading.append(f"journal: {controller.journal_failure}")
    return {
        "state": state.phase.value,
        "serving": not failing,
        "degraded": bool(degrading),
        "reasons": [*failing, *degrading],
        "journal_incomplete": bool(controller.journal_failure),
        "paused": state.paused,
        "canary": _canary(state),
        "doing": str(state.stage) if state.stage is not None else "",
        "error": state.error,
        "error_code": state.error_code,
        "generation": running.bundle.generation if running is not None else 0,
        "driver": fleet.driver,
        "emulated": list(emulated(running or state.pending)),
        "controller": {"pid": os.getpid(), "supervisor": os.getppid()},
        "server": {"version": server.version, "origin": server.origin, "workers": _workers_server(fleet)},
        "gateway": _gateway(state, fleet),
        "standby_gateway": standby,
        "edge": edge,
        "otlp": fleet.traces.status(),
        "energy": _energy(controller.energy),
        "model_files": {"folder": str(fleet.files.folder), "bytes": fleet.files.size_bytes},
        "nodes": _nodes(state, fleet),
        "graphs": _graphs(controller, running) if running is not None else {},
    }


def emulated(generation: Generation | None) -> tuple[str, ...]:
    """Describes the emulated parts of a generation, one sentence each."""
    if generation is None:
        return ()
    return emulated_parts(generation.wanted.graphs, generation.wanted.cluster)


def _canary(state: State) -> dict[str, Any] | None:
    """Returns the canary of the change in progress, or of the last change; None if it had none."""
    watch = state.watch
    if watch is None:
        return None
    began_s, verdict = watch.began_s, watch.verdict
    return {
        "share": watch.canary.share,
        "seconds": watch.canary.seconds,
        "elapsed_s": state.now_s - began_s if began_s is not None and verdict is None else None,
        "generation": watch.new,
        "running": watch.running,
        "verdict": str(verdict) if verdict is not None else None,
        "graphs": {
            name: {"new": _requests(pair.new), "running": _requests(pair.running)}
            for name, pair in watch.graphs.items()
        },
    }


def _requests(counts: RequestCounts) -> dict[str, Any]:
    p99_s = counts.percentile_s(99.0)
    return {
        "requests": counts.requests,
        "failed": counts.failed,
        # A percentile in the last bucket of the histogram is infinite, which JSON cannot express.
        "p99_ms": p99_s * 1000 if p99_s is not None and math.isfinite(p99_s) else None,
    }


def _gateway(state: State, fleet: Fleet) -> dict[str, Any]:
    server = fleet.server(Fleet.GATEWAY)
    wanted = state.running.wanted if state.running is not None else state.wanted
    if wanted is None:
        return {"state": "absent"}
    ports = wanted.cluster.gateway
    return {
        "state": _server_state(state, GATEWAY, state.actual.gateway),
        "pid": server.process.pid if server is not None else None,
        "ports": asdict(ports),
        "http": f"{ports.address}:{ports.http}",
        "grpc": f"{ports.address}:{ports.grpc}",
        "metrics": f"http://{ports.address}:{ports.metrics}/metrics",
        "restarts": len(state.restarts.get(GATEWAY, Restarts()).at_s),
    }


def _workers_server(fleet: Fleet) -> dict[str, Any]:
    """Returns the version of the workers' tritonserver and its container image."""
    commands = fleet.commands
    version = fleet.nodes.version or commands.workers.version
    return {"version": version, "image": commands.image.name if commands.image is not None else None}


def _nodes(state: State, fleet: Fleet) -> list[dict[str, Any]]:
    """Returns the nodes of the cluster, in the order of their names."""
    wanted = state.wanted
    if wanted is None:
        return []
    agents = fleet.nodes.addresses
    boards: dict[str, Counter[str]] = {}
    for gpu in wanted.cluster.gpus:
        boards.setdefault(gpu.id.node, Counter())[gpu.board.name] += 1
    workers: dict[str, list[str]] = {}
    for worker in state.actual.workers.values():
        if worker.place is not None:
            workers.setdefault(worker.node, []).append(worker.name)
    topology = wanted.cluster.topology
    away = {node.name: "lost" if node.away else "agent away" for node in fleet.nodes if node.away or node.headless}
    return [
        {
            "name": name,
            "agent": agents.get(name),
            "state": away.get(name) or ("cordoned" if name in state.cordoned else "ready"),
            "cordoned": name in state.cordoned,
            "topology": dict(sorted(topology.get(name, {}).items())),
            "gpus": dict(sorted(counts.items())),
            "lost": sorted(gpu.index for gpu in state.lost if gpu.node == name),
            "workers": sorted(workers.get(name, ())),
        }
        for name, counts in sorted(boards.items())
    ]


def _graphs(controller: Controller, running: Generation) -> dict[str, Any]:
    state = controller.state
    graphs, available = {}, available_rps(state)
    for name, plan in running.plan.graphs.items():
        graph = running.wanted.graphs[name]
        slo = graph.slo
        graphs[name] = {
            "target": running.bundle.graphs[name].target,
            "arrivals_rps": controller.rates_rps.get(name),
            "demand_rps": plan.demand_rps,
            "base_rps": running.wanted.demand_rps[name],
            "capacity_rps": plan.capacity_rps,
            "available_rps": available[name],
            "latency_ms": plan.latency_ms,
            "slo_latency_ms": slo.latency_ms,
            "percentile": slo.percentile,
            "overloaded": name in state.overloaded,
            "accuracy": plan.accuracy,
            "slo_accuracy": slo.accuracy,
            "standby": None if plan.standby is None else {**asdict(plan.standby), "serving": name in state.standby},
            "rows": list(deviations(graph, measured(graph, state.counts, state.settings))),
        }
    return graphs


def _worker(state: State, fleet: Fleet, name: str, use: DeviceUse | None, serving: Generation | None) -> dict[str, Any]:
    worker = state.actual.workers[name]
    place = worker.place
    process = fleet.process(name)
    idle_models = idle(worker, serving)
    return {
        "name": name,
        "state": _worker_state(state, name),
        "node": place.gpu.node if place is not None else None,
        "gpu": place.gpu.index if place is not None else None,
        "model": place.board if place is not None else None,
        "slice": place.placement.slice if place is not None else None,
        "start": place.placement.start if place is not None else None,
        "process": worker.process,
        "uuid": process.uuid if process is not None else "",
        "pid": process.pid if process is not None else None,
        "restarts": len(state.restarts.get(name, Restarts()).at_s),
        "use": asdict(use) if use is not None else None,
        "models": [
            {
                "name": m.name,
                "graph": m.graph,
                "task": m.task,
                "variant": m.variant,
                "instances": m.instances,
                "batch": m.batch,
                "standby": m.name in idle_models,
            }
            for m in worker.models
        ],
    }


def _energy(meter: EnergyMeter) -> dict[str, Any] | None:
    """Returns the energy of the GPUs; None where no driver counts it."""
    if not meter.counters:
        return None
    return {
        "joules": {str(gpu): joules for gpu, joules in sorted(meter.counters.items())},
        "watts": meter.watts,
        "joules_per_request": meter.joules_per_request,
    }


def _worker_state(state: State, name: str) -> str:
    place = state.actual.workers[name].place
    return "lost" if place is not None and place.gpu in state.lost else _server_state(state, name, True)


def _server_state(state: State, name: str, exists: bool) -> str:
    restarts = state.restarts.get(name, Restarts())
    if restarts.waiting:
        return "restarting"
    return "ready" if exists else "absent"
