"""`jigsaw-triton evaluate trials`: steady trials of this project's planner and the paper's."""

from pathlib import Path
from typing import Any

from jigsaw_triton.api.replaying import steady_trials
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs import traces as trace_options
from jigsaw_triton.cli.inputs.systems import Parts, parse_systems, system
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views import systems as view
from jigsaw_triton.cli.views.systems import Figures, Shown
from jigsaw_triton.evaluation.plots import check_plot
from jigsaw_triton.evaluation.trials import Trials
from jigsaw_triton.evaluation.trials_plot import plot


@options.command(
    "trials",
    examples=(
        "evaluate trials traffic/ --trace day.csv --gpus 4xH100-80GB --plot trials.svg",
        "evaluate trials traffic/ --trace day.csv --gpus 4xH100-80GB --system exact:AST --system paper:AST",
    ),
)
@options.graphs()
@options.cluster()
@trace_options.trace()
@trace_options.peak(1.0)
@system()
@trace_options.seed()
@options.plot("slices and violations by load")
def command(
    out: Output,
    graphs: tuple[str, ...],
    gpus: str | None,
    cluster: str | None,
    driver: Any,
    traces: tuple[str, ...],
    peak: float,
    systems: tuple[str, ...],
    seed: int,
    plot_path: Path | None,
) -> None:
    """Try this project's planner and the paper's at steady loads.

    Each interval of the trace is a trial of its own, as in the evaluation of JigsawServe: a plan is made for its mean
    rate, and nothing changes. Violations are late and refused requests, as a share of all. An event-by-event simulation
    of each plan measures what its servers answer on time. `evaluate replay` has continuous runs.
    """
    if plot_path is not None:
        check_plot(plot_path)
    contenders = parse_systems(systems)
    with out.working("trying") as report:
        found = steady_trials(
            graphs,
            trace_options.parse_traces(traces),
            contenders=contenders,
            peak=peak,
            gpus=gpus,
            cluster=cluster,
            driver=driver,
            seed=seed,
            progress=Parts(report),
            reporter=out,
            wording=COMMAND_LINE,
        )
    total = found.wanted.cluster.compute_slices
    if plot_path is not None:
        names = ", ".join(sorted(found.wanted.graphs))
        plot(found.systems, total, plot_path, title=f"{names} on {total} compute slices, each load a trial of its own")
        out.note(f"wrote {plot_path}")
    shown = [_shown(one) for one in found.systems]
    trials = max(len(one.trials) for one in found.systems)
    out.result(view.document(shown, total, found.scale), *view.view(shown, total, title=f"means over {trials} trials"))


def _shown(one: Trials) -> Shown:
    if not one.trials:
        return Shown(one.contender, None, one.reason)
    each = [
        {
            "load_rps": trial.load_rps,
            "slices": trial.slices,
            "violations": trial.violation_share,
            "accuracy": trial.accuracy,
        }
        for trial in one.trials
    ]
    return Shown(
        one.contender, Figures(one.mean_slices, one.violation_share, one.mean_accuracy, document={"trials": each})
    )
