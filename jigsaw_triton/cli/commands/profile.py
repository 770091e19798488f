"""`jigsaw-triton profile`: measures the variants of a graph on live tritonservers, and writes profiles.csv."""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.files import Mistakes, read_cluster, read_graphs, shown_path
from jigsaw_triton.api.machine import THIS_PROCESSOR, Driver
from jigsaw_triton.api.profile_files import PROFILES_FILE
from jigsaw_triton.api.profiles import memory_rooms, model_digests, report_path, write_report
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.commands.profile_accuracy import accuracy_serving, measure_accuracies
from jigsaw_triton.cli.commands.profile_gpu import GpuProfiling
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.numbers import numbers, words
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.profiling import (
    Result,
    print_result,
    warn_of_doubts,
)
from jigsaw_triton.errors import InputError, MissingDependencyError
from jigsaw_triton.evaluation.profiling.again import Again
from jigsaw_triton.evaluation.profiling.agenda import Agenda, default_points
from jigsaw_triton.evaluation.profiling.budget import Budget
from jigsaw_triton.evaluation.profiling.completion import can_fit, completed, outdated
from jigsaw_triton.evaluation.profiling.failures import Failures
from jigsaw_triton.evaluation.profiling.load import Pace
from jigsaw_triton.evaluation.profiling.points import Grid, chosen, configurations, measurable
from jigsaw_triton.evaluation.profiling.sheet import Sheet
from jigsaw_triton.evaluation.profiling.sweep import Outcome, Records
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.profiles.fit import LatencyFit
from jigsaw_triton.profiles.read import read_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable

