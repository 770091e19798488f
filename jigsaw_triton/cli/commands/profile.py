"""`jigsaw-triton profile`: measures the variants of a graph on live tritonservers, and writes profiles.csv."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jigsaw_triton.api.files import PROFILES_FILE, Mistakes, read_cluster, read_graphs, shown_path
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.reporting import COMMAND_LINE, download_progress
from jigsaw_triton.cli.commands.profile_accuracy import measure_accuracies
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.numbers import numbers, words
from jigsaw_triton.cli.io.output import Output, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.evaluation.accuracy.running import Serving
from jigsaw_triton.evaluation.profiling.load import Pace
from jigsaw_triton.evaluation.profiling.measure import Measurement, Profiler
from jigsaw_triton.evaluation.profiling.points import Grid, chosen, measurable, points, unmeasured
from jigsaw_triton.evaluation.profiling.sheet import Sheet
from jigsaw_triton.evaluation.profiling.workers import profiling_workers
from jigsaw_triton.gpus.model import Cluster, Gpu
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import find_installation

THIS_PROCESSOR = "1xcpu"
"""GPUs to measure by default: the processor of this machine."""

_FULL_BATCHES = 0.9
"""Least share of executions with a full batch. Below it the latencies are mostly those of smaller batches."""

_LATENCIES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")

Begin = Callable[[ProfileKey], None]


@options.command(
    "profile",
    examples=(
        "profile traffic/",
        "profile traffic/ --task detect --variant s --instances 1,2,3 --batches 1,4",
        "profile traffic/ --again --seconds 10 -O careful.csv",
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
    "--slices", metavar="SLICE,...", default="1g", show_default=True, help="Kinds of MIG instance to measure on."
)
@options.option(
    "--instances", metavar="N,...", default="1,2", show_default=True, help="Triton instance counts to measure."
)
@options.option("--batches", metavar="N,...", default="1,2,4,8", show_default=True, help="Batch sizes to measure.")
@options.option(
    "--seconds",
    type=options.Number(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Measure each configuration for this long, after a warm-up.",
)
@options.option("--again", is_flag=True, help="Measure again what the file already has.")
@options.option(
    "--accuracy", is_flag=True, help="Measure accuracies on the labelled set instead, and write them into graph.yaml."
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
    slices: str,
    instances: str,
    batches: str,
    seconds: float,
    again: bool,
    accuracy: bool,
    pairs: bool,
    requests: int | None,
    out_path: Path | None,
) -> None:
    """Measure the variants of a graph on live tritonservers, and write profiles.csv.

    Each variant is measured for each slice, instance count and batch size, served as a deployment serves it, with all
    instances busy. Inputs come from the graph's `sample`; the tasks upstream run once to make them. The file is written
    after each configuration and keeps the rows that it has. To continue an interrupted run, repeat the command.

    With --accuracy, each variant runs once over the labelled set that graph.yaml names, and its accuracy is written
    there. Without labels, the command prints how often a variant agrees with the best one.
    """
    if (pairs or requests is not None) and not accuracy:
        raise click.UsageError("--pairs and --requests are for accuracies; add --accuracy.")
    if accuracy and out_path is not None:
        raise click.UsageError("accuracies are written into graph.yaml; leave out -O.")
    mistakes = Mistakes()
    found = read_graphs([graph], mistakes, require_files=True)
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
    (task_graph,) = found.values()
    grid = Grid(words(slices), numbers(instances, "--instances"), numbers(batches, "--batches"))
    names = chosen(task_graph, tasks, variants)
    measured_gpus = measurable(built)
    configurations = {name: points(gpu.board, names, grid) for name, gpu in measured_gpus.items()}
    if accuracy:
        serving = Serving(grid.slices[0], max(grid.instances), max(grid.batches))
        gpu = next(iter(measured_gpus.values()))
        measure_accuracies(out, graph, task_graph, built, gpu, names, serving, pairs=pairs, limit=requests, again=again)
        return
    file = out_path or task_graph.folder / PROFILES_FILE
    sheet = Sheet(file)
    keys = {name: tuple(k) if again else unmeasured(k, sheet.table) for name, k in configurations.items()}
    machine = _machine(out)
    done: dict[ProfileKey, Measurement] = {}
    try:
        for name, gpu in measured_gpus.items():
            if keys[name]:
                asyncio.run(_measure(out, task_graph, built, gpu, keys[name], Pace(seconds), sheet, done))
    except KeyboardInterrupt:
        out.note(f"interrupted; {shown_path(file)} has the {len(done)} configurations that were measured")
        raise
    rows = [row for name in measured_gpus for key in configurations[name] if (row := sheet.table.get(key)) is not None]
    _warn_of_partial_batches(out, done)
    _print_result(out, file, rows, done, machine)


async def _measure(
    out: Output,
    graph: TaskGraph,
    cluster: Cluster,
    gpu: Gpu,
    keys: Sequence[ProfileKey],
    pace: Pace,
    sheet: Sheet,
    done: dict[ProfileKey, Measurement],
) -> None:
    with out.working("looking for tritonserver") as report:
        installation = find_installation(download_progress(report))
    async with profiling_workers(installation, cluster, gpu) as workers:
        profiler = Profiler(graph, workers, load_templates(templates_dir()), pace, out.warn)
        with out.working("computing inputs from the graph's samples") as report:
            await profiler.prepare(tuple({key.task: None for key in keys}), keys[0].slice, report)
        with _progress(out, len(keys)) as begin:
            for key in keys:
                begin(key)
                done[key] = await profiler.measure(key)
                sheet.add(done[key].row)


@contextmanager
def _progress(out: Output, total: int) -> Iterator[Begin]:
    """Yields a function to call before each measurement. It moves a progress bar on a terminal, else prints a line."""
    if not sys.stderr.isatty():
        yield lambda key: out.note(f"measuring {_configuration(key)}")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        started = -1

        def begin(key: ProfileKey) -> None:
            nonlocal started
            started += 1
            progress.update(bar, description=_configuration(key), completed=started)

        yield begin


def _configuration(key: ProfileKey) -> str:
    return f"{key.task}.{key.variant} on {key.slice}, {key.instances} x batch {key.batch}"


def _machine(out: Output) -> dict[str, Any]:
    """Returns cores and load, which the figures depend on. Warns if other programs keep the machine busy."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if load > cores / 2:
        out.warn(
            f"the machine is busy (load average {load:.1f} on {cores} cores): expect worse figures than on an idle one"
        )
    return {"cores": cores, "load_average": round(load, 2)}


