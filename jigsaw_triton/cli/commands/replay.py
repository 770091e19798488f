"""`jigsaw-triton evaluate replay`: replays a trace on this project's controller and on the paper's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from jigsaw_triton.api.replaying import PEAK, Check, Replay, replay
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs import traces as trace_options
from jigsaw_triton.cli.inputs.systems import Parts, parse_systems, published_columns, published_document, system
from jigsaw_triton.cli.io.output import Output, View
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.evaluation.plots import check_plot
from jigsaw_triton.evaluation.replay import Replayed
from jigsaw_triton.evaluation.replay_plot import BIN_S, plot
from jigsaw_triton.evaluation.simulator.accounting import Operation

CHECK_S = 3600
"""Seconds that are simulated event by event with --check."""

_HEADER = ("system", "slices", "of all", "violations", "accuracy", "changes", "published slices", "violations")


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
@options.option(
    "--peak",
    metavar="SHARE",
    type=options.Number(min=0, min_open=True),
    default=PEAK,
    show_default=True,
    help="Scale the trace so that its highest rate needs this share of the cluster's capacity.",
)
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
    if plot_path is not None:
        plot(found.systems, plot_path, title=f"{_slices(found)} compute slices, trace times {found.scale:.3g}")
        out.note(f"wrote {plot_path}")
    out.result(_document(found), *_view(found))


def _slices(found: Replay) -> int:
    return found.wanted.cluster.compute_slices


def _document(found: Replay) -> dict[str, Any]:
    return {
        "scale": found.scale,
        "slices_total": _slices(found),
        "systems": [_of_system(one, found.checks.get(one.contender)) for one in found.systems],
        "published": published_document(),
    }


def _of_system(one: Replayed, check: Check | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "formulation": one.contender.formulation,
        "features": one.contender.features,
        "reason": one.reason,
    }
    if one.operation is not None:
        run = one.operation
        document |= {
            "requests": run.sent,
            "violations": run.violation_share,
            "mean_slices": float(run.slices.mean()),
            "slice_hours": float(run.slices.sum()) / 3600,
            "accuracy": _accuracy(run),
            "changes": len(run.changes),
            "intervals": list(_intervals(run)),
        }
    if check is not None:
        document["check"] = {"seconds": CHECK_S, "fluid": check.fluid, "events": check.events}
    return document


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


def _accuracy(run: Operation) -> float:
    return min(float(values.mean()) for values in run.accuracy.values())


def _view(found: Replay) -> Iterator[View]:
    yield Table.of(_HEADER, (_row(one, _slices(found)) for one in found.systems), title="means over the trace")
    for one in found.systems:
        if one.operation is None:
            yield f"{one.contender}: {one.reason}"
    for contender, check in found.checks.items():
        yield (
            f"{contender}, first hour: {check.fluid:.3%} violations, {check.events:.3%} event by event; "
            f"{100 * (check.fluid - check.events):+.3f} points"
        )
    yield "published: JigsawServe (arXiv 2603.08797), its own applications on four H100, steady trials"


def _row(one: Replayed, total: int) -> tuple[str, ...]:
    beside = published_columns(one.contender)
    run = one.operation
    if run is None:
        return (str(one.contender), "-", "-", "-", "-", "-", *beside)
    slices = float(run.slices.mean())
    return (
        str(one.contender),
        f"{slices:.2f}",
        f"{slices / total:.1%}",
        f"{run.violation_share:.3%}",
        f"{_accuracy(run):.3f}",
        str(len(run.changes)),
        *beside,
    )