ALL = "all"
_FAILED = 1


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
    type=options.Number(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Measure each configuration for at most this long, after a warm-up.",
)
@options.option(
    "--budget",
    metavar="DURATION",
    type=options.Duration(),
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
    every = [key for group in keys.values() for key in group]
    if accuracy:
        gpu = next(iter(measured_gpus.values()))
        serving = accuracy_serving(keys[gpu.board.name])
        return measure_accuracies(
            out, graph, task_graph, built, gpu, names, serving, pairs=pairs, limit=requests, again=again
        )
    file = out_path or task_graph.folder / PROFILES_FILE
    records = Records(Sheet(file), Failures(file), Again(file) if again else None)
    limit = _limit(out, points)
    digests = model_digests(records.sheet.table, task_graph)
    find_old = partial(outdated, processes=built.processes, digests=digests)
    old = find_old(records.sheet.table) & set(every)
    _print_left_out(out, records, set(every), old)
    agendas = {name: _agenda(group, records, limit, task_graph.slo, old) for name, group in keys.items()}
    due = {name: agenda for name, agenda in agendas.items() if neighbours or agenda.round()}
    machine, outcome = _machine(out), Outcome()
    if due:
        records.sheet.require_writable()
        records.failures.remove(set(every) - set(records.failed))
    try:
        for name, agenda in due.items():
            run = GpuProfiling(out, task_graph, built, measured_gpus[name], records, spending, outcome)
            asyncio.run(run.measure(agenda, keys[name], neighbours or 0))
    except KeyboardInterrupt:
        out.note(f"interrupted; {shown_path(file)} has the {len(outcome.measured)} configurations that were measured")
        _fit(out, records, every, find_old, finished=False)
        raise
    except InputError:
        _print_unwritten(out, records, outcome)
        raise
    if records.again is not None and outcome.complete:
        records.again.finish(every)
    fits = _fit(out, records, every, find_old, finished=outcome.complete)
    warn_of_doubts(out, outcome.measured)
    failed = {key: records.failures.reasons[key] for key in every if key in records.failures.reasons}
    rows = [row for key in every if (row := records.sheet.table.get(key)) is not None]
    report = _report(out, task_graph, records.sheet)
    result = Result(file, report, records.failures.path, len(every), rows, failed, outcome, fits, machine, again)
    print_result(out, result)
    return _FAILED if failed else None


def _print_left_out(out: Output, records: Records, every: Collection[ProfileKey], old: Collection[ProfileKey]) -> None:
    """Prints how many rows count as not measured, and how many configurations are not measured again.

    Args:
        out: Output of the command.
        records: Rows and outcomes so far.
        every: Configurations of the command.
        old: Configurations whose rows are outdated.
    """
    if old:
        out.warn(
            f"{len(old)} rows of {shown_path(records.sheet.path)} are outdated and count as not measured: their "
            "instances were of another kind than those of the cluster, or their model has changed"
        )
    if records.again is not None and (done := records.again.done & set(every)):
        out.note(
            f"{len(done)} configurations were measured again before a run ended early and are left out; delete "
            f"{shown_path(records.again.path)} to measure them too"
        )


def _report(out: Output, graph: TaskGraph, sheet: Sheet) -> Path | None:
    """Writes the report beside the profiles. Returns its path; None if it cannot be written."""
    path = report_path(sheet.path)
    try:
        with out.working("writing the report"):
            write_report(graph, sheet.table, path, profiles=sheet.path)
    except InputError as error:
        out.warn(f"there is no report: {error.message}")
        return None
    return path


def _limit(out: Output, wanted: int | str | None) -> int | str | None:
    """Returns the wanted number of points. Without scipy, which chooses the points and fits the others, it is `all`.

    Raises:
        MissingDependencyError: A number is wanted, but scipy is not installed.
    """
    if can_fit() or wanted == ALL:
        return wanted
    hint = "pip install 'jigsaw-triton[fit]'"
    if wanted is not None:
        raise MissingDependencyError(f"scipy is needed for --points {wanted}, but not installed", hint=hint)
    out.note(f"scipy is not installed, so all configurations are measured: none can be fitted ({hint})")
    return ALL


def _agenda(
    keys: Sequence[ProfileKey],
    records: Records,
    limit: int | str | None,
    slo: Slo,
    old: Collection[ProfileKey],
) -> Agenda:
    variants = {(key.task, key.variant) for key in keys}
    points = default_points(len(keys) // len(variants)) if limit is None else None if isinstance(limit, str) else limit
    measured = {row.key: row.latency_p50_ms for row in records.known if row.key not in old}
    rows = records.sheet.table.rows() if records.again is not None else ()
    required = {row.key for row in rows if row.source == "measured"}
    return Agenda(keys, points, slo.latency_ms, measured, records.failed, required)


def _fit(
    out: Output,
    records: Records,
    keys: Sequence[ProfileKey],
    find_old: Callable[[ProfileTable], Collection[ProfileKey]],
    *,
    finished: bool,
) -> Mapping[str, LatencyFit]:
    """Adds fitted rows to the file. Returns the fits; none without scipy.

    The outdated rows of the sweep stay until it is finished, so that an interrupted one loses nothing.
    """
    records.sheet.refresh()
    before = records.sheet.table
    old = find_old(before)
    outdated_rows = {row.key: row for row in before.rows() if row.key in old and row.key in keys}
    table = ProfileTable(row for row in before.rows() if row.key not in outdated_rows)
    fits: Mapping[str, LatencyFit] = {}
    if can_fit():
        with out.working("fitting the configurations that were not measured"):
            table, fits = completed(before, keys, records.failures.reasons, _rooms(), old)
    if not finished:
        table = ProfileTable(({row.key: row for row in table.rows()} | outdated_rows).values())
    if table.rows() != before.rows():
        records.sheet.replace(table.rows())
    return fits


def _rooms() -> dict[tuple[str, str], float]:
    return {(gpu, kind): room for gpu, kinds in memory_rooms().items() for kind, room in kinds.items()}


def _print_unwritten(out: Output, records: Records, outcome: Outcome) -> None:
    """Prints the measured rows that the file does not have, because it could not be written."""
    path = records.sheet.path
    written = {row.key: row for row in read_profiles(path).rows()} if path.exists() else {}
    lost = [found.row for key, found in outcome.measured.items() if written.get(key) != found.row]
    if lost:
        out.warn("these rows are not in the file:")
        out.note(write_profiles(lost).rstrip())


def _machine(out: Output) -> dict[str, Any]:
    """Returns cores and load, which the figures depend on. Warns if other programs keep the machine busy."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if load > cores / 2:
        out.warn(
            f"the machine is busy (load average {load:.1f} on {cores} cores): expect worse figures than on an idle one"
        )
    return {"cores": cores, "load_average": round(load, 2)}
