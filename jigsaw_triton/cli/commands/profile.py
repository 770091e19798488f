"""`jigsaw-triton profile`: measures the variants of a graph on live tritonservers, and writes profiles.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.files import Mistakes, read_cluster, read_graphs
from jigsaw_triton.api.machine import THIS_PROCESSOR, Driver
from jigsaw_triton.api.profile_files import PROFILES_FILE
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.commands.profile_accuracy import accuracy_serving, measure_accuracies
from jigsaw_triton.cli.commands.profile_sweep import ALL, ProfileSweep
from jigsaw_triton.cli.inputs import option_types, options
from jigsaw_triton.cli.inputs.numbers import numbers, words
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.evaluation.profiling.again import Again
from jigsaw_triton.evaluation.profiling.budget import Budget
from jigsaw_triton.evaluation.profiling.failures import Failures
from jigsaw_triton.evaluation.profiling.load import Pace
from jigsaw_triton.evaluation.profiling.points import Grid, chosen, configurations, measurable
from jigsaw_triton.evaluation.profiling.sheet import Sheet
from jigsaw_triton.evaluation.profiling.sweep import Records


class _Points(click.ParamType[int | str]):
    """A number of points, or `all`."""

    name = "points"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == ALL:
            return ALL
        if not (str(value).isdecimal() and int(value) > 0):
            self.fail(f"{value!r} is neither a number of at least 1 nor `{ALL}`", param, ctx)
        return int(value)


@options.command(
    "profile",
    examples=(
        "profile traffic/",
        "profile traffic/ --budget 15m",
        "profile traffic/ --task detect --variant s --instances 1,2,3 --batches 1,4 --points all",
        "profile traffic/ --again --seconds 30 -O careful.csv",
        "profile traffic/ --accuracy",
        "profile traffic/ --accuracy --pairs --task detect --task classify",
    ),
)
@options.graph()
@options.cluster()
@options.option(
    "--task", "tasks", metavar="TASK", multiple=True, help="Task to measure; may be repeated.  [default: all]"
)
@options.option(
    "--variant",
    "variants",
    metavar="VARIANT",
    multiple=True,
    help="Variant to measure; may be repeated.  [default: all]",
)
@options.option(
    "--slices",
    metavar="SLICE,...",
    help="Kinds of MIG instance to profile.  [default: all of the GPU; 1g on a processor]",
)
@options.option(
    "--instances", metavar="N,...", default="1,2,3,4", show_default=True, help="Triton instance counts to profile."
)
@options.option(
    "--batches", metavar="N,...", default="1,2,4,8,16,32", show_default=True, help="Batch sizes to profile."
)
@options.option(
    "--points",
    metavar=f"N|{ALL}",
    type=_Points(),
    help="Configurations of each variant to measure; the others are fitted.  [default: a quarter, from 6 to 12]",
)
@options.option(
    "--seconds",
    metavar="S",
    type=option_types.Number(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Measure each configuration for at most this long, after a warm-up.",
)
@options.option(
    "--budget",
    metavar="DURATION",
    type=option_types.Duration(),
    help="Stop measuring after this time, such as 15m; what is left is fitted.",
)
@options.option(
    "--neighbours",
    metavar="N",
    type=click.IntRange(min=1),
    help="Also measure the best configuration of each variant while N other slices of the GPU are idle, then busy.",
)
@options.option("--again", is_flag=True, help="Measure again what the file already has, and try again what failed.")
@options.option(
    "--accuracy",
    is_flag=True,
    variable="JIGSAW_MEASURE_ACCURACY",
    help="Measure accuracies on the labelled set instead, and write them into graph.yaml.",
)
@options.option(
    "--pairs", is_flag=True, help="With --accuracy: measure the variants of two tasks together, end to end."
)
@options.option(
    "--requests",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --accuracy: use only the first requests of the labelled set.  [default: all]",
)
@options.out_file(f"The file.  [default: {PROFILES_FILE} beside the graph]")
def command(
    out: Output,
    graph: str,
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    tasks: Sequence[str],
    variants: Sequence[str],
    slices: str | None,
    instances: str,
    batches: str,
    points: int | str | None,
    seconds: float,
    budget: float | None,
    neighbours: int | None,
    again: bool,
    accuracy: bool,
    pairs: bool,
    requests: int | None,
    out_path: Path | None,
) -> int | None:
    """Measure the variants of a graph on live tritonservers, and write profiles.csv.

    Each variant is served as a deployment serves it, with all instances busy, in those combinations of slice,
    instances and batch size that say most about the others. The others get fitted rows. A measurement ends when the
    95% confidence intervals of p95 and throughput are within 5%, or after --seconds.

    The file is written after each measurement and keeps the rows that it has. To continue an interrupted run, repeat
    the command, also with --again. A configuration that fails is listed beside the file, and is not tried again; the
    command then exits with 1. Inputs come from the graph's `sample`; the tasks upstream run once to make them.

    With --accuracy, each variant runs once over the labelled set that graph.yaml names, and its accuracy is written
    there. Without labels, the command prints how often a variant agrees with the best one. If a variant fails, the
    others are measured, and the command exits with 1.
    """
    if (pairs or requests is not None) and not accuracy:
        raise click.UsageError("--pairs and --requests are for accuracies; add --accuracy.")
    if accuracy and out_path is not None:
        raise click.UsageError("accuracies are written into graph.yaml; leave out -O.")
    if accuracy and any(option is not None for option in (points, budget, neighbours)):
        raise click.UsageError("--points, --budget and --neighbours are for profiles; leave out --accuracy.")
    spending = Budget(budget, Pace(most_s=seconds))
    mistakes = Mistakes()
    graphs = read_graphs([graph], mistakes, require_files=True)
    built = read_cluster(
        mistakes,
        gpus=gpus or (None if cluster else THIS_PROCESSOR),
        cluster=cluster,
        driver=driver,
        reporter=out,
        wording=COMMAND_LINE,
    )
    mistakes.raise_if_any()
    assert built is not None
    (task_graph,) = graphs.values()
    grid = Grid(words(slices) if slices else (), numbers(instances, "--instances"), numbers(batches, "--batches"))
    names = chosen(task_graph, tasks, variants)
    measured_gpus = measurable(built)
    keys = {name: configurations(gpu.board, names, grid) for name, gpu in measured_gpus.items()}
    if accuracy:
        gpu = next(iter(measured_gpus.values()))
        serving = accuracy_serving(keys[gpu.board.name])
        return measure_accuracies(
            out, graph, task_graph, built, gpu, names, serving, pairs=pairs, limit=requests, again=again
        )
    file = out_path or task_graph.folder / PROFILES_FILE
    records = Records(Sheet(file), Failures(file), Again(file) if again else None)
    return ProfileSweep(out, task_graph, built, measured_gpus, keys, records).run(points, spending, neighbours or 0)
