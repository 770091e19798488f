"""Reads the results of other tools as profiles.

They are Triton's Model Analyzer and perf_analyzer, genai-perf, MLPerf's LoadGen, and ParvaGPU.

All of these tools keep a number of requests in flight, their concurrency. A profile says how a configuration behaves
while all of its instances are busy and no request waits. So of each file the measurements count whose concurrency is
the number of instances.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.profiles.measurements import (
    KNOWN,
    TABLES,
    Measurement,
    read_export,
    read_genai_perf,
    read_loadgen,
    read_table,
)
from jigsaw_triton.profiles.read import HEADER, LIMIT_ORIGIN, is_name, parse_profiles, raise_all
from jigsaw_triton.profiles.table import Processes, ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.spec.words import shown

LIMIT_LINES = 200_000
"""Largest number of lines of a table, so that reading takes seconds. The profiles of a model are a few hundred."""

_LIMIT_TITLE = 10_000
"""Number of characters before which a text file must say what it is."""

_SUMMARY = "MLPerf Results Summary"
"""Title of the summary that MLPerf's LoadGen writes."""


@dataclass(frozen=True, slots=True)
class Target:
    """Configuration that a result belongs to, as far as the file itself does not say it.

    Attributes:
        gpu: Name of the GPU model.
        task: Name of the task.
        variant: Name of the variant. None if the file names the models, which are then the variants.
        slice: Kind of slice. None if the file says it.
        instances: Number of Triton instances.
        batch: Number of items in each request.
        memory_mib: Memory of all instances together, for files that do not say it.
        processes: Kind of the instances, for files that do not say it. None if it is not known.
    """

    gpu: str
    task: str
    variant: str | None = None
    slice: str | None = None
    instances: int = 1
    batch: int = 1
    memory_mib: float = 0.0
    processes: Processes | None = None


def parse_results(text: str, file: str, target: Target) -> list[ProfileRow]:
    """Returns the profiles in a result of another tool. The format is recognised by its content.

    Args:
        text: Text of the file.
        file: Name of the file, for messages and for the origin of the rows.
        target: Configuration that the result belongs to.

    Raises:
        SpecError: The format is unknown, or the file has mistakes.
    """
    if text.lstrip().startswith("{"):
        return _rows(read_export(text, file), "perf_analyzer", file, target)
    if _SUMMARY in text[:_LIMIT_TITLE]:
        return _rows(read_loadgen(text, file), "LoadGen", file, target)
    if text.count("\n") > LIMIT_LINES:
        hint = "keep the rows of the models that you need"
        raise SpecError([Diagnostic(file, 0, f"the file has more than {LIMIT_LINES} lines", hint)])
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(lines, [])
        columns = [name.strip() for name in header]
        if tuple(columns[: len(HEADER)]) == HEADER:
            return _of_target(parse_profiles(text, file), file, target)
        if columns[:1] == ["Metric"]:
            return _rows(read_genai_perf(chain([header], lines), file), "genai-perf", file, target)
        for tool, (needed, read) in TABLES.items():
            if needed <= set(columns):
                return _rows(read_table(lines, columns, file, read), tool, file, target)
    except csv.Error as error:
        message = f"this is not valid CSV: {error}"
        raise SpecError([Diagnostic(file, lines.line_num, message, "check quotes and line ends")]) from error
    if "Scenario" in columns:
        message = "MLPerf's tables of results have no batch size, no kind of slice and no 95th percentile"
        hint = "import the mlperf_log_summary.txt of a SingleStream or MultiStream run on the slice"
        raise SpecError([Diagnostic(file, 1, message, hint)])
    missing = [f"{tool} needs {', '.join(sorted(needed - set(columns)))}" for tool, (needed, _) in TABLES.items()]
    message = f"the format is unknown: the first line lacks columns ({'; '.join(missing)})"
    raise SpecError([Diagnostic(file, 1, message, f"known are {KNOWN}")])


