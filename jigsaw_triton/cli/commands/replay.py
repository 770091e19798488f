"""`jigsaw-triton evaluate replay`: replays a trace on this project's controller and on the paper's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from jigsaw_triton.api.replaying import PEAK, Check, replay
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs import traces as trace_options
from jigsaw_triton.cli.inputs.systems import Parts, parse_systems, system
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views import systems as view
from jigsaw_triton.cli.views.systems import Figures, Shown
from jigsaw_triton.evaluation.plots import check_plot
from jigsaw_triton.evaluation.replay import Replayed
from jigsaw_triton.evaluation.replay_plot import BIN_S, plot
from jigsaw_triton.evaluation.simulator.accounting import Operation

CHECK_S = 3600
"""Seconds that are simulated event by event with --check."""


@options.command(
    "replay",
    examples=(
        "evaluate replay traffic/ --trace day.csv --gpus 4xA100-80GB --plot day.svg",
        "evaluate replay traffic/ --trace day.csv --gpus 4xA100-80GB --system exact:AST --system paper:AST --check",
    ),
)
@options.graphs()
@options.cluster()
@trace_options.trace()
@trace_options.peak(PEAK)
@trace_options.scale(
    default=None, show_default=False, help="Multiply all rates of the trace by this factor, instead of --peak."
)
@system()
@options.option("--check", is_flag=True, help="Simulate the first hour event by event too, and print the difference.")
@options.forecast()
@trace_options.seed()
@options.plot("load, slices and violations")
def command(
    out: Output,
    graphs: tuple[str, ...],
    gpus: str | None,
    cluster: str | None,
    driver: Any,
    traces: tuple[str, ...],
    peak: float,
    scale: float | None,
    systems: tuple[str, ...],
    check: bool,
    forecast: str,
    window_s: float,
    seed: int,
    plot_path: Path | None,
) -> None:
    """Replay a trace on this project's controller and on the paper's.

    The paper's controller (JigsawServe) plans every five minutes for the load of the last five, with the paper's
    formulation, and a GPU that it cuts anew is out of service meanwhile. Each system runs over the whole trace and pays
    for its changes. The servers exist only as numbers; what they answer on time is measured by an event-by-event
    simulation of each plan. Violations are late, refused and failed requests, as a share of all.
    """
    if scale is not None and peak != PEAK:
        raise click.UsageError("--peak and --scale exclude each other; leave one of them out.")
    if plot_path is not None:
        check_plot(plot_path)
    contenders = parse_systems(systems)
    with out.working("simulating") as report:
        found = replay(
            graphs,
            trace_options.parse_traces(traces),
            contenders=contenders,
            peak=peak,
            scale=scale,
            gpus=gpus,
            cluster=cluster,
            driver=driver,
            forecast=forecast,
            window_s=window_s,
            check_s=CHECK_S if check else 0,
            seed=seed,
            progress=Parts(report),
            reporter=out,
            wording=COMMAND_LINE,
        )
    total = found.wanted.cluster.compute_slices
    if plot_path is not None:
        plot(found.systems, plot_path, title=f"{total} compute slices, trace times {found.scale:.3g}")
        out.note(f"wrote {plot_path}")
    shown = [_shown(one, found.checks.get(one.contender)) for one in found.systems]
    notes = [
        f"{contender}, first hour: {check.fluid:.3%} violations, {check.events:.3%} event by event; "
        f"{100 * (check.fluid - check.events):+.3f} points"
        for contender, check in found.checks.items()
    ]
    out.result(
        view.document(shown, total, found.scale),
        *view.view(shown, total, title="means over the trace", columns=("changes",), notes=notes),
    )


def _shown(one: Replayed, check: Check | None) -> Shown:
    run = one.operation
    if run is None:
        return Shown(one.contender, None, one.reason)
    figures: dict[str, Any] = {
        "requests": run.sent,
        "slice_hours": float(run.slices.sum()) / 3600,
        "changes": len(run.changes),
        "intervals": list(_intervals(run)),
    }
    if check is not None:
        figures["check"] = {"seconds": CHECK_S, "fluid": check.fluid, "events": check.events}
    accuracy = min(float(values.mean()) for values in run.accuracy.values())
    columns = (str(len(run.changes)),)
    return Shown(
        one.contender, Figures(float(run.slices.mean()), run.violation_share, accuracy, columns, document=figures)
    )


def _intervals(run: Operation) -> Iterator[dict[str, float]]:
    arrived, violations = (np.sum(list(counts.values()), axis=0) for counts in (run.arrived, run.violations))
    for begin in range(0, len(run.slices), BIN_S):
        part = slice(begin, begin + BIN_S)
        yield {
            "from_s": begin,
            "arrivals_rps": float(arrived[part].mean()),
            "slices": float(run.slices[part].mean()),
            "violations": float(violations[part].sum() / max(1e-9, arrived[part].sum())),
        }
