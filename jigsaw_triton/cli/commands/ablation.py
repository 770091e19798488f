"""`jigsaw-triton evaluate ablation`: what each feature of the planner is worth."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.planning import EQUAL_RPS
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.setup_document import SETUP, setup_document
from jigsaw_triton.api.wanted import make_problem, read_wanted
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output, View, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views import gain_map
from jigsaw_triton.cli.views.gain_map import OnMap
from jigsaw_triton.errors import InfeasibleError, InputError
from jigsaw_triton.evaluation.ablation import (
    PAPER_SUBSETS,
    PUBLISHED,
    Ablation,
    Case,
    ablation,
    mean_gain,
    spatial_gain,
    with_batches_up_to,
)
from jigsaw_triton.evaluation.ablation_plot import plot
from jigsaw_triton.evaluation.gain_map import estimated, model_gain
from jigsaw_triton.evaluation.gain_map_plot import plot as plot_map
from jigsaw_triton.evaluation.plots import check_plot
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.features import SUBSETS, named
from jigsaw_triton.planner.domain.problem import FORMULATIONS, Options, Problem
from jigsaw_triton.planner.solver.solver import lasting_solvers

_HEADER = ("features", "exact", "x none", "slices", "paper", "x none", "slices", "unplaced")


@options.command(
    "ablation",
    examples=(
        "evaluate ablation traffic/ --gpus 4xA100-80GB",
        "evaluate ablation traffic/ faces/ --gpus 120xA100-80GB --plot ablation.svg",
        "evaluate ablation traffic/ --gpus 4xA100-80GB --all-subsets --max-batch 1",
        "evaluate ablation traffic/ --gpus 4xA100-80GB --map --plot map.svg",
    ),
)
@options.graphs()
@options.cluster()
@options.option(
    "--all-subsets",
    is_flag=True,
    help="Compare all 16 subsets of A, M, P and T, instead of the paper's eight of A, S and T.",
)
@options.option("--max-batch", metavar="N", type=click.IntRange(1), help="Leave out profiles of larger batches.")
@options.option(
    "--map",
    "on_map",
    is_flag=True,
    help="Estimate what S gains without solving, show on what it depends, and compare with solving.",
)
@options.plot("the largest demand of each subset, or the map,")
@options.time_limit()
def command(
    out: Output,
    graphs: tuple[str, ...],
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    all_subsets: bool,
    max_batch: int | None,
    on_map: bool,
    plot_path: Path | None,
    time_limit: float,
) -> None:
    """Compare the planner's features and formulations.

    Each graph is planned alone on the cluster, with every subset of accuracy scaling (A), spatial partitioning (S) and
    task-graph-informed budgeting (T), and in both formulations. S has two parts, MIG slices (M) and several instances
    of a model in a slice (P). The table shows the largest demand that the cluster carries, and the compute slices for a
    demand that all of them carry. Both formulations use the paper's latency model and all of the profiled throughput,
    so that they differ in nothing else.
    """
    if on_map and all_subsets:
        raise click.UsageError("--map and --all-subsets exclude each other; leave one of them out.")
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
    problem, planner_options = make_problem(wanted), Options(time_limit_s=time_limit)
    if max_batch is not None:
        problem = with_batches_up_to(problem, max_batch)
    if on_map:
        _show_map(out, problem, planner_options, plot_path)
        return
    subsets = SUBSETS if all_subsets else PAPER_SUBSETS
    with out.working("planning") as report, lasting_solvers() as solvers:
        found = [
            ablation(
                replace(problem, workloads=(workload,)),
                planner_options,
                subsets=subsets,
                progress=report,
                solvers=solvers,
            )
            for workload in problem.workloads
        ]
    gpus_text = _described(wanted.cluster, max_batch)
    if plot_path is not None:
        plot(found, plot_path, title=f"Largest demand by features, on {gpus_text}")
        out.note(f"wrote {plot_path}")
    document = _document(found, gpus_text) | {SETUP: setup_document(wanted.graphs, wanted.profiles)}
    out.result(document, *_view(found, gpus_text))


def _show_map(out: Output, problem: Problem, planner_options: Options, plot_path: Path | None) -> None:
    """Prints what the map says of each graph, and what solving says.

    Raises:
        InputError: The cluster has several models of GPU.
        InfeasibleError: A graph cannot keep its SLO without S.
    """
    if len(problem.boards) > 1:
        names = " and ".join(board.name for board in problem.boards)
        raise InputError(f"the map is for one model of GPU, not for {names}", hint="give GPUs of one model")
    (board,) = problem.boards
    shown: list[OnMap] = []
    with out.working("planning") as report, lasting_solvers() as solvers:
        for workload in problem.prepared().workloads:
            name = workload.graph.name
            found = estimated(workload.graph, problem.profiles[name], board)
            if found is None:
                reason = f"{name}: without S, a task cannot keep its part of the SLO, so the map has no gain of S"
                raise InfeasibleError([reason], hint="loosen the SLO, or profile whole GPUs with one instance")
            report(f"{name}: finding the largest demands with S and without")
            solved = spatial_gain(replace(problem, workloads=(workload,)), planner_options, solvers=solvers)
            shown.append(OnMap(found, model_gain(found.traits, board), solved))
    if plot_path is not None:
        gains = [one.solved.gain if one.solved is not None else None for one in shown]
        plot_map([one.estimate for one in shown], gains, board, plot_path)
        out.note(f"wrote {plot_path}")
    out.result(gain_map.document(shown, board), *gain_map.view(shown, board))


def _described(cluster: Cluster, max_batch: int | None) -> str:
    names = [gpu.board.name for gpu in cluster.gpus]
    limit = "" if max_batch is None else f", batches up to {max_batch}"
    return ", ".join(f"{names.count(name)}x{name}" for name in dict.fromkeys(names)) + limit


def _document(found: Sequence[Ablation], gpus: str) -> dict[str, object]:
    return {
        "gpus": gpus,
        "graphs": [one.to_json() for one in found],
        "gain": {
            formulation: {f or "none": mean_gain(found, f, formulation) for f in found[0].subsets}
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
        (named(f), *(_times(mean_gain(found, f, formulation)) for formulation in FORMULATIONS), _published(f))
        for f in found[0].subsets
    )
    title = "largest demand relative to no features" + (", geometric mean over the graphs" if len(found) > 1 else "")
    yield Table.of(header, rows, title=title)
    yield "published: JigsawServe (arXiv 2603.08797), its own applications on 120 GPUs"
    if not all(_proven(case) for one in found for case in one.cases):
        yield "~ not proven, or no plan found within the time limit"


def _table(one: Ablation, gpus: str) -> Table:
    rows = (
        (named(f), *_cells(one, one.case(f, "exact")), *_cells(one, one.case(f, "paper")), _unplaced(one, f))
        for f in one.subsets
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


def _published(features: str) -> str:
    gain = PUBLISHED.get(features)
    return "-" if gain is None else f"{gain:g}"


def _times(gain: float | None) -> str:
    return "-" if gain is None else f"{gain:.2f}"


def _proven(case: Case) -> bool:
    if case.largest_rps is None:
        return True
    return case.proven and case.at_common is not None and case.at_common.proven
