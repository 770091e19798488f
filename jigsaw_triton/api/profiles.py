"""Fits, checks, imports and reports profiles."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from jigsaw_triton.api.files import PathLike, shown_path
from jigsaw_triton.api.profile_files import PROFILES_FILE
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.errors import Diagnostic, InputError, MissingDependencyError, SpecError
from jigsaw_triton.evaluation.profiling.digest import model_digest
from jigsaw_triton.gpus.catalog import CATALOG, board
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.check import Finding
from jigsaw_triton.profiles.check import check_profiles as check_table
from jigsaw_triton.profiles.filling import QUANTILE, crossed, fitted_rows
from jigsaw_triton.profiles.fit import LEAST_ROWS, LatencyFit, fit_latency
from jigsaw_triton.profiles.importing import Target, parse_results
from jigsaw_triton.profiles.processes import kinds
from jigsaw_triton.profiles.read import LIMIT_COUNT, is_name, raise_all
from jigsaw_triton.profiles.report.figures import Basis, ReportFigures, report_figures
from jigsaw_triton.profiles.report.page import report_html
from jigsaw_triton.profiles.table import MEASURED, Processes, ProfileKey, ProfileRow, ProfileTable, Source
from jigsaw_triton.spec.files import load_text, replace_text
from jigsaw_triton.spec.words import nearest, shown

RESULT_LIMIT_BYTES = 256 * 1024 * 1024

LIMIT_CHECKED_ROWS = 10_000
"""Largest number of rows in which outliers are searched, so that a check takes seconds."""

LIMIT_REPORTED_ROWS = 20_000
"""Largest number of rows of a report, so that browsers open it in seconds."""


def memory_rooms() -> dict[str, dict[str, float]]:
    """Returns the memory of each kind of slice in MiB by GPU model; infinity where the catalog does not know it."""
    return {
        name: {kind: math.inf if p.memory_mib is None else p.memory_mib for kind, p in known.profiles.items()}
        for name, known in CATALOG.items()
    }


def fit_profiles(
    table: ProfileTable,
    *,
    quantile: float = QUANTILE,
    slices: Sequence[str] = (),
    instances: Sequence[int] = (),
    batches: Sequence[int] = (),
    assumed: bool = False,
    processes: Processes | None = None,
) -> ProfileTable:
    """Adds fitted rows for configurations that were not measured. This needs scipy, the extra `fit`.

    Measured and assumed rows stay as they are. Fitted rows are replaced.

    Args:
        table: Measured profiles.
        quantile: Quantile of the predicted latency that the rows get: 0.9 plans for the slower of likely latencies.
        slices: Kinds of slices to fill; by default those of the variant's rows.
        instances: Numbers of instances to fill; by default those of the variant's rows.
        batches: Batch sizes to fill; by default those of the variant's rows.
        assumed: True if the model is fitted to assumed rows too.
        processes: Kind of the instances whose rows the model is fitted to, `streams` or `mps`; needed if the table has
            rows of both.

    Raises:
        InputError: No variant has enough rows, the rows have instances of two kinds, or an argument is out of range.
        MissingDependencyError: Scipy is not installed.
    """
    sources = fit_sources(assumed=assumed)
    check_grid(table, quantile=quantile, slices=slices, instances=instances, batches=batches)
    return filled_profiles(
        table,
        fit_or_refuse(table, sources, processes),
        quantile=quantile,
        slices=slices,
        instances=instances,
        batches=batches,
        sources=sources,
    )


def fit_sources(*, assumed: bool) -> tuple[Source, ...]:
    """Returns the sources of the rows that a model is fitted to."""
    return (*MEASURED, "assumed") if assumed else MEASURED


def fit_or_refuse(
    table: ProfileTable, sources: Sequence[Source], processes: Processes | None = None
) -> dict[str, LatencyFit]:
    """Fits the latency model to each GPU model of a table.

    Raises:
        InputError: No variant has enough rows, or the rows of a GPU model have instances of two kinds and none is
            chosen.
        MissingDependencyError: Scipy is not installed.
    """
    for gpu in sorted({row.key.gpu for row in table.rows()} if processes is None else ()):
        found = kinds(row for row in table.rows(gpu=gpu) if row.source in sources)
        if len(found) > 1:
            counts = " and ".join(f"{count} of {kind}" for kind, count in found.items())
            message = f"of the rows with several instances on {gpu}, {counts} were measured, which one model cannot fit"
            hint = f"choose those of the cluster: --processes {next(iter(found))}"
            raise InputError(message, where="profiles", hint=hint)
    fits = fit_latency(table.rows(), sources, processes)
    if not fits:
        hint = "measure more with `jigsaw-triton profile`" if "assumed" in sources else "measure more, or use --assumed"
        message = f"no variant has {LEAST_ROWS} {' or '.join(sources)} rows on a GPU model"
        raise InputError(message, where="profiles", hint=hint)
    return fits


def check_grid(
    table: ProfileTable, *, quantile: float, slices: Sequence[str], instances: Sequence[int], batches: Sequence[int]
) -> None:
    """Checks the arguments of a fit, before it takes seconds; see `fit_profiles`.

    Raises:
        InputError: An argument is out of range.
    """
    if not 0 < quantile < 1:
        raise InputError(f"{quantile:g} is not a quantile", where="quantile", hint="give a number between 0 and 1")
    for name, numbers in (("instances", instances), ("batches", batches)):
        if not all(1 <= number <= LIMIT_COUNT for number in numbers):
            raise InputError("a number is out of range", where=name, hint=f"give numbers from 1 to {LIMIT_COUNT}")
    gpus = {row.key.gpu for row in table.rows()} & set(CATALOG)
    known = {kind for gpu in gpus for kind in board(gpu).profiles}
    for kind in slices:
        if kind not in known:
            hint = nearest(kind, known, "slices of the GPU models")
            raise InputError(f"there is no slice {shown(kind)}", where="slices", hint=hint)


def filled_profiles(
    table: ProfileTable,
    fits: dict[str, LatencyFit],
    *,
    quantile: float,
    slices: Sequence[str],
    instances: Sequence[int],
    batches: Sequence[int],
    sources: Sequence[Source],
) -> ProfileTable:
    """Returns the table without its fitted rows, and with new ones; see `fit_profiles`."""
    kept = [row for row in table.rows() if row.source != "fitted"]
    wanted = crossed(kept, slices=slices, instances=instances, batches=batches)
    rooms = {(gpu, kind): room for gpu, kinds in memory_rooms().items() for kind, room in kinds.items()}
    rows = fitted_rows(ProfileTable(kept), fits, wanted, quantile=quantile, rooms=rooms, sources=sources)
    return ProfileTable([*kept, *rows])


def check_profiles(table: ProfileTable, *, graph: TaskGraph | None = None) -> list[Finding]:
    """Returns everything that may be wrong with profiles: figures that contradict each other, and unknown names.

    With a graph, rows whose model has changed since they were measured are found by a digest of its files, unless files
    are missing. Outliers are found by the fitted latency model. That needs scipy, the extra `fit`. It is left out
    without scipy, and for tables of more than `LIMIT_CHECKED_ROWS` rows.

    Args:
        table: The profiles.
        graph: Graph that they belong to.

    Examples:
        >>> import jigsaw_triton as jt
        >>> jt.check_profiles(jt.load_profiles("app"), graph=jt.load_graph("app"))
        []
    """
    try:
        fits = fit_latency(table.rows()) if len(table) <= LIMIT_CHECKED_ROWS else {}
    except MissingDependencyError:
        fits = {}
    digests = model_digests(table, graph) if graph is not None else {}
    return check_table(table, rooms=memory_rooms(), graph=graph, fits=fits, digests=digests)


def model_digests(table: ProfileTable, graph: TaskGraph) -> dict[tuple[str, str], str]:
    """Returns (task, variant) -> digest of its model, for each variant whose files exist and whose rows have a digest.

    Other files are not read.
    """
    known = {(row.key.task, row.key.variant) for row in table.rows() if row.model}
    identities = Identities()
    return {
        (task.name, variant.name): model_digest(variant, identities)
        for task in graph.tasks.values()
        for variant in task.variants
        if (task.name, variant.name) in known and all(path.is_file() for path in variant.artifacts.values())
    }


def report_profiles(
    table: ProfileTable,
    *,
    graph: TaskGraph | None = None,
    file: str = PROFILES_FILE,
    modified: datetime | None = None,
) -> str:
    """Returns a report about profiles as the text of an HTML file, which needs no other file.

    It shows the Pareto fronts of the variants, latency, throughput and memory of their configurations, and how far the
    figures can be trusted: their sources, the findings of `check_profiles`, and the fitted latency model against the
    rows. The last one needs scipy, the extra `fit`.

    Args:
        table: The profiles.
        graph: Graph that they belong to, which has the accuracies and the SLO.
        file: Name of the file that they are from.
        modified: Time at which that file was written last.

    Raises:
        InputError: The table has too many rows.
    """
    return report_html(profile_figures(table, graph=graph, file=file, modified=modified))


def report_path(profiles: Path) -> Path:
    """Returns the default path of the report about a profiles.csv, which is beside it."""
    # The report must not overwrite a file of profiles whose own name ends with .html.
    return profiles.with_name(f"{profiles.name if profiles.suffix == '.html' else profiles.stem}.html")


def write_report(graph: TaskGraph | None, table: ProfileTable, path: Path, *, profiles: Path) -> ReportFigures:
    """Writes a report about profiles to an HTML file.

    Args:
        graph: Graph that the profiles belong to.
        table: The profiles.
        path: Path of the HTML file, which is replaced in one step.
        profiles: Path of the profiles.csv that they are from.

    Returns:
        The figures of the report.

    Raises:
        InputError: The file cannot be written, or the table has too many rows.
    """
    modified = datetime.fromtimestamp(profiles.stat().st_mtime, UTC) if profiles.exists() else None
    figures = profile_figures(table, graph=graph, file=shown_path(profiles), modified=modified)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, report_html(figures))
    except OSError as error:
        hint = "choose another with -O"
        raise InputError(f"the file cannot be written ({error.strerror})", where=shown_path(path), hint=hint) from error
    return figures


def profile_figures(
    table: ProfileTable, *, graph: TaskGraph | None, file: str, modified: datetime | None
) -> ReportFigures:
    """Returns the figures of a report; see `report_profiles`."""
    if len(table) > LIMIT_REPORTED_ROWS:
        hint = f"a report has at most {LIMIT_REPORTED_ROWS}; write the rows of some tasks to a file of their own"
        raise InputError(f"the table has {len(table)} rows", where=file, hint=hint)
    bases, unfitted = _bases(table)
    measured = {gpu: basis.fit for gpu, basis in bases.items() if basis.sources == MEASURED}
    rooms = memory_rooms()
    digests = model_digests(table, graph) if graph is not None else {}
    return report_figures(
        table,
        file=file,
        modified=modified,
        graph=graph,
        bases=bases,
        unfitted=unfitted,
        findings=check_table(table, rooms=rooms, graph=graph, fits=measured, digests=digests),
        rooms=rooms,
    )


def figures_of_graphs(graphs: Mapping[str, TaskGraph], tables: Mapping[str, ProfileTable]) -> Iterator[ReportFigures]:
    """Yields the figures of the profiles of each graph, unless it has none or too many rows for a report."""
    for name, graph in graphs.items():
        table = tables.get(name)
        if table is not None and 0 < len(table) <= LIMIT_REPORTED_ROWS:
            yield profile_figures(table, graph=graph, file=f"the profiles of {name}", modified=None)


def _bases(table: ProfileTable) -> tuple[dict[str, Basis], str]:
    """Fits each GPU model to its measured rows, or to the assumed ones too if those are too few.

    Returns:
        The fits, and the reason if there are none.
    """
    if len(table) > LIMIT_CHECKED_ROWS:
        return {}, f"The latency model is fitted to tables of up to {LIMIT_CHECKED_ROWS} rows only."
    found: dict[str, Basis] = {}
    try:
        for gpu in sorted({row.key.gpu for row in table.rows()}):
            for sources in (MEASURED, fit_sources(assumed=True)):
                if fits := fit_latency(table.rows(gpu=gpu), sources):
                    found[gpu] = Basis(fits[gpu], sources)
                    break
    except MissingDependencyError as error:
        return {}, f"The latency model was not fitted: {error}."
    return found, ""


def import_profiles(
    files: Iterable[PathLike],
    *,
    gpu: str,
    task: str,
    variant: str | None = None,
    slice: str | None = None,
    instances: int = 1,
    batch: int = 1,
    memory_mib: float = 0.0,
    processes: Processes | None = None,
) -> ProfileTable:
    """Reads results of other tools as profiles.

    The formats are CSV and JSON of perf_analyzer, CSV of Model Analyzer and genai-perf, the table of ParvaGPU, and
    profiles.csv itself. Of a file with several levels of concurrency, only that of `instances` counts, since a profile
    has no waiting requests.

    Args:
        files: Paths of the files. `-` is standard input.
        gpu: Name of the GPU model.
        task: Name of the task.
        variant: Name of the variant; by default the name of the model, if the file has it.
        slice: Kind of slice, if the file does not say it.
        instances: Number of Triton instances, if the file does not say it.
        batch: Number of items in each request, if the file does not say it.
        memory_mib: Memory of all instances together, if the file does not say it.
        processes: Kind of the instances, if the file does not say it: `streams` or `mps`.

    Raises:
        InputError: An argument is wrong.
        SpecError: A file has mistakes.
    """
    profiles = board(gpu, where="gpu").profiles
    if slice is not None and slice not in profiles:
        hint = nearest(slice, profiles, f"slices of {gpu}")
        raise InputError(f"{gpu} has no slice {shown(slice)}", where="slice", hint=hint)
    for where, name in (("task", task), ("variant", variant)):
        if name is not None and not is_name(name):
            hint = "begin with a letter, and use letters, digits, _ and -"
            raise InputError(f"{shown(name)} is not a name", where=where, hint=hint)
    target = Target(gpu, task, variant, slice, instances, batch, memory_mib, processes)
    rows: dict[ProfileKey, tuple[ProfileRow, str]] = {}
    problems: list[Diagnostic] = []
    for path in files:
        file = str(path) if str(path) == "-" else shown_path(Path(path))
        try:
            found = parse_results(load_text(path, limit_bytes=RESULT_LIMIT_BYTES), file, target)
        except SpecError as error:
            problems += error.diagnostics
            continue
        for row in found:
            if row.key in rows:
                message = f"{row.key.words} is in {rows[row.key][1]} too"
                problems.append(Diagnostic(file, 0, message, "give only one of the files"))
            elif row.key.slice not in board(row.key.gpu, where=file).profiles:
                problems.append(Diagnostic(file, 0, f"{row.key.gpu} has no slice '{row.key.slice}'", "check --gpu"))
            else:
                rows[row.key] = row, file
    raise_all(problems, "")
    return ProfileTable(row for row, _ in rows.values())
