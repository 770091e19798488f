"""State of the console's API: the controller's view with the measurements in it. Pure."""

from collections.abc import Mapping
from typing import Any

from jigsaw_triton.console.view import OUTPUTS
from jigsaw_triton.console.web.measured import Measured, Times
from jigsaw_triton.graph.tensors import GRAPH_INPUTS

Json = dict[str, Any]

_DIGITS = 4
"""Significant digits of a measurement, so that noise below them causes no patch."""

ABSENT: Mapping[str, Any] = {
    "deployment": {"state": "absent", "serving": False, "generation": 0, "reasons": [], "emulated": []},
    "gateway": {"state": "absent"},
    "standby_gateway": None,
    "edge": None,
    "nodes": {},
    "graphs": {},
    "gpus": {},
    "workers": {},
    "change": None,
}
"""View of a controller that has never answered."""


def document(view: Mapping[str, Any], measured: Measured, sample: Mapping[str, Any] | None, now_s: float) -> Json:
    """Returns the state.

    Args:
        view: View of the controller (`console.view`).
        measured: Recent measurements.
        sample: Last sample of the load; None if there is none.
        now_s: Present time, in seconds since 1970.
    """
    load = sample["graphs"] if sample is not None else {}
    graphs = {name: _graph(name, graph, measured, load.get(name)) for name, graph in view["graphs"].items()}
    workers = {name: _worker(name, worker, measured) for name, worker in view["workers"].items()}
    return {"now": round(now_s, 3), **view, "graphs": graphs, "workers": workers}


def with_finished_stages(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Json | None:
    """Returns the change in progress with the stages that have ended, which the controller forgets.

    Args:
        before: The change as it was shown last; None if there was none.
        now: The change as the controller has it: the stage in progress, and those to come.
    """
    if now is None:
        return None
    left: list[str] = now["stages"]
    same = before is not None and (before["from"], before["to"], before["why"]) == (now["from"], now["to"], now["why"])
    if not same or before is None:
        return dict(now)
    known: list[str] = before["stages"]
    at = len(known) - len(left)
    if at < before["at"] or known[at:] != left:
        # The stages that have not started were computed anew.
        return {**now, "stages": [*known[: before["at"] + 1], *left], "at": before["at"] + 1}
    return {**now, "stages": known, "at": at}


def _graph(name: str, graph: Json, measured: Measured, load: Mapping[str, Any] | None) -> Json:
    rates_rps = {task: _rate(measured, name, task) for task in graph["tasks"]}
    # The rate of the graph is measured over the same seconds as the rates of its tasks where both are known.
    served_rps = measured.answered_rps.get(name, load["served_rps"] if load is not None else None)
    rates_rps |= {GRAPH_INPUTS: served_rps, OUTPUTS: served_rps}
    tasks = {task: _task(name, task, entry, measured) for task, entry in graph["tasks"].items()}
    edges = [_edge(edge, rates_rps[edge["from"]], rates_rps[edge["to"]]) for edge in graph["edges"]]
    arrivals_rps = load["arrivals_rps"] if load is not None else graph["arrivals_rps"]
    return {**graph, "arrivals_rps": figure(arrivals_rps), "tasks": tasks, "edges": edges}


def _rate(measured: Measured, graph: str, task: str) -> float | None:
    times = measured.tasks.get((graph, task))
    return times.rate_rps if times is not None else None


def _task(graph: str, task: str, entry: Json, measured: Measured) -> Json:
    times = measured.tasks.get((graph, task))
    variants = {}
    for name, variant in entry["variants"].items():
        own = measured.variants.get((graph, task, name))
        share = None if times is None else own.rate_rps / times.rate_rps if own is not None else 0.0
        variants[name] = {
            **variant,
            "share_measured": figure(share),
            "measured": None if own is None else _figures(own),
        }
    found = None if times is None else {**_figures(times), "queue_ms": figure(times.queue_ms)}
    return {**entry, "measured": found, "variants": variants}


def _figures(times: Times) -> Json:
    return {"rate_rps": figure(times.rate_rps), "p50_ms": figure(times.p50_ms), "p99_ms": figure(times.p99_ms)}


def _edge(edge: Json, from_rps: float | None, to_rps: float | None) -> Json:
    fan_out = to_rps / from_rps if from_rps and to_rps is not None and edge["to"] != OUTPUTS else None
    return {**edge, "rate_rps": figure(to_rps), "fan_out_measured": figure(fan_out)}


def _worker(name: str, worker: Json, measured: Measured) -> Json:
    models = []
    for model in worker["models"]:
        service = measured.services.get((name, model["graph"], model["task"], model["variant"]))
        found = None
        if service is not None:
            found = {
                "batches_rps": figure(service.batches_rps),
                "mean_ms": figure(service.mean_ms),
                "slowdown": figure(service.slowdown),
            }
        models.append({**model, "measured": found})
    return {**worker, "models": models}


def figure(value: float | None) -> float | None:
    """Returns a measurement with the digits that are shown."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")
