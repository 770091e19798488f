"""The status of a deployment as lines, tables and a drawing of the GPUs."""

from collections.abc import Iterator
from typing import Any

from jigsaw_triton.cli.io.output import Output, View, drawing, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.gpus.board import draw_text
from jigsaw_triton.planner.domain.picture import planned_gpus, strips
from jigsaw_triton.planner.domain.plan_reader import plan_from_json
from jigsaw_triton.sizes import readable


def status_view(status: dict[str, Any], out: Output) -> list[View]:
    """Returns the parts of a status, to be printed one below the other."""
    parts: list[View] = []
    doing = f", {status['doing']}" if status["doing"] else ""
    degraded = ", degraded" if status["degraded"] else ""
    paused = ", paused" if status["paused"] else ""
    serving = "" if status["serving"] else ", not serving"
    parts.append(f"{status['state']}{serving}{degraded}{paused}{doing}, generation {status['generation']}")
    parts += status["reasons"]
    parts += [f"emulated: {sentence}" for sentence in status["emulated"]]
    if image := status["server"]["workers"]["image"]:
        parts.append(f"workers run from the image {image}")
    parts += _endpoints(status)
    if otlp := status.get("otlp"):
        parts.append(_traces(otlp))
    if energy := status.get("energy"):
        parts += _energy(energy)
    if (files := status.get("model_files")) and files["bytes"]:
        parts.append(f"copies of model files: {readable(files['bytes'])} in {files['folder']}")
    if status["error"]:
        parts.append(f"last change failed: {status['error']}")
    if status["canary"] is not None:
        parts += _canary(status["canary"])
    parts += [f"measured: {sentence}" for graph in status["graphs"].values() for sentence in graph["rows"]]
    parts += [
        f"standby variants serve {name}: capacity {figures(graph['standby']['capacity_rps'])} requests/s, "
        f"accuracy {graph['standby']['accuracy']:.3f}"
        for name, graph in status["graphs"].items()
        if graph["standby"] is not None and graph["standby"]["serving"]
    ]
    parts.append("")
    parts.append(_graphs(status))
    parts.append(_workers(status))
    if status["plan"] is not None:
        plan = plan_from_json(status["plan"], where="the running plan")
        parts.append(drawing(draw_text(strips(plan, planned_gpus(plan)), width=out.width)))
    return parts


def _endpoints(status: dict[str, Any]) -> Iterator[str]:
    """Yields a line about each server that clients reach."""
    gateway = status["gateway"]
    if "http" in gateway:
        yield f"gateway: {gateway['state']}, http {gateway['http']}, grpc {gateway['grpc']}, {gateway['metrics']}"
    if standby := status.get("standby_gateway"):
        line = "in sync" if standby["in_line"] else "not in sync"
        yield (
            f"standby gateway: {standby['state']} and {line} on node {standby['node']}, http {standby['http']}, "
            f"grpc {standby['grpc']}, {standby['metrics']}"
        )
    if edge := status.get("edge"):
        guards = (
            ("TLS", edge["tls"]),
            ("client certificates", edge["client_certificates"]),
            ("keys", edge["api_keys"]),
        )
        guarded = "".join(f", {word}" for word, enabled in guards if enabled)
        yield f"edge: {edge['state']}, {edge['kind']} {edge['version']}{guarded}, {edge['metrics']}"


def _traces(otlp: dict[str, Any]) -> str:
    """Returns a line about the export of traces."""
    dropped = sum(otlp["dropped"].values())
    lost = f", {dropped} dropped" if dropped else ""
    failing = f": {otlp['error']}" if otlp["error"] else ""
    share = f"{100 * otlp['sample']:g}% of the requests"
    return f"traces: {otlp['state']}, {share} to {otlp['endpoint']}, {otlp['exported']} spans exported{lost}{failing}"


def _energy(energy: dict[str, Any]) -> list[str]:
    """Returns a line about the energy of the GPUs, once it is known."""
    if energy["watts"] is None:
        return []
    joules = energy["joules_per_request"]
    each = f", {figures(joules)} joules a request" if joules is not None else ""
    return [f"GPUs in use: {figures(energy['watts'])} W{each}"]


def _canary(canary: dict[str, Any]) -> list[str]:
    """Returns lines about a canary: its state, and the requests of each generation."""
    share = f"canary of {100 * canary['share']:g}%, generation {canary['generation']}"
    if canary["verdict"] is not None:
        return [f"{share}: {canary['verdict']}"]
    if canary["elapsed_s"] is None:
        return [f"{share}: has not begun"]
    lines = [f"{share}: {canary['elapsed_s']:.0f} of {canary['seconds']:g} s"]
    for graph, by in canary["graphs"].items():
        for name, found in ((canary["generation"], by["new"]), (canary["running"], by["running"])):
            p99 = f"{figures(found['p99_ms'])} ms" if found["p99_ms"] is not None else "unknown"
            counts = f"{found['requests']:.0f} requests, {found['failed']:.0f} failed, p99 {p99}"
            lines.append(f"  {graph}, generation {name}: {counts}")
    return lines


def _capacity(graph: dict[str, Any]) -> str:
    """Returns the capacity of a graph, with what is left of it while servers cannot be used."""
    planned = figures(graph["capacity_rps"])
    # The controller of an earlier release does not say what is left.
    available = figures(graph.get("available_rps", graph["capacity_rps"]))
    return planned if planned == available else f"{available} of {planned}"


def _graphs(status: dict[str, Any]) -> Table:
    header = ("graph", "target", "arrivals/s", "planned/s", "capacity/s", "latency ms", "SLO ms", "accuracy", "SLO")
    rows = [
        (
            name,
            graph["target"],
            figures(graph["arrivals_rps"]) if graph["arrivals_rps"] is not None else "-",
            figures(graph["demand_rps"]),
            _capacity(graph),
            figures(graph["latency_ms"]),
            figures(graph["slo_latency_ms"]),
            f"{graph['accuracy']:.3f}",
            f"{graph['slo_accuracy']:.3f}",
        )
        for name, graph in status["graphs"].items()
    ]
    return Table.of(header, rows)


def _worker(worker: dict[str, Any], *, with_use: bool) -> tuple[object, ...]:
    """Returns the cells of a worker, which are in the row of its first model.

    Args:
        worker: Worker of a status.
        with_use: True if the table has columns for memory and utilisation.
    """
    cells = (worker["name"], worker["state"], worker["pid"], worker["restarts"])
    if not with_use:
        return cells
    use = worker["use"]
    if use is None:
        return (*cells, "-", "-")
    busy = "-" if use["busy"] is None else f"{use['busy']:.0%}"
    return (*cells, f"{use['memory_mib']} of {use['memory_total_mib']}", busy)


def _workers(status: dict[str, Any]) -> Table:
    with_use = any(w["use"] is not None for w in status["workers"])
    columns = ("worker", "state", "pid", "restarts", *(("MiB", "SMs busy") if with_use else ()))
    header = (*columns, "model", "instances", "batch")
    rows = [
        (
            *(_worker(w, with_use=with_use) if number == 0 else ("",) * len(columns)),
            f"{model['name']} (standby)" if model["standby"] else model["name"],
            model["instances"],
            model["batch"],
        )
        for w in status["workers"]
        for number, model in enumerate(w["models"])
    ]
    return Table.of(header, rows)