def _of_target(table: ProfileTable, file: str, target: Target) -> list[ProfileRow]:
    """Returns the rows of the target's GPU model, task, variant and slice, with its processes unless they say theirs.

    Raises:
        SpecError: There are no such rows.
    """
    known = table.rows(task=target.task, variant=target.variant, gpu=target.gpu)
    found = [row for row in known if target.slice in (None, row.key.slice)]
    if not found:
        wanted = [target.gpu, target.task, *filter(None, (target.variant, target.slice))]
        hint = "change --gpu, --task, --variant or --slice"
        raise SpecError([Diagnostic(file, 0, f"no row is of {', '.join(wanted)}", hint)])
    return [replace(row, processes=row.processes or target.processes) for row in found]


def _rows(found: Sequence[Measurement], tool: str, file: str, target: Target) -> list[ProfileRow]:
    """Completes the measurements with what is known of them.

    Raises:
        SpecError: A measurement is not complete, or none was made with all instances busy, or two are of one
            configuration.
    """
    rows: dict[ProfileKey, tuple[ProfileRow, int]] = {}
    problems: list[Diagnostic] = []
    origin = f"{tool}: {file}"
    for one in _of_one_model(found, file, target):
        instances, batch = one.instances or target.instances, one.batch or target.batch
        if one.concurrency is not None and one.concurrency != instances:
            continue
        kind, variant = one.slice or target.slice, target.variant or one.variant
        if target.variant is not None and one.variant not in (None, target.variant):
            continue
        if kind is None or variant is None:
            lacking = [name for name, value in (("--slice", kind), ("--variant", variant)) if value is None]
            raise SpecError([Diagnostic(file, 0, f"the file does not say it: {', '.join(lacking)}", "add it")])
        key = ProfileKey(target.gpu, target.task, variant, kind, instances, batch)
        if not is_name(variant):
            message = f"the model {shown(variant)} is no name of a variant"
            problems.append(Diagnostic(file, one.line, message, "give one with --variant"))
        elif not one.p50_ms <= one.p95_ms <= one.p99_ms:
            percentiles = f"p50 {one.p50_ms:g}, p95 {one.p95_ms:g}, p99 {one.p99_ms:g} ms"
            message = f"the latencies are not ascending: {percentiles}"
            problems.append(Diagnostic(file, one.line, message, "measure again"))
        elif key in rows:
            hint = f"remove one of the rows; the first is on line {rows[key][1]}"
            problems.append(Diagnostic(file, one.line, "duplicate configuration", hint))
        else:
            memory = target.memory_mib if one.memory_mib is None else round(one.memory_mib, 1)
            throughput = one.throughput * (batch if one.by_request else 1)
            latencies = (one.p50_ms, one.p95_ms, one.p99_ms)
            row = ProfileRow(key, *latencies, throughput, memory, "measured", origin[:LIMIT_ORIGIN])
            rows[key] = replace(row, processes=one.processes or target.processes), one.line
    raise_all(problems, file)
    if not rows:
        levels = sorted({f"{one.concurrency:g}" for one in found if one.concurrency is not None})
        message = f"no row has a concurrency of the number of instances ({target.instances}), only {', '.join(levels)}"
        if not levels:
            message = f"no row is of {target.variant}" if found else "the file has no rows"
        raise SpecError([Diagnostic(file, 0, message, "measure with as many requests in flight as instances")])
    return [row for row, _ in rows.values()]


def _of_one_model(found: Sequence[Measurement], file: str, target: Target) -> Sequence[Measurement]:
    """Returns the measurements of the model: the only one, or the one with the name of the variant.

    Raises:
        SpecError: There are several models, and none has that name.
    """
    models = {one.model for one in found} - {None}
    if len(models) <= 1:
        return found
    if target.variant not in models:
        message = f"the file has several models: {', '.join(sorted(map(str, models)))}"
        hint = "keep the rows of one of them, or give the name of one with --variant"
        raise SpecError([Diagnostic(file, 0, message, hint)])
    return [one for one in found if one.model == target.variant]
