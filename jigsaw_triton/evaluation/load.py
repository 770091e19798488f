"""Load on a running graph by perf_analyzer: the data that it sends, its command line, and its report.

This module relies on the following behaviour, observed with perf_analyzer 2.60:

- It repeats windows of the measurement interval until three in a row agree, and reports those three together. Each
  window lasts 1.2 intervals. If no three agree it reports nothing, so a wide tolerance makes the first three agree.
- At the start it lists the models that an ensemble consists of, and aborts when one of them has no request in a window.
  It therefore aborts when the graph is swapped, although no request fails.
- A thread that receives an error stops. The run then ends without a report, but with exit status 0.
- Its Poisson arrivals are the same in each run. Over a few hundred requests their rate differs from the requested one.
- It sends request parameters over gRPC only, and refuses them for HTTP.
- It refuses integers in its input file for float tensors. Base64 works for all types; in it, strings consist of their
  length and their bytes, as on the wire.
"""

import base64
import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tritonclient.utils import serialize_byte_tensor

from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.profiling.tensors import made_up, sample_inputs
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef, TensorType
from jigsaw_triton.runtime.dtypes import Array, Arrays

Protocol = Literal["http", "grpc"]

PERCENTILES = (50, 90, 95, 99)
"""Percentiles that perf_analyzer reports."""

_REQUEST_TIMEOUT_US = 600_000_000
"""Timeout of each request, which replaces the one derived from the SLO.

A closed loop may overload the graph, and must not end when the first request misses its deadline.
"""

_WINDOWS = 3
_WINDOW_INTERVALS = 1.2
_ANY_DEVIATION_PERCENT = 100_000
_LEAST_INTERVAL_MS = 100
_SEED = 1


class EmptyWindowError(ServerError):
    """perf_analyzer aborted because a model of the graph had no request in a measurement window."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load on a graph.

    Attributes:
        model: Name of the graph.
        protocol: Protocol to the gateway.
        url: Host and port of the gateway.
        concurrency: Number of concurrent requests in a closed loop; ignored if there is a rate.
        rate_rps: Requests per second with Poisson arrivals; None for a closed loop.
        duration_s: Approximate duration of the measurement in seconds.
    """

    model: str
    protocol: Protocol
    url: str
    concurrency: int = 1
    rate_rps: float | None = None
    duration_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Result of a measurement.

    Attributes:
        requests: Number of requests answered in the reported windows.
        throughput_rps: Answers per second.
        latency_ms: Latency by percentile.
    """

    requests: int
    throughput_rps: float
    latency_ms: dict[int, float]


def request_tensors(graph: TaskGraph) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Returns the tensors of one request, without a batch dimension: samples, and made-up data for other inputs.

    Args:
        graph: Graph to send the request to.

    Returns:
        The tensors by input, and the inputs with made-up data, which is the same in each call.

    Raises:
        InputError: A sample is no tensor, or does not have the type of its input.
    """
    samples = {ref.name: array for ref, array in sample_inputs(graph).items()}
    rng = np.random.default_rng(_SEED)
    random = {name: made_up(_one(graph, name), rng) for name in graph.inputs if name not in samples}
    return samples | random, tuple(random)


def _one(graph: TaskGraph, name: str) -> TensorType:
    """Returns the input's type with the expected number of rows of a request."""
    given = graph.inputs[name]
    if graph.row_axis(TensorRef(GRAPH_INPUTS, name)) is None:
        return given.type
    return TensorType(given.type.dtype, (max(1, round(given.rows)), *given.type.shape[1:]))


def input_data(tensors: Arrays) -> str:
    """Returns the content of perf_analyzer's `--input-data` file for one request.

    Args:
        tensors: Tensors by input, without a batch dimension; BYTES tensors are object arrays of bytes.
    """
    entry = {name: {"content": {"b64": _encoded(array)}, "shape": list(array.shape)} for name, array in tensors.items()}
    return json.dumps({"data": [entry]}) + "\n"


def _encoded(array: Array) -> str:
    raw = serialize_byte_tensor(array).item() if array.dtype.kind == "O" else np.ascontiguousarray(array).tobytes()
    return base64.b64encode(raw).decode()


def command_line(binary: Path, load: Load, data: Path, report: Path) -> tuple[str, ...]:
    """Returns the perf_analyzer command that generates the load.

    Args:
        binary: Path of perf_analyzer.
        load: Load to generate.
        data: File with the result of `input_data`.
        report: CSV file that perf_analyzer writes.
    """
    interval_ms = max(_LEAST_INTERVAL_MS, round(load.duration_s * 1000 / (_WINDOWS * _WINDOW_INTERVALS)))
    arrivals: tuple[str, ...] = ("--concurrency-range", str(load.concurrency))
    windows: tuple[str, ...] = ("--measurement-interval", str(interval_ms))
    if load.rate_rps is not None:
        # Synchronous threads would delay requests as soon as all of them wait for an answer.
        arrivals = ("--request-rate-range", f"{load.rate_rps:g}", "--request-distribution", "poisson", "--async")
        # Windows count requests, because a time window in which no request ends would end the run without a report.
        # That happens at a low rate or under overload.
        count = max(1, round(load.duration_s * load.rate_rps / _WINDOWS))
        windows = ("--measurement-mode", "count_windows", "--measurement-request-count", str(count))
    timeout = ("--request-parameter", f"timeout:{_REQUEST_TIMEOUT_US}:int") if load.protocol == "grpc" else ()
    # fmt: off
    return (
        str(binary), "-m", load.model, "-i", load.protocol, "-u", load.url, "--input-data", str(data), *arrivals,
        *windows, "--stability-percentage", str(_ANY_DEVIATION_PERCENT),
        "--max-trials", str(_WINDOWS), *timeout, "-f", str(report),
    )
    # fmt: on


def read_report(report: str, output: str, where: str) -> Measured:
    """Parses perf_analyzer's report.

    Args:
        report: Text of its CSV file; empty if it wrote none.
        output: Standard output and error of perf_analyzer.
        where: Address of the graph, for error messages.

    Raises:
        EmptyWindowError: perf_analyzer aborted because a window was too short or the graph was swapped.
        ServerError: perf_analyzer aborted for another reason; the message contains its last line of output.
    """
    row: dict[str, Any] = next(csv.DictReader(io.StringIO(report)), {})
    count = re.search(r"Request count: ([0-9]+)", output)
    try:
        latency_ms = {p: int(row[f"p{p} latency"]) / 1000 for p in PERCENTILES}
        return Measured(int(count[1]) if count is not None else 0, float(row["Inferences/Second"]), latency_ms)
    except (KeyError, ValueError) as error:
        raise _failure(output, where) from error


def _failure(output: str, where: str) -> ServerError:
    errors = list(dict.fromkeys(re.findall(r"^Thread \[[0-9]+\] had error: (.+)$", output, re.MULTILINE)))
    hint = "see `jigsaw-triton status` and `jigsaw-triton logs`"
    if errors:
        message = f"requests failed, and perf_analyzer stops at the first error: {'; '.join(errors)}"
        return ServerError(message, where=where, hint=hint)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else "no output"
    message = f"perf_analyzer failed: {last}"
    if "failed to find the requested model version" in last or "No valid requests recorded" in last:
        hint = (
            "either the graph was swapped during the run (perf_analyzer then loses track of its models; see"
            " `jigsaw-triton events`), or no request was answered in one of its windows: run it again with a longer"
            " --duration"
        )
        return EmptyWindowError(message, where=where, hint=hint)
    return ServerError(message, where=where, hint=hint)
