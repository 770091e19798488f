"""Readers of the results of other tools: each returns the measurements in a file, as the file has them."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jigsaw_triton.errors import Diagnostic, SpecError
from jigsaw_triton.profiles.latency_model import SHARES
from jigsaw_triton.profiles.read import raise_all
from jigsaw_triton.profiles.table import Processes
from jigsaw_triton.spec.words import nearest, shown

KNOWN = (
    "CSV files of perf_analyzer (-f), Model Analyzer, genai-perf and ParvaGPU, perf_analyzer's JSON, "
    "MLPerf's mlperf_log_summary.txt, and profiles.csv"
)

_LEAST_REQUESTS = 20
"""Smallest number of requests from which a 95th percentile is taken."""

_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
_FACT = re.compile(r"^\s*([^:\n]*?)\s*:\s*(\S.*?)\s*$", re.MULTILINE)
_GROUP = re.compile(r"([1-9][0-9]*)\s*[:/]\s*(?:GPU|CPU|AUTO)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement in a file; None where the file does not say it.

    Attributes:
        line: Line of the file, or 0.
        concurrency: Requests in flight; None if it is the number of instances by construction.
        p50_ms: Median latency.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        throughput: Items per second, or requests per second if `by_request`.
        instances: Number of instances.
        batch: Number of items in each request.
        slice: Kind of slice.
        variant: Name of the variant.
        model: Name of the model, if that need not be the variant's.
        memory_mib: Memory of all instances together.
        by_request: True if the throughput counts requests, each of a batch.
        processes: Kind of the instances.
    """

    line: int
    concurrency: float | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    throughput: float
    instances: int | None = None
    batch: int | None = None
    slice: str | None = None
    variant: str | None = None
    model: str | None = None
    memory_mib: float | None = None
    by_request: bool = False
    processes: Processes | None = None


class _RowError(Exception):
    """A row that cannot be used: message and hint."""


Cells = Mapping[str, str]

ReadRow = Callable[[Cells, int], Measurement]
"""Function that reads a row, given the number of its line."""


def read_table(lines: Any, columns: Sequence[str], file: str, read: ReadRow) -> list[Measurement]:
    """Reads a CSV table row by row.

    Raises:
        SpecError: Rows have mistakes.
    """
    found, problems = [], []
    for cells in lines:
        if not cells:
            continue
        try:
            if len(cells) != len(columns):
                raise _RowError(f"the row must have {len(columns)} cells, not {len(cells)}", "export the file again")
            found.append(read(dict(zip(columns, cells, strict=True)), lines.line_num))
        except _RowError as error:
            problems.append(Diagnostic(file, lines.line_num, *error.args))
    raise_all(problems, file)
    return found


def _perf_analyzer(row: Cells, line: int) -> Measurement:
    """Reads a row of perf_analyzer's CSV. Its latencies are in microseconds."""
    p50, p95, p99 = (_number(row, f"p{p} latency") / 1000 for p in (50, 95, 99))
    return Measurement(line, _number(row, "Concurrency"), p50, p95, p99, _number(row, "Inferences/Second"))


def _model_analyzer(row: Cells, line: int) -> Measurement:
    """Reads a row of Model Analyzer's metrics of models.

    By default the table has one percentile. Percentiles that it lacks are the next larger one. The median is then the
    mean latency, which by Little's law is the number of items in flight over the throughput.
    """
    concurrency, batch = _number(row, "Concurrency"), _count(row, "Batch")
    throughput = _number(row, "Throughput (infer/sec)")
    p99 = _number(row, "p99 Latency (ms)")
    p95 = _number(row, "p95 Latency (ms)") if row.get("p95 Latency (ms)") else p99
    p50 = min(1000 * concurrency * batch / throughput, p95)
    group = _GROUP.fullmatch(row.get("Instance Group", "").strip())
    memory = _number(row, "GPU Memory Usage (MB)") * 1e6 / 2**20 if row.get("GPU Memory Usage (MB)") else None
    instances = int(group[1]) if group is not None else None
    model = row.get("Model", "").strip() or None
    return Measurement(
        *(line, concurrency, p50, p95, p99, throughput, instances, batch),
        model=model,
        memory_mib=memory,
        processes="streams",
    )


def _parva(row: Cells, line: int) -> Measurement:
    """Reads a row of ParvaGPU's table, whose latencies are in seconds and rounded to a millisecond.

    They are too short by up to that, so the latency is at least that of the throughput. It stands for all percentiles.
    """
    kind, batch, processes = f"{_count(row, 'mig_gpcs')}g", _count(row, "batch"), _count(row, "mps_procs")
    if kind not in SHARES:
        raise _RowError(f"mig_gpcs is {shown(row['mig_gpcs'])}", nearest(kind, SHARES, "known slices"))
    seconds = max(_number(row, "latency_s"), batch * processes / _number(row, "throughput_total_rps"))
    ms, throughput = round(1000 * seconds, 3), round(batch * processes / seconds, 3)
    variant = row["model"].strip()
    return Measurement(line, None, ms, ms, ms, throughput, processes, batch, kind, variant, processes="mps")


TABLES: Mapping[str, tuple[frozenset[str], ReadRow]] = {
    "perf_analyzer": (
        frozenset({"Concurrency", "Inferences/Second", "p50 latency", "p95 latency", "p99 latency"}),
        _perf_analyzer,
    ),
    "Model Analyzer": (
        frozenset({"Batch", "Concurrency", "Throughput (infer/sec)", "p99 Latency (ms)"}),
        _model_analyzer,
    ),
    "ParvaGPU": (
        frozenset({"model", "mig_gpcs", "batch", "mps_procs", "latency_s", "throughput_total_rps"}),
        _parva,
    ),
}
"""Tool -> columns by which its table is recognised, and reader of a row."""


