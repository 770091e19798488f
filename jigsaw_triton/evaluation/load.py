"""A load on a running graph, in perf_analyzer's terms: the data it sends, its command line, its report.

What is relied on was seen of perf_analyzer 2.60:

- It repeats windows of the measurement interval until three in a row agree, and reports those three together; each
  lasts 1.2 intervals. Where they never agree it reports nothing, so a wide tolerance keeps it to the three.
- It asks for the statistics of the models that an ensemble is made of when it begins, and gives up when one of them has
  had no request in a window: it does not outlast a swap of the graph, though no request fails.
- A thread that gets an error stops, the run then ends without a report, and the exit status is 0 all the same.
- Its Poisson arrivals are the same in each run: over a few hundred requests their rate differs from the one asked for.
- It sends request parameters over gRPC only, and refuses them for HTTP.
- Whole numbers in its input file are refused for float tensors. Base64 is right for all types; strings are length and
  bytes there, as on the wire.
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
from jigsaw_triton.graph.model import GRAPH_INPUTS, TaskGraph, TensorRef, TensorType
from jigsaw_triton.runtime.dtypes import Array, Arrays

Protocol = Literal["http", "grpc"]

PERCENTILES = (50, 90, 95, 99)
"""That perf_analyzer reports."""

_PATIENCE_US = 600_000_000
"""Timeout of each request, in place of one that follows from the SLO: a closed loop may overload what it measures, and
must not end at the first request that is refused for being late."""

_WINDOWS = 3
_WINDOW_INTERVALS = 1.2
_ANY_DEVIATION_PERCENT = 100_000
_LEAST_INTERVAL_MS = 100
_SEED = 1


class EmptyWindowError(ServerError):
    """perf_analyzer gave up since a model of the graph had no request in one of its windows."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, where to.

    Attributes:
        model: Name of the graph.
        protocol: Of the gateway.
        url: Host and port.
        concurrency: Requests under way at any time; ignored where there is a rate.
        rate_rps: Requests a second with Poisson arrivals; None for a closed loop.
        duration_s: About how long is measured.
    """

    model: str
    protocol: Protocol
    url: str
    concurrency: int = 1
    rate_rps: float | None = None
    duration_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        requests: Answered in the windows that count.
        throughput_rps: Answers a second.
        latency_ms: Percentile -> latency.
    """

    requests: int
    throughput_rps: float
    latency_ms: dict[int, float]


def request_tensors(graph: TaskGraph) -> tuple[dict[str, Array], tuple[str, ...]]:
    """One request's tensors, without a batch dimension: the graph's samples, and made-up data for the rest.

    Args:
        graph: To send to.

    Returns:
        The tensors by input, and the inputs whose data is made up (always the same).

    Raises:
        InputError: A sample is no tensor, or not of its input's type.
    """
    samples = {ref.name: array for ref, array in sample_inputs(graph).items()}
    rng = np.random.default_rng(_SEED)
    random = {name: made_up(_one(graph, name), rng) for name in graph.inputs if name not in samples}
    return samples | random, tuple(random)


def _one(graph: TaskGraph, name: str) -> TensorType:
    """The input's type with as many rows as a request is expected to have."""
    given = graph.inputs[name]
    if graph.row_axis(TensorRef(GRAPH_INPUTS, name)) is None:
        return given.type
    return TensorType(given.type.dtype, (max(1, round(given.rows)), *given.type.shape[1:]))


def input_data(tensors: Arrays) -> str:
    """The content of a file for `--input-data`, of one request.

    Args:
        tensors: By input, without a batch dimension; BYTES as object arrays of bytes.
    """
    entry = {name: {"content": {"b64": _encoded(array)}, "shape": list(array.shape)} for name, array in tensors.items()}
    return json.dumps({"data": [entry]}) + "\n"


def _encoded(array: Array) -> str:
    raw = serialize_byte_tensor(array).item() if array.dtype.kind == "O" else np.ascontiguousarray(array).tobytes()
    return base64.b64encode(raw).decode()


def command_line(binary: Path, load: Load, data: Path, report: Path) -> tuple[str, ...]:
    """The command that makes the load.

    Args:
        binary: perf_analyzer.
        load: To make.
        data: File with `input_data`.
        report: CSV file that it will write.
    """
    interval_ms = max(_LEAST_INTERVAL_MS, round(load.duration_s * 1000 / (_WINDOWS * _WINDOW_INTERVALS)))
    arrivals: tuple[str, ...] = ("--concurrency-range", str(load.concurrency))
    windows: tuple[str, ...] = ("--measurement-interval", str(interval_ms))
    if load.rate_rps is not None:
        # Synchronous threads would hold requests back as soon as all of them wait for an answer.
        arrivals = ("--request-rate-range", f"{load.rate_rps:g}", "--request-distribution", "poisson", "--async")
        # A window of time in which no request ends, at a low rate or under overload, ends the run without a report.
        count = max(1, round(load.duration_s * load.rate_rps / _WINDOWS))
        windows = ("--measurement-mode", "count_windows", "--measurement-request-count", str(count))
    patience = ("--request-parameter", f"timeout:{_PATIENCE_US}:int") if load.protocol == "grpc" else ()
    # fmt: off
    return (
        str(binary), "-m", load.model, "-i", load.protocol, "-u", load.url, "--input-data", str(data), *arrivals,
        *windows, "--stability-percentage", str(_ANY_DEVIATION_PERCENT),
        "--max-trials", str(_WINDOWS), *patience, "-f", str(report),
    )
    # fmt: on


def read_report(report: str, told: str, where: str) -> Measured:
    """What perf_analyzer measured.

    Args:
        report: Text of its CSV file; empty where it wrote none.
        told: What it said.
        where: The graph's address, for messages.

    Raises:
        EmptyWindowError: It gave up since a window was too short, or the graph was swapped.
        ServerError: It gave up otherwise; the message is what it said.
    """
    row: dict[str, Any] = next(csv.DictReader(io.StringIO(report)), {})
    count = re.search(r"Request count: ([0-9]+)", told)
    try:
        latency_ms = {p: int(row[f"p{p} latency"]) / 1000 for p in PERCENTILES}
        return Measured(int(count[1]) if count is not None else 0, float(row["Inferences/Second"]), latency_ms)
    except (KeyError, ValueError) as error:
        raise _gave_up(told, where) from error


def _gave_up(told: str, where: str) -> ServerError:
    refusals = list(dict.fromkeys(re.findall(r"^Thread \[[0-9]+\] had error: (.+)$", told, re.MULTILINE)))
    hint = "see `jigsaw-triton status` and `jigsaw-triton logs`"
    if refusals:
        message = f"requests failed, and perf_analyzer stops at the first: {'; '.join(refusals)}"
        return ServerError(message, where=where, hint=hint)
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "nothing"
    if "failed to find the requested model version" in said or "No valid requests recorded" in said:
        hint = (
            "either the graph was swapped meanwhile (perf_analyzer follows the models that it was made of; see"
            " `jigsaw-triton events`), or no request came through in one of its windows: run it again, for a longer"
            " --duration"
        )
        return EmptyWindowError(f"perf_analyzer gave up; it said: {said}", where=where, hint=hint)
    return ServerError(f"perf_analyzer gave up; it said: {said}", where=where, hint=hint)
