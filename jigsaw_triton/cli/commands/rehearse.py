"""`jigsaw-triton evaluate rehearse`: a trace on real tritonservers with emulated models, beside its simulation."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from jigsaw_triton.api.files import Mistakes
from jigsaw_triton.api.rehearsing import Rehearsed, rehearse
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.setup_document import SETUP, setup_document
from jigsaw_triton.cli.inputs import deployments, option_types, options
from jigsaw_triton.cli.inputs import traces as trace_options
from jigsaw_triton.cli.inputs.demand import parse_demand
from jigsaw_triton.cli.io.output import Output, View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views import changes
from jigsaw_triton.evaluation.operation_plot import plot
from jigsaw_triton.evaluation.plots import check_plot
from jigsaw_triton.evaluation.simulator.accounting import Operation
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.report.numbers import clock

_HEADER = ("from", "requests", "late", "refused", "failed", "violations", "simulated", "slices", "simulated", "changes")
_ROWS = 12
_LAGGING_MS = 20.0
"""Delay of the clients above which a warning says that the machine is too busy."""


@options.command(
    "rehearse",
    examples=(
        "evaluate rehearse app --trace day.csv --gpus 2xcpu --speed 60",
        "evaluate rehearse app --trace day.csv --scale 0.1 --gpus 4xA100-80GB --plot rehearsed.svg",
    ),
)
@options.graphs()
@options.gpus()
@trace_options.trace()
@options.option(
    "--speed",
    metavar="FACTOR",
    type=option_types.Number(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Play the trace this much faster, at the same rates.",
)
@trace_options.scale()
@options.demand(required=False)
@deployments.planning()
@trace_options.seed()
@options.plot("the run")
@options.option(
    "--state",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="New or empty folder of the deployment, which keeps its logs.  [default: a temporary folder]",
)
def command(
    out: Output,
    graphs: tuple[str, ...],
    traces: tuple[str, ...],
    speed: float,
    scale: float,
    demand: tuple[str, ...],
    seed: int,
    plot_path: Path | None,
    gpus: str | None,
    cluster: str | None,
    state: Path | None,
    period_s: float,
    forecast: str,
    window_s: float,
    **planning: Any,
) -> None:
    """Rehearse a deployment over a trace of arrivals, and simulate the same.

    The graphs are deployed with emulated models on emulated GPUs; controller, gateway and workers are real. Clients
    send Poisson arrivals at the rates of the trace, without retries. The controller measures them, plans again, and
    changes the plan. Requests that are late, refused or failed are violations. The result is shown beside the
    simulation of the same requests. At the end, and on Ctrl-C, everything is taken down.
    """
    if plot_path is not None:
        check_plot(plot_path)
    mistakes = Mistakes()
    given = parse_demand(demand, mistakes)
    mistakes.raise_if_any()
    with out.working("reading the files") as report:
        found = rehearse(
            graphs,
            trace_options.parse_traces(traces),
            speed=speed,
            scale=scale,
            demand=given or None,
            gpus=gpus,
            cluster=cluster,
            options=Options(**planning),
            period_s=period_s,
            forecast=forecast,
            window_s=window_s,
            seed=seed,
            state=state,
            progress=report,
            reporter=out,
            wording=COMMAND_LINE,
        )
    if found.lag_ms > _LAGGING_MS:
        out.warn(
            f"this machine is too busy: one of a hundred requests was sent {found.lag_ms:.0f} ms late or later, so "
            "some violations are the machine's"
        )
    if plot_path is not None:
        plot(found.operation, plot_path, simulated=found.simulated.operation)
        out.note(f"wrote {plot_path}")
    out.result(_document(found), *_view(found))


def _intervals(found: Rehearsed) -> Iterator[dict[str, Any]]:
    """Yields the figures of about a dozen intervals of whole seconds, over all graphs."""
    real, simulated = found.operation, found.simulated.operation
    seconds = len(real.slices)
    length = max(1, -(-seconds // _ROWS))
    for begin in range(0, seconds, length):
        part = slice(begin, min(begin + length, seconds))

        def total(name: str, part: slice = part) -> int:
            return int(sum(getattr(one, name)[part].sum() for one in found.requests.values()))

        yield {
            "from_s": begin,
            "requests": total("sent"),
            "late": total("late"),
            "refused": total("refused"),
            "failed": total("failed"),
            "violations": _share(real, part),
            "simulated_violations": _share(simulated, part),
            "slices": float(np.mean(real.slices[part])),
            "simulated_slices": float(np.mean(simulated.slices[part])),
            "changes": _begun(real, part),
            "simulated_changes": _begun(simulated, part),
        }


def _share(run: Operation, part: slice) -> float:
    sent, missed = (sum(float(one[part].sum()) for one in by.values()) for by in (run.arrived, run.violations))
    return missed / sent if sent else 0.0


def _begun(run: Operation, part: slice) -> int:
    return sum(part.start <= change.at_s < part.stop for change in run.changes)


def _document(found: Rehearsed) -> dict[str, Any]:
    simulated = found.simulated
    return {
        "seconds": len(found.operation.slices),
        "requests": {name: one.totals() for name, one in found.requests.items()},
        "rehearsed": _figures(found.operation),
        "simulated": _figures(found.simulated.operation),
        "difference_points": 100 * found.difference,
        "workers": found.workers,
        "client_lag_ms": found.lag_ms,
        "host_load": found.host_load,
        "intervals": list(_intervals(found)),
        SETUP: setup_document(simulated.wanted.graphs, simulated.wanted.profiles, simulated.plan),
    }


def _figures(run: Operation) -> dict[str, Any]:
    return {
        "violation_share": run.violation_share,
        "mean_slices": float(run.slices.mean()),
        "slice_hours": float(run.slices.sum()) / 3600,
        "changes": [asdict(change) for change in run.changes],
    }


def _view(found: Rehearsed) -> Iterator[View]:
    rows = [
        (
            clock(row["from_s"]),
            row["requests"],
            row["late"],
            row["refused"],
            row["failed"],
            f"{row['violations']:.2%}",
            f"{row['simulated_violations']:.2%}",
            f"{row['slices']:.1f}",
            f"{row['simulated_slices']:.1f}",
            f"{row['changes']} ({row['simulated_changes']})",
        )
        for row in _intervals(found)
    ]
    yield Table.of(_HEADER, rows, title="the rehearsal, over all graphs; changes (simulated)")
    real, simulated = found.operation, found.simulated.operation
    yield from changes.lines(real.changes)
    sent = sum(one.totals()["sent"] for one in found.requests.values())
    yield f"{sent} requests, up to {found.workers} workers; host load {figures(found.host_load)} for each processor"
    for name, run in (("rehearsed", real), ("simulated", simulated)):
        yield (
            f"{name}: {run.violation_share:.3%} violations; {run.slices.mean():.1f} slices on average; "
            f"{len(run.changes)} changes"
        )
    yield f"difference: {100 * found.difference:+.3f} percentage points"