def _warn_of_partial_batches(out: Output, done: dict[ProfileKey, Measurement]) -> None:
    partial = [key for key, measurement in done.items() if measurement.full < _FULL_BATCHES]
    for key in partial:
        out.warn(f"{_configuration(key)}: only {done[key].full:.0%} of the executions had a full batch")


def _print_result(
    out: Output,
    file: Path,
    rows: Sequence[ProfileRow],
    done: dict[ProfileKey, Measurement],
    machine: dict[str, Any],
) -> None:
    data = {
        "file": str(file),
        "machine": machine,
        "measured": len(done),
        "kept": len(rows) - len(done),
        "rows": [_document(row, done.get(row.key)) for row in rows],
    }
    header = ("gpu", "task", "variant", "slice", "inst", "batch", "p50 ms", "p95 ms", "p99 ms", "items/s", "MiB")
    table = Table.of(
        header,
        [
            (
                *(row.key.gpu, row.key.task, row.key.variant, row.key.slice, row.key.instances, row.key.batch),
                *(figures(getattr(row, name)) for name in _LATENCIES),
                figures(row.throughput_rps),
                figures(row.memory_mib),
            )
            for row in rows
        ],
    )
    kept = f", {len(rows) - len(done)} kept (--again measures them again)" if len(rows) > len(done) else ""
    out.result(data, table, f"{len(done)} configurations measured{kept}; {shown_path(file)}")


def _document(row: ProfileRow, measurement: Measurement | None) -> dict[str, Any]:
    document = {**asdict(row.key), **asdict(row)}
    del document["key"]
    certainty = {"batches": measurement.batches, "full": measurement.full} if measurement is not None else {}
    return document | certainty
