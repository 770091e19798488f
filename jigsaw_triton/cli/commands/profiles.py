"""`jigsaw-triton profiles`: checks, fits, imports and reports profiles."""

from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.drift import live_drifts
from jigsaw_triton.api.files import Mistakes, read_graphs, shown_path
from jigsaw_triton.api.observed import ObservedDeployment
from jigsaw_triton.api.profile_files import PROFILES_FILE, load_profiles
from jigsaw_triton.api.profiles import (
    check_grid,
    check_profiles,
    filled_profiles,
    fit_or_refuse,
    fit_sources,
    import_profiles,
    report_path,
    write_report,
)
from jigsaw_triton.cli.inputs import option_types, options
from jigsaw_triton.cli.inputs.numbers import numbers, words
from jigsaw_triton.cli.io.output import Output, View
from jigsaw_triton.cli.views.drift import drift_document, drift_view
from jigsaw_triton.cli.views.profile_tables import (
    errors_document,
    errors_view,
    finding_document,
    finding_line,
    merge_document,
    merge_line,
    unfitted_variants,
)
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.sheet import Sheet
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.drift import drift_findings
from jigsaw_triton.profiles.filling import QUANTILE, extrapolated
from jigsaw_triton.profiles.merging import merged
from jigsaw_triton.profiles.read import LIMIT_BYTES, LIMIT_COUNT, parse_with_lines
from jigsaw_triton.profiles.report.document import report_document
from jigsaw_triton.profiles.table import Processes
from jigsaw_triton.spec.files import load_text

_INVALID = 2
_MOST_SHOWN = 50
_REPORT_FILE = "profiles.html"

_SOURCE = click.argument("source", metavar="GRAPH|CSV", type=click.Path())


@click.group("profiles")
def command() -> None:
    """Check profiles, fit what was not measured, import the results of other tools, and report it all."""


@options.command(
    "check",
    examples=("profiles check traffic/", "profiles check measured.csv --strict", "profiles check traffic/ --live"),
)
@_SOURCE
@options.option("--strict", is_flag=True, help="Exit with 2 for warnings too.")
@options.option("--live", is_flag=True, help="Compare the profiles with the service times of the running deployment.")
@options.state()
def _check(out: Output, source: str, strict: bool, live: bool, state: Path | None) -> int | None:
    """Check profiles for figures that contradict each other, and for unknown names.

    Errors are rows that cannot be right or that no plan can use, such as latencies in seconds, a throughput that the
    latency does not allow, and GPU models, tasks or variants that do not exist. Warnings are rows to measure again,
    such as latencies far from those of the other rows. The command exits with 2 if there are errors. Names of tasks and
    variants are checked if GRAPH is given, and so are the files of models against those that were measured.

    With --live, each configuration that has answered 100 batches or more since the gateway started is compared with its
    row. One that is more than 1.25 times as slow is a warning. If nothing can be compared, the command exits with 4.
    """
    graph, file = _located(source)
    if live and graph is None:
        raise click.UsageError("--live needs a GRAPH, not a CSV file.")
    table, lines = parse_with_lines(load_text(shown_path(file), limit_bytes=LIMIT_BYTES), shown_path(file))
    found = check_profiles(table, graph=graph)
    drifts = live_drifts(graph.name, table, ObservedDeployment(state)) if live and graph is not None else []
    found += drift_findings(drifts)
    found.sort(key=lambda finding: lines[finding.key] if finding.key is not None else len(lines) + 2)
    errors = sum(finding.severity == "error" for finding in found)
    counts = f"{errors} errors, {len(found) - errors} warnings in {len(table)} rows"
    data = {
        "file": str(file),
        "rows": len(table),
        "errors": errors,
        "warnings": len(found) - errors,
        "findings": [finding_document(finding, lines) for finding in found],
        "live": [drift_document(one) for one in drifts] if live else None,
    }
    shown: list[View] = [finding_line(finding, shown_path(file), lines) for finding in found[:_MOST_SHOWN]]
    if len(found) > _MOST_SHOWN:
        shown.append(f"{len(found) - _MOST_SHOWN} more are not shown; -o json has all of them")
    if live:
        shown.append(drift_view(drifts))
    out.result(data, *shown, f"{shown_path(file)}: {counts}" if found else f"{shown_path(file)}: no mistakes")
    return _INVALID if errors or (strict and found) else None