def read_genai_perf(lines: Iterator[list[str]], file: str) -> list[Measurement]:
    """Reads genai-perf's CSV: a table of metrics by statistic, and below it metrics with one value.

    Raises:
        SpecError: The latency of requests or their throughput is missing.
    """
    metrics: dict[str, Cells] = {}
    columns: list[str] = []
    for cells in lines:
        if cells[:1] == ["Metric"]:
            columns = cells
        elif cells:
            metrics[cells[0].lower()] = dict(zip(columns, cells, strict=False))
    try:
        latency = metrics["request latency (ms)"]
        throughput = metrics["request throughput (per sec)"]
        p50, p95, p99 = (_number(latency, f"p{p}") for p in (50, 95, 99))
        value = _number(throughput, "Value" if "Value" in throughput else "avg")
    except KeyError as error:
        message = f"the metric {shown(error.args[0])} is missing"
        raise SpecError([Diagnostic(file, 0, message, "export it again with genai-perf")]) from error
    except _RowError as error:
        raise SpecError([Diagnostic(file, 0, *error.args)]) from error
    return [Measurement(0, None, p50, p95, p99, value, by_request=True)]


def read_loadgen(text: str, file: str) -> list[Measurement]:
    """Reads the summary of MLPerf's LoadGen. Its latencies are in nanoseconds.

    The scenarios SingleStream and MultiStream keep one query in flight, whose samples are a batch. In the others,
    queries wait, and the summary does not say in which batches they ran.

    Raises:
        SpecError: The scenario is another one, the run is not valid, or a figure is missing.
    """
    facts = dict(_FACT.findall(text))
    scenario = facts.get("Scenario", "").replace(" ", "")
    if scenario not in ("SingleStream", "MultiStream"):
        message = f"the scenario {shown(scenario)} does not say in which batches samples ran"
        raise SpecError([Diagnostic(file, 0, message, "run LoadGen with SingleStream or MultiStream")])
    if facts.get("Result is") != "VALID":
        raise SpecError([Diagnostic(file, 0, "LoadGen does not say that the result is valid", "run it for longer")])
    try:
        batch = _count(facts, "samples_per_query")
        p50, p95, p99 = (_number(facts, f"{p}.00 percentile latency (ns)") / 1e6 for p in (50, 95, 99))
        throughput = round(batch * 1e9 / _number(facts, "Mean latency (ns)"), 3)
    except KeyError as error:
        message = f"the summary lacks {shown(error.args[0])}"
        raise SpecError([Diagnostic(file, 0, message, "give the whole file, as LoadGen wrote it")]) from error
    except _RowError as error:
        raise SpecError([Diagnostic(file, 0, *error.args)]) from error
    return [Measurement(0, 1, p50, p95, p99, throughput, batch=batch)]


def read_export(text: str, file: str) -> list[Measurement]:
    """Reads the JSON that perf_analyzer writes with --profile-export-file. Its timestamps are in nanoseconds.

    Raises:
        SpecError: The file is not such an export, or has too few requests.
    """
    hint = f"known are {KNOWN}"
    try:
        experiments = json.loads(text)["experiments"]
        spans = [_spans(one) for one in experiments]
        modes = [(one["experiment"]["mode"], float(one["experiment"]["value"])) for one in experiments]
    except (KeyError, TypeError, ValueError, RecursionError, IndexError, AttributeError) as error:
        raise SpecError([Diagnostic(file, 0, "this is not an export of perf_analyzer", hint)]) from error
    found = []
    for (mode, value), times in zip(modes, spans, strict=True):
        if mode == "concurrency" and len(times) >= _LEAST_REQUESTS:
            took = sorted((end - start) / 1e6 for start, end in times)
            seconds = (max(end for _, end in times) - min(start for start, _ in times)) / 1e9
            p50, p95, p99 = (round(took[math.ceil(share * len(took)) - 1], 3) for share in (0.5, 0.95, 0.99))
            found.append(Measurement(0, value, p50, p95, p99, round(len(took) / seconds, 3), by_request=True))
    if not found:
        message = f"no experiment with a concurrency has {_LEAST_REQUESTS} requests"
        raise SpecError([Diagnostic(file, 0, message, "measure for longer, with --concurrency-range")])
    return found


def _spans(experiment: Any) -> list[tuple[float, float]]:
    """Returns the start and the end of each answered request within the windows, in nanoseconds."""
    windows = experiment.get("window_boundaries") or [-math.inf, math.inf]
    spans = [
        (float(request["timestamp"]), float(request["response_timestamps"][-1]))
        for request in experiment["requests"]
        if request["response_timestamps"]
    ]
    if not all(math.isfinite(start) and start < end for start, end in spans):
        raise ValueError("a request ends before it begins")
    return [(start, end) for start, end in spans if min(windows) <= start and end <= max(windows)]


def _number(row: Cells, column: str) -> float:
    """Returns the number in a cell, which must be greater than 0. Commas may separate thousands."""
    text = row[column].strip()
    try:
        value = float(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        point = ", with a decimal point" if "," in text else ""
        raise _RowError(f"{column} is {shown(row[column])}", f"it must be a finite number greater than 0{point}")
    return value


def _count(row: Cells, column: str) -> int:
    value = _number(row, column)
    if value != round(value) or value > 999_999:
        raise _RowError(f"{column} is {shown(row[column])}", "it must be a whole number from 1 to 999999")
    return round(value)
