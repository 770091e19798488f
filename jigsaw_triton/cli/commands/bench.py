"""`jigsaw-triton bench`: measures a running graph with perf_analyzer."""

import shlex
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.files import load_graph
from jigsaw_triton.cli.inputs import option_types, options
from jigsaw_triton.cli.io.output import Output, figures, listed
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.evaluation.load import EmptyWindowError, Load, Measured, Protocol, request_tensors
from jigsaw_triton.evaluation.perf_analyzer import LoadRun
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

_CONNECT_S = 5.0


@options.command(
    "bench",
    examples=(
        "bench traffic/",
        "bench traffic/ --protocol grpc --concurrency 8 --duration 30",
        "bench traffic/ --rate 40 -o json",
    ),
)
@options.graph()
@options.option(
    "--url",
    metavar="HOST:PORT",
    help="Address of the gateway.  [default: the running deployment's; else 127.0.0.1:8000 (HTTP) or :8001 (gRPC)]",
)
@options.option(
    "--protocol",
    type=click.Choice(("http", "grpc")),
    default="http",
    show_default=True,
    help="Protocol of the requests.",
)
@options.option("--concurrency", type=click.IntRange(min=1), help="Number of requests in flight.  [default: 1]")
@options.option(
    "--rate",
    metavar="RPS",
    type=option_types.Number(min=0, min_open=True),
    help="Send this many requests a second, with Poisson arrivals, instead of --concurrency.",
)
@options.option(
    "--duration",
    metavar="SECONDS",
    type=option_types.Number(min=1),
    default=10.0,
    show_default=True,
    help="Measure for about this long.",
)
@options.state()
def command(
    out: Output,
    graph: str,
    url: str | None,
    protocol: Protocol,
    concurrency: int | None,
    rate: float | None,
    duration: float,
    state: Path | None,
) -> None:
    """Measure a running graph with perf_analyzer.

    Every request sends the graph's `sample`; an input without a sample gets made-up data. The exact perf_analyzer
    command is printed, so that you can run it again. perf_analyzer stops at the first failed request; bench then
    prints the reason and exits with 1. If the graph is swapped during the measurement, perf_analyzer gives up, and
    bench measures once more, for twice as long. Over gRPC each request carries a timeout of ten minutes, so that none
    is refused as late. perf_analyzer cannot send a timeout over HTTP.
    """
    if rate is not None and concurrency is not None:
        raise click.UsageError("--rate and --concurrency cannot be used together; give one of them.")
    found = load_graph(graph)
    deployment = Deployment(state)
    url = url or _address(deployment, protocol)
    load = Load(found.name, protocol, url, concurrency or 1, rate, duration)
    binary, folder = find_perf_analyzer(), deployment.paths.state / "bench"
    tensors, random = request_tensors(found)
    _require_listener(url)
    if random:
        out.warn(f"the graph has no sample of {listed(random)}: random data is sent")

    def measured_with(load: Load) -> tuple[LoadRun, Measured]:
        run = LoadRun(binary, load, folder)
        run.prepare(tensors)
        out.note(shlex.join(run.command))
        with out.working(f"measuring for about {load.duration_s:g} s"):
            return run, run.measure()

    try:
        run, measured = measured_with(load)
    except EmptyWindowError as error:
        # The rise of load has most likely caused a change of generations, which has ended by now.
        out.warn(f"{error.message}; measuring again, for twice as long")
        load = replace(load, duration_s=2 * duration)
        run, measured = measured_with(load)
    data = {
        "graph": found.name,
        "protocol": protocol,
        "url": url,
        "concurrency": load.concurrency if rate is None else None,
        "rate_rps": rate,
        "duration_s": load.duration_s,
        "made_up_inputs": list(random),
        "requests": measured.requests,
        "failed": 0,
        "throughput_rps": measured.throughput_rps,
        "latency_ms": {f"p{p}": ms for p, ms in measured.latency_ms.items()},
        "slo": {
            "latency_ms": found.slo.latency_ms,
            "percentile": found.slo.percentile,
            "met": _met(measured, found.slo),
        },
        "command": list(run.command),
    }
    out.result(data, *_view(found, load, measured))


def _address(deployment: Deployment, protocol: Protocol) -> str:
    status = deployment.find_status()
    running: str | None = status["gateway"].get(protocol) if status is not None else None
    usual = GatewayPorts()
    return running or f"{usual.address}:{usual.grpc if protocol == 'grpc' else usual.http}"


def _require_listener(url: str) -> None:
    """Checks that a server listens at an address, because the error of perf_analyzer is hard to understand.

    Raises:
        InputError: The address is not HOST:PORT.
        StateError: Nothing listens there.
    """
    host, _, port = url.rpartition(":")
    if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(
            f"'{url}' is not HOST:PORT", where="--url", hint="write it without http://, such as 127.0.0.1:8000"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise StateError(
            f"no server answers ({error.strerror or error})",
            where=url,
            hint="deploy the graph with `jigsaw-triton deploy`, or give its address with --url",
        ) from error


def _met(measured: Measured, slo: Slo) -> bool | None:
    """Returns True if the latency is within the SLO; None if its percentile is not reported."""
    found = measured.latency_ms.get(int(slo.percentile)) if slo.percentile == int(slo.percentile) else None
    return None if found is None else found <= slo.latency_ms


def _view(graph: TaskGraph, load: Load, measured: Measured) -> list[Any]:
    kind = f"{load.rate_rps:g} requests/s" if load.rate_rps is not None else f"{load.concurrency} in flight"
    latencies = measured.latency_ms.items()
    header = ("load", "requests", "failed", "requests/s", *(f"p{p} ms" for p, _ in latencies))
    row = (kind, measured.requests, 0, figures(measured.throughput_rps), *(figures(ms) for _, ms in latencies))
    slo = graph.slo
    verdict = f"SLO: p{slo.percentile:g} within {slo.latency_ms:g} ms"
    match _met(measured, slo):
        case True:
            verdict += ", met"
        case False:
            verdict += ", missed"
        case None:
            verdict += ", a percentile that perf_analyzer does not report"
    return [Table.of(header, [row], title=graph.name), verdict]