@options.command(
    "fit",
    examples=(
        "profiles fit traffic/",
        "profiles fit traffic/ --slices 1g,2g,3g --instances 1,2,3 --batches 1,2,4,8,16",
        "profiles fit measured.csv -O filled.csv --quantile 0.5",
    ),
)
@_SOURCE
@options.option(
    "--quantile",
    metavar="SHARE",
    type=option_types.Share(),
    default=str(QUANTILE),
    show_default=True,
    help="Quantile of the predicted latency that a row gets.",
)
@options.option("--slices", metavar="SLICE,...", help="Kinds of slices to fill.  [default: those of the variant]")
@options.option("--instances", metavar="N,...", help="Instance counts to fill.  [default: those of the variant]")
@options.option("--batches", metavar="N,...", help="Batch sizes to fill.  [default: those of the variant]")
@options.option("--assumed", is_flag=True, help="Fit to assumed rows too.")
@options.option(
    "--processes",
    type=click.Choice(("streams", "mps")),
    help="Kind of the instances whose rows are fitted, if the file has both.",
)
@options.option("--replace", is_flag=True, help="Replace the rows of another file that exists.")
@options.option("--dry-run", is_flag=True, help="Print the errors of the fit, and write nothing.")
@options.out_file("File to write, or its folder.  [default: the file that was read]", name=PROFILES_FILE)
def _fit(
    out: Output,
    source: str,
    quantile: float,
    slices: str | None,
    instances: str | None,
    batches: str | None,
    assumed: bool,
    processes: Processes | None,
    replace: bool,
    dry_run: bool,
    out_path: Path | None,
) -> None:
    """Add rows for configurations that were not measured, from a latency model that is fitted to those that were.

    Measured and assumed rows stay as they are; fitted rows are replaced. The error of each variant is that of
    cross-validation: each row is predicted from the others. This needs scipy (`pip install 'jigsaw-triton[fit]'`).
    """
    _, file = _located(source)
    table = load_profiles(file)
    target = out_path or file
    in_place = target.resolve() == file.resolve()
    if not (in_place or replace or dry_run) and target.exists():
        hint = "--replace replaces all of its rows, measured ones included; or choose another with -O"
        raise InputError("the file exists", where=shown_path(target), hint=hint)
    sources = fit_sources(assumed=assumed)
    grid: dict[str, Any] = {
        "slices": words(slices) if slices else (),
        "instances": numbers(instances, "--instances") if instances else (),
        "batches": numbers(batches, "--batches") if batches else (),
    }
    check_grid(table, quantile=quantile, **grid)
    with out.working("fitting the latency model"):
        fits = fit_or_refuse(table, sources, processes)
    filled = filled_profiles(
        table,
        fits,
        quantile=quantile,
        **grid,
        sources=sources,
    )
    if not dry_run:
        if in_place and load_profiles(file).rows() != table.rows():
            raise InputError("the file has changed during the fit", where=shown_path(file), hint="run it again")
        Sheet(target, fresh=True).replace(filled.rows())
    count = sum(row.source == "fitted" for row in filled.rows())
    variants = errors_document(fits, filled)
    outside = len(extrapolated(filled, sources))
    data = {
        "file": str(target),
        "quantile": quantile,
        "fitted": count,
        "extrapolated": outside,
        "written": not dry_run,
        "variants": variants,
    }
    for name in unfitted_variants(table, fits):
        out.note(f"{name} has too few rows to be fitted")
    if any(row.source == "fitted" and row.memory_mib == 0 for row in filled.rows()):
        out.note("the memory of some fitted rows is 0 MiB, as in the rows of their variant; plans do not limit it")
    if outside:
        out.note(f"{outside} fitted rows are outside of the measured slices, instances or batches of their variant")
    done = "would be added" if dry_run else "added"
    out.result(
        data, errors_view(variants), f"{count} fitted rows {done} at the {quantile:.0%} quantile; {shown_path(target)}"
    )


