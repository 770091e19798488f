"""`jigsaw-triton evaluate`: compares the planner with other systems, its features, and simulations with servers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from jigsaw_triton.api.files import make_problem, read_wanted
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.planning import EQUAL_RPS
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.commands.rehearse import command as rehearse
from jigsaw_triton.cli.commands.replay import command as replay
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output, View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.evaluation.ablation import PUBLISHED, SUBSETS, Ablation, Case, ablation, mean_gain
from jigsaw_triton.evaluation.ablation_plot import plot
from jigsaw_triton.evaluation.plots import check_plot
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.problem import FORMULATIONS, Options
from jigsaw_triton.planner.solver.solver import lasting_solvers

_HEADER = ("features", "exact", "x none", "slices", "paper", "x none", "slices", "unplaced")


@click.group("evaluate")
def command() -> None:
    """Compare the planner with other systems, its features with each other, and simulations with servers."""


@options.command(
    "ablation",
    examples=(
        "evaluate ablation traffic/ --gpus 4xA100-80GB",
        "evaluate ablation traffic/ faces/ --gpus 120xA100-80GB --plot ablation.svg",
    ),
)
@options.graphs()
@options.cluster()
@options.plot("the largest demand of each subset")
@options.time_limit()
def _ablation(
    out: Output,
    graphs: tuple[str, ...],
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    plot_path: Path | None,
    time_limit: float,
) -> None:
    """Compare the planner's features and formulations.

    Each graph is planned alone on the cluster, with every subset of accuracy scaling (A), spatial partitioning (S) and
    task-graph-informed budgeting (T), and in both formulations. The table shows the largest demand that the cluster
    carries, and the compute slices for a demand that all of them carry. Both formulations use the paper's latency model
    and all of the profiled throughput, so that they differ in nothing else.
    """
    if plot_path is not None:
        check_plot(plot_path)
    wanted = read_wanted(
        graphs,
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        demand={},
        default_rps=EQUAL_RPS,
        to_serve=False,
        reporter=out,
        wording=COMMAND_LINE,
    )
    problem = make_problem(wanted)
    planner_options = Options(time_limit_s=time_limit)
    with out.working("planning") as report, lasting_solvers() as solvers:
        found = [
            ablation(replace(problem, workloads=(workload,)), planner_options, progress=report, solvers=solvers)
            for workload in problem.workloads
        ]
    gpus_text = _described(wanted.cluster)
    if plot_path is not None:
        plot(found, plot_path, title=f"Largest demand by features, on {gpus_text}")
        out.note(f"wrote {plot_path}")
    out.result(_document(found, gpus_text), *_view(found, gpus_text))


command.add_command(_ablation)
command.add_command(rehearse)
command.add_command(replay)


def _described(cluster: Cluster) -> str:
    names = [gpu.board.name for gpu in cluster.gpus]
    return ", ".join(f"{names.count(name)}x{name}" for name in dict.fromkeys(names))


def _document(found: Sequence[Ablation], gpus: str) -> dict[str, object]:
    return {
        "gpus": gpus,
        "graphs": [one.to_json() for one in found],
        "gain": {
            formulation: {f or "none": mean_gain(found, f, formulation) for f in SUBSETS}
            for formulation in FORMULATIONS
        },
        "published": {f or "none": gain for f, gain in PUBLISHED.items()},
    }


def _view(found: Sequence[Ablation], gpus: str) -> Iterator[View]:
    for one in found:
        yield _table(one, gpus)
        yield from (
            f"features {case.features or 'none'}, {case.formulation}: {case.reason}\n"
            for case in one.cases
            if case.reason
        )
        yield ""
    header = ("features", *FORMULATIONS, "published")
    rows = (
        (_named(f), *(_times(mean_gain(found, f, formulation)) for formulation in FORMULATIONS), f"{PUBLISHED[f]:g}")
        for f in SUBSETS
    )
    title = "largest demand relative to no features" + (", geometric mean over the graphs" if len(found) > 1 else "")
    yield Table.of(header, rows, title=title)
    yield "published: JigsawServe (arXiv 2603.08797), its own applications on 120 GPUs"
    if not all(_proven(case) for one in found for case in one.cases):
        yield "~ not proven, or no plan found, within the time limit"


def _table(one: Ablation, gpus: str) -> Table:
    rows = (
        (_named(f), *_cells(one, one.case(f, "exact")), *_cells(one, one.case(f, "paper")), _unplaced(one, f))
        for f in SUBSETS
    )
    return Table.of(_HEADER, rows, title=f"{one.graph} on {gpus}; slices at {figures(one.common_rps)} requests/s")


def _cells(one: Ablation, case: Case) -> tuple[str, str, str]:
    """Returns the largest demand, its ratio to that without features, and the slices for the common demand."""
    largest = "-" if case.largest_rps is None else figures(case.largest_rps) + ("" if case.proven else "~")
    common = case.at_common
    slices = _unknown(case) if common is None else f"{common.used}" + ("" if common.proven else "~")
    return largest, _times(one.gain(case.features, case.formulation)), slices


def _unplaced(one: Ablation, features: str) -> str:
    case = one.case(features, "paper")
    largest = case.at_largest
    return _unknown(case) if largest is None else f"{largest.unplaced} of {largest.used}"


def _unknown(case: Case) -> str:
    """Returns the text for slices that are unknown: there is no demand to serve, or no plan was found in time."""
    return "-" if case.largest_rps is None else "~"


def _named(features: str) -> str:
    return "+".join(features) or "none"


def _times(gain: float | None) -> str:
    return "-" if gain is None else f"{gain:.2f}"


def _proven(case: Case) -> bool:
    if case.largest_rps is None:
        return True
    return case.proven and case.at_common is not None and case.at_common.proven
