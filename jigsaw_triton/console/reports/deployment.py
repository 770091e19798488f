"""Report about a running deployment."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree.ElementTree import Element

from jigsaw_triton import __version__
from jigsaw_triton.console.reports.load import Load, load_over_time
from jigsaw_triton.console.reports.plan import notice, plan_facts, plan_sections
from jigsaw_triton.console.reports.profiles import profile_sections
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.request_counts import CountsByGeneration
from jigsaw_triton.controller.persistence.records import JournalEvent, Revision
from jigsaw_triton.profiles.report.figures import ReportFigures
from jigsaw_triton.report.frame import facts, page, section, table
from jigsaw_triton.report.markup import Content, tag
from jigsaw_triton.report.numbers import number, percent

MOST_EVENTS = 100
"""Number of events in a report, the latest."""

_LOAD = ("graph", "#arrivals/s", "#planned for", "#capacity", "#SLO ms", "load")
_REQUESTS = ("graph", "#generation", "#requests", "#not answered", "#p50 ms", "#p99 ms")
_OUTCOMES = ("graph", "#met", "#missed", "#failed", "#within the SLO", "#objective")


@dataclass(frozen=True, slots=True)
class DeploymentFigures:
    """Everything that the report shows.

    Attributes:
        at: Time at which it was gathered.
        status: Status of the deployment, as `status -o json` prints it.
        generation: Generation that serves.
        outcomes: Graph -> outcome (`met`, `missed`, `failed`) -> requests since the gateway started.
        requests: Requests of each generation since the gateway started.
        unread: Reason why the gateway's metrics are missing; empty if they are not.
        load: Load of the last hour.
        history: Generations of the deployment.
        events: Latest events.
        profiles: Figures of the profiles of each graph.
    """

    at: datetime
    status: Mapping[str, Any]
    generation: Generation
    outcomes: Mapping[str, Mapping[str, float]]
    requests: CountsByGeneration
    unread: str
    load: Load
    history: Sequence[Revision]
    events: Sequence[JournalEvent]
    profiles: Sequence[ReportFigures]


def deployment_page(found: DeploymentFigures) -> str:
    """Returns the report about a deployment."""
    wanted, plan, status = found.generation.wanted, found.generation.plan, found.status
    return page(
        f"Deployment of {', '.join(plan.graphs)}",
        *notice(tuple(status["emulated"])),
        facts([*_state(found), *plan_facts(plan), ("Release", __version__)]),
        *_load(found),
        *plan_sections(plan, wanted.graphs, wanted.cluster.gpus),
        *_servers(status),
        *_changes(found.history),
        *_events(found.events),
        *profile_sections(found.profiles),
    )


def _state(found: DeploymentFigures) -> Iterator[tuple[str, str]]:
    status = found.status
    yield "Written", f"{found.at:%Y-%m-%d %H:%M:%S %Z}"
    paused = ", paused" if status["paused"] else ""
    degraded = ", degraded" if status["degraded"] else ""
    yield "State", f"{status['state']}{degraded}{paused}, {'serves' if status['serving'] else 'does not serve'}"
    if status["reasons"]:
        yield "Reasons", "; ".join(status["reasons"])
    yield "Generation", str(status["generation"])
    yield "Servers", f"tritonserver {status['server']['version']}, MIG driver {status['driver']}"
    if (standby := status["standby_gateway"]) is not None:
        yield "Standby gateway", f"{standby['state']}, on node {standby['node']}"
    if status["error"]:
        yield "Last error", status["error"]


def _load(found: DeploymentFigures) -> Iterator[Element]:
    rows: list[list[Content]] = []
    for name, graph in found.status["graphs"].items():
        arrivals = graph["arrivals_rps"]
        over = "exceeds the cluster" if graph["overloaded"] else ""
        figures = (graph["demand_rps"], graph["capacity_rps"], graph["slo_latency_ms"])
        rows.append([name, number(arrivals) if arrivals is not None else "", *map(number, figures), over])
    over_time = load_over_time(found.load, found.generation.wanted.graphs)
    yield section("Load", table(_LOAD, rows), *_attainment(found), *over_time, name="load")


def _attainment(found: DeploymentFigures) -> Iterator[Element]:
    if found.unread:
        yield tag("p", f"The gateway's metrics are missing: {found.unread}", class_="soft")
        return
    yield tag("h3", "SLO attainment since the gateway started")
    graphs = found.generation.wanted.graphs
    rows = []
    for name, counts in found.outcomes.items():
        values = [counts.get(outcome, 0.0) for outcome in ("met", "missed", "failed")]
        share = percent(values[0] / sum(values)) if sum(values) else "no requests"
        objective = percent(graphs[name].slo.percentile / 100) if name in graphs else ""
        rows.append([name, *(f"{value:,.0f}" for value in values), share, objective])
    yield table(_OUTCOMES, rows) if rows else tag("p", "No graph counts requests by outcome.", class_="soft")
    lines = []
    for (name, generation), one in found.requests.items():
        times = [one.percentile_s(percentile) for percentile in (50.0, 99.0)]
        shown = ["" if time is None else _bound(time) for time in times]
        lines.append([name, str(generation), f"{one.requests:,.0f}", f"{one.failed:,.0f}", *shown])
    if lines:
        yield tag("h3", "Latency of each generation")
        yield table(_REQUESTS, lines)


def _bound(time_s: float) -> str:
    """Returns a bound of the histogram in milliseconds; the last one is infinite."""
    return f"up to {number(1000 * time_s)}" if math.isfinite(time_s) else "over 10,000"


def _servers(status: Mapping[str, Any]) -> Iterator[Element]:
    nodes = [
        [
            node["name"],
            node["state"],
            ", ".join(f"{count} {model}" for model, count in node["gpus"].items()),
            ", ".join(map(str, node["lost"])),
        ]
        for node in status["nodes"]
    ]
    workers = [
        [
            worker["name"],
            worker["state"],
            worker["slice"] or "",
            ", ".join(f"{m['task']} {m['variant']} {m['instances']}x b{m['batch']}" for m in worker["models"]),
            str(worker["restarts"]),
        ]
        for worker in status["workers"]
    ]
    yield section(
        "Servers",
        table(("node", "state", "GPUs", "lost GPUs"), nodes),
        tag("details", tag("summary", f"{len(workers)} workers"), table(_WORKERS, workers)),
        name="servers",
    )


_WORKERS = ("worker", "state", "slice", "models", "#recent restarts")


def _changes(history: Sequence[Revision]) -> Iterator[Element]:
    rows = [
        [str(r.number), _seconds(r.at), r.by, f"{r.slices} of {r.slices_total}", r.outcome or "in progress", r.reason]
        for r in reversed(history)
    ]
    header = ("#generation", "at", "by", "slices", "outcome", "reason")
    yield section("Changes", table(header, rows, style="wide words"), name="changes")


def _events(events: Sequence[JournalEvent]) -> Iterator[Element]:
    rows = [[_seconds(event.at), event.kind, event.text] for event in reversed(events)]
    yield section("Latest events", table(("at", "kind", "event"), rows, style="wide words"), name="events")


def _seconds(at: str) -> str:
    """Returns a time in ISO 8601 without fractions of seconds."""
    return at.partition(".")[0].replace("T", " ")