@options.command(
    "import",
    examples=(
        "profiles import perf.csv --gpu A30-24GB --task detect --variant n --slice 2g --instances 2 -O traffic/",
        "profiles import export.json --gpu A30-24GB --task detect --variant n --slice 1g -O traffic/profiles.csv",
        "profiles import metrics-model-inference.csv --gpu A30-24GB --task detect --variant n --slice 4g -O traffic/",
    ),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@options.option("--gpu", metavar="MODEL", required=True, help="GPU model that was measured, such as A100-80GB.")
@options.option("--task", metavar="TASK", required=True, help="Task of the model.")
@options.option("--variant", metavar="VARIANT", help="Variant.  [default: the name of the model, if the file has it]")
@options.option("--slice", "slice_", metavar="SLICE", help="Kind of slice, if the file does not say it.")
@options.option(
    "--instances",
    type=click.IntRange(1, LIMIT_COUNT),
    default=1,
    show_default=True,
    help="Number of Triton instances, if the file does not say it.",
)
@options.option(
    "--batch",
    type=click.IntRange(1, LIMIT_COUNT),
    default=1,
    show_default=True,
    help="Number of items in each request, if the file does not say it.",
)
@options.option(
    "--memory-mib",
    type=option_types.Number(min=0),
    default=0.0,
    help="Memory of all instances together, if the file does not say it.",
)
@options.option(
    "--processes",
    type=click.Choice(("streams", "mps")),
    help="Kind of the instances, if the file does not say it.",
)
@options.option("--replace", is_flag=True, help="Let measured rows replace measured ones too.")
@options.out_file("profiles.csv to merge the rows into, or its folder.", required=True, name=PROFILES_FILE)
def _import(
    out: Output,
    files: tuple[str, ...],
    gpu: str,
    task: str,
    variant: str | None,
    slice_: str | None,
    instances: int,
    batch: int,
    memory_mib: float,
    processes: Processes | None,
    replace: bool,
    out_path: Path | None,
) -> None:
    """Import the results of other tools into a profiles.csv.

    The formats are CSV and JSON of perf_analyzer (-f, --profile-export-file), CSV of Model Analyzer and of genai-perf,
    the table of ParvaGPU, the summary of MLPerf's LoadGen, and profiles.csv. A profile has no waiting requests: of
    several levels of concurrency, the one that equals the number of instances is imported. Every row says which file it
    is from.
    """
    assert out_path is not None
    sheet = Sheet(out_path)
    rows = import_profiles(
        files,
        gpu=gpu,
        task=task,
        variant=variant,
        slice=slice_,
        instances=instances,
        batch=batch,
        memory_mib=memory_mib,
        processes=processes,
    )
    result = merged(sheet.table, rows.rows(), replace=replace)
    sheet.replace(result.table.rows())
    if any(row.memory_mib == 0 and result.table.get(row.key) == row for row in rows.rows()):
        out.warn("the files do not say how much memory the model takes; plans take 0 MiB unless --memory-mib is given")
    if result.kept:
        advice = "what was not measured does not replace them" if replace else "--replace replaces them"
        out.warn(f"{len(result.kept)} configurations keep their measured rows; {advice}")
    out.result(merge_document(out_path, result), merge_line(out_path, result))


@options.command(
    "report",
    examples=("profiles report traffic/", "profiles report measured.csv -O report.html"),
)
@_SOURCE
@options.out_file(f"File to write, or its folder.  [default: {_REPORT_FILE} beside profiles.csv]", name=_REPORT_FILE)
def _report(out: Output, source: str, out_path: Path | None) -> None:
    """Write a report about profiles: which variant to choose, and how far to trust the figures.

    It is one HTML file without scripts, which needs no other file. It has the Pareto fronts of the variants, latency
    against batch, throughput against slice, memory, the fitted latency model against the rows, the sources of the rows,
    and what `profiles check` finds. Accuracies and the SLO are known if GRAPH is given. With -o json the output holds
    the same figures.
    """
    graph, file = _located(source)
    table = load_profiles(file)
    target = out_path or report_path(file)
    with out.working("fitting the latency model"):
        figures = write_report(graph, table, target, profiles=file)
    if figures.unfitted:
        out.note(figures.unfitted)
    document = {"report": str(target), **report_document(figures)}
    out.result(document, f"report of {len(table)} profiles: {shown_path(target)}")


command.add_command(_check)
command.add_command(_fit)
command.add_command(_import)
command.add_command(_report)


def _located(source: str) -> tuple[TaskGraph | None, Path]:
    """Returns the graph, if one was given, and the profiles."""
    path = Path(source)
    if path.suffix == ".csv":
        return None, path
    mistakes = Mistakes()
    found = read_graphs([source], mistakes)
    mistakes.raise_if_any()
    (graph,) = found.values()
    file = graph.folder / PROFILES_FILE
    if not file.exists():
        hint = f"`jigsaw-triton profile {shown_path(graph.folder)}` writes it"
        raise InputError("there is no such file", where=shown_path(file), hint=hint)
    return graph, file
