"""`jigsaw-triton trace`: shows where the time of single requests went."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.files import load_graph
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output, drawing, write_file
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.console.trace import Trace, read_traces
from jigsaw_triton.console.trace_picture import draw_svg, draw_text
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.spec.words import nearest

_HINT = (
    "send requests with an id (tritonclient: `infer(..., request_id='7')`; HTTP: the field `id`); under high load only "
    "some of them are traced, and old traces are deleted"
)


@options.command(
    "trace",
    forms=("table", "json", "svg"),
    examples=("trace traffic/", "trace traffic/ --request 7", "trace traffic --request 7 -o svg > trace.svg"),
)
@options.graph()
@options.option(
    "--request", metavar="ID", help="Id that the client gave to the request; the latest of several with this id."
)
@options.option(
    "-n", "--lines", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of requests to list."
)
@options.state()
@options.out_file("Write the picture of the request to this file, as SVG.")
def command(
    out: Output, graph: str, request: str | None, lines: int, state: Path | None, out_path: Path | None
) -> None:
    """Show where the time of a request went, hop by hop. Without --request, list the traced requests.

    A request is traced if its client gives it an id. GRAPH is a graph.yaml, its folder, or the name of a served graph.
    The command exits with 4 if there is no trace.
    """
    deployment = Deployment(state)
    served = deployment.status()["graphs"]
    name = _name(graph, served)
    traces = read_traces(deployment.paths.run, name, request)
    if not traces:
        subject = f"request {request}" if request is not None else "any request"
        raise StateError(f"there is no trace of {subject}", where=name, hint=_HINT)
    if request is None and out.form != "svg" and out_path is None:
        shown = traces[-lines:]
        out.result({"graph": name, "traces": [trace.to_json() for trace in shown]}, _table(shown))
        return
    _show(out, traces[-1], out_path)


def _name(graph: str, served: Mapping[str, Any]) -> str:
    """Returns the name of a graph that is given by its name or path.

    Raises:
        InputError: There is neither a graph of this name nor a file.
        StateError: The graph is not served.
    """
    if graph in served:
        return graph
    if not Path(graph).exists():
        hint = nearest(graph, served, "served graphs")
        raise InputError("there is neither a served graph of this name nor such a file", where=graph, hint=hint)
    name = load_graph(graph).name
    if name not in served:
        raise StateError("the graph is not served", where=name, hint=nearest(name, served, "served graphs"))
    return name


def _show(out: Output, trace: Trace, out_path: Path | None) -> None:
    if out_path is not None:
        write_file(out_path, draw_svg(trace))
        out.note(f"wrote {out_path}")
    if out.form == "svg":
        out.raw(draw_svg(trace))
    else:
        out.result(trace.to_json(), drawing(draw_text(trace, width=out.width)))


def _table(traces: tuple[Trace, ...]) -> Table:
    header = ("began (UTC)", "request", "ms", "outcome", "longest hop", "hop ms")
    return Table.of(header, map(_row, traces))


def _row(trace: Trace) -> tuple[Any, ...]:
    longest = max(trace.stays, key=lambda stay: stay.ended_s - stay.arrived_s)
    began = datetime.fromtimestamp(trace.began_s, UTC).strftime("%H:%M:%S.%f")[:-3]
    longest_ms = 1000 * (longest.ended_s - longest.arrived_s)
    return began, trace.request, f"{trace.total_ms:.1f}", trace.outcome, longest.hop.task, f"{longest_ms:.1f}"
