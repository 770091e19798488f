"""`jigsaw-triton simulate`: simulates a deployment over a trace of arrivals."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jigsaw_triton.api.files import Mistakes
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.setup_document import SETUP, setup_document
from jigsaw_triton.api.simulating import Simulated, simulate
from jigsaw_triton.cli.inputs import deployments, options
from jigsaw_triton.cli.inputs import traces as trace_options
from jigsaw_triton.cli.inputs.demand import parse_demand
from jigsaw_triton.cli.io.output import Output, View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views import changes
from jigsaw_triton.evaluation.operation_plot import plot
from jigsaw_triton.evaluation.plots import check_plot
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.report.numbers import clock

_HEADER = ("from", "arrivals/s", "peak/s", "capacity/s", "slices", "accuracy", "violations", "changes")
_ROWS = 12


@options.command(
    "simulate",
    examples=(
        "simulate app --trace day.csv --gpus 4xA100-80GB",
        "simulate app --trace day.csv --scale 0.5 --gpus 2xA100-80GB --plot day.svg",
        "simulate traffic social --trace traffic=cars.csv --trace social=posts.csv --cluster cluster.yaml",
    ),
)
@options.graphs()
@options.cluster()
@trace_options.trace()
@trace_options.scale()
@options.demand(required=False)
@deployments.planning()
@trace_options.seed()
@options.plot("the run")
def command(
    out: Output,
    graphs: tuple[str, ...],
    traces: tuple[str, ...],
    scale: float,
    demand: tuple[str, ...],
    forecast: str,
    window_s: float,
    period_s: float,
    seed: int,
    plot_path: Path | None,
    gpus: str | None,
    cluster: str | None,
    driver: Any,
    **planning: Any,
) -> None:
    """Simulate a deployment over a trace of arrivals.

    The controller that `deploy` starts runs on the trace, much faster than real time: it measures the arrivals, plans
    again, and changes the plan step by step. The servers exist only as numbers. Requests that they would answer late or
    refuse are violations; an event-by-event simulation of each plan finds how many. The trace is a CSV file with a
    column `second` or `t_start_s`, and a column `rps`, `mean_rps` or `requests`.
    """
    if plot_path is not None:
        check_plot(plot_path)
    mistakes = Mistakes()
    given = parse_demand(demand, mistakes)
    mistakes.raise_if_any()
    with out.working("simulating") as report:

        def progress(part: float) -> None:
            tenth = int(10 * part)
            if tenth > reported[-1]:
                reported.append(tenth)
                report(f"simulating: {tenth}0%")

        reported = [0]
        simulated = simulate(
            graphs,
            trace_options.parse_traces(traces),
            scale=scale,
            demand=given or None,
            gpus=gpus,
            cluster=cluster,
            driver=driver,
            options=Options(**planning),
            forecast=forecast,
            window_s=window_s,
            period_s=period_s,
            seed=seed,
            progress=progress,
            reporter=out,
            wording=COMMAND_LINE,
        )
    if plot_path is not None:
        plot(simulated.operation, plot_path)
        out.note(f"wrote {plot_path}")
    out.result(_document(simulated), *_view(simulated))


def _intervals(simulated: Simulated) -> Iterator[dict[str, Any]]:
    """Yields the figures of about a dozen intervals of whole minutes, over all graphs."""
    run = simulated.operation
    seconds = len(run.slices)
    length = max(60, -(-seconds // (_ROWS * 60)) * 60)
    arrived, violations, capacity = (
        np.sum(list(by_graph.values()), axis=0) for by_graph in (run.arrived, run.violations, run.capacity_rps)
    )
    for begin in range(0, seconds, length):
        part = slice(begin, min(begin + length, seconds))
        sent = float(np.sum(arrived[part]))
        yield {
            "from_s": begin,
            "arrivals_rps": float(np.mean(arrived[part])),
            "peak_rps": float(np.max(arrived[part])),
            "capacity_rps": float(np.mean(capacity[part])),
            "slices": float(np.mean(run.slices[part])),
            "accuracy": min(float(np.mean(accuracy[part])) for accuracy in run.accuracy.values()),
            "violations": float(np.sum(violations[part])) / sent if sent else 0.0,
            "changes": sum(part.start <= change.at_s < part.stop for change in run.changes),
        }


def _document(simulated: Simulated) -> dict[str, Any]:
    run = simulated.operation
    return {
        "seconds": len(run.slices),
        "requests": {name: float(counts.sum()) for name, counts in run.arrived.items()},
        "violations": {name: float(counts.sum()) for name, counts in run.violations.items()},
        "violation_share": run.violation_share,
        "mean_slices": float(run.slices.mean()),
        "slice_hours": float(run.slices.sum()) / 3600,
        "intervals": list(_intervals(simulated)),
        "changes": [asdict(change) for change in run.changes],
        SETUP: setup_document(simulated.wanted.graphs, simulated.wanted.profiles, simulated.plan),
    }


def _view(simulated: Simulated) -> Iterator[View]:
    run = simulated.operation
    rows = [
        (
            clock(row["from_s"]),
            figures(row["arrivals_rps"]),
            figures(row["peak_rps"]),
            figures(row["capacity_rps"]),
            f"{row['slices']:.1f}",
            f"{row['accuracy']:.3f}",
            f"{row['violations']:.2%}",
            row["changes"],
        )
        for row in _intervals(simulated)
    ]
    yield Table.of(_HEADER, rows, title="the run, over all graphs")
    yield from changes.lines(run.changes)
    total = sum(float(counts.sum()) for counts in run.arrived.values())
    yield (
        f"{total:.0f} requests, {run.violation_share:.3%} of them violations; "
        f"{run.slices.mean():.1f} of {_all_slices(simulated)} slices on average; {len(run.changes)} changes"
    )


def _all_slices(simulated: Simulated) -> int:
    return sum(gpu.board.compute_slices for gpu in simulated.wanted.cluster.gpus)
