import base64
import json
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.load import (
    EmptyWindowError,
    Load,
    Measured,
    command_line,
    input_data,
    read_report,
    request_tensors,
)
from jigsaw_triton.graph.model import GraphInput, TaskGraph
from jigsaw_triton.graph.tensors import TensorType
from tests.fakes.graphs import VECTOR, graph, task

DATA, REPORT = Path("/data.json"), Path("/report.csv")

CSV = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency\n"
    "4,219.837,3033,8716,645,166,1547,66,0,12666,24515,30231,41035\n"
)
"""Report of perf_analyzer 2.60."""

OUTPUT = "Request concurrency: 4\n  Client: \n    Request count: 2970\n    Throughput: 219.837 infer/sec\n"

REFUSED = (
    " Successfully read data for 1 stream/streams with 1 step/steps.\n"
    "Request concurrency: 4\n"
    "Failed to maintain requested inference load. Worker thread(s) failed to generate concurrent requests.\n"
    "Thread [0] had error: queue is full\n\nThread [1] had error: queue is full\n\nThread [3] had error: other\n\n"
)


def flags(load: Load) -> list[str]:
    return list(command_line(Path("perf_analyzer"), load, DATA, REPORT))


def value(flag: str, arguments: list[str]) -> str:
    return arguments[arguments.index(flag) + 1]


def one_input(kind: TensorType, *, rows: float = 1.0, for_each: bool = False) -> TaskGraph:
    a = task("a", {"X": "inputs.X"}, for_each="inputs.X" if for_each else None)
    return graph([a], {"Y": "a.Y"}, inputs={"X": GraphInput(kind, rows)})


def test_a_closed_loop_sets_the_concurrency_of_perf_analyzer() -> None:
    arguments = flags(Load("traffic", "grpc", "host:8001", concurrency=4, duration_s=36))
    assert arguments[0] == "perf_analyzer"
    assert value("-m", arguments) == "traffic"
    assert value("-i", arguments) == "grpc"
    assert value("-u", arguments) == "host:8001"
    assert value("--input-data", arguments) == "/data.json"
    assert value("--concurrency-range", arguments) == "4"
    assert value("--measurement-interval", arguments) == "10000"
    assert value("-f", arguments) == "/report.csv"
    assert "--request-rate-range" not in arguments


def test_requests_have_a_long_timeout_over_grpc() -> None:
    assert value("--request-parameter", flags(Load("traffic", "grpc", "host:8001"))) == "timeout:600000000:int"
    assert "--request-parameter" not in flags(Load("traffic", "http", "host:8000"))


def test_a_request_rate_sets_poisson_arrivals_of_perf_analyzer() -> None:
    arguments = flags(Load("traffic", "http", "host:8000", rate_rps=2.5))
    assert value("--request-rate-range", arguments) == "2.5"
    assert value("--request-distribution", arguments) == "poisson"
    assert "--async" in arguments
    assert "--concurrency-range" not in arguments


def test_input_data_contains_the_bytes_of_the_tensors() -> None:
    tensors = {
        "X": np.arange(6, dtype=np.float32).reshape(2, 3),
        "S": np.array([b"ab", b"\xff"], np.object_),
    }
    (entry,) = json.loads(input_data(tensors))["data"]
    assert entry["X"]["shape"] == [2, 3]
    assert np.array_equal(np.frombuffer(base64.b64decode(entry["X"]["content"]["b64"]), np.float32), np.arange(6))
    assert entry["S"]["shape"] == [2]
    assert base64.b64decode(entry["S"]["content"]["b64"]) == b"\x02\0\0\0ab\x01\0\0\0\xff"


def test_input_data_may_contain_empty_strings_and_strided_arrays() -> None:
    tensors = {"S": np.array([b""], np.object_), "X": np.arange(8, dtype=np.uint8).reshape(2, 4)[:, ::2]}
    (entry,) = json.loads(input_data(tensors))["data"]
    assert base64.b64decode(entry["S"]["content"]["b64"]) == b"\0\0\0\0"
    assert base64.b64decode(entry["X"]["content"]["b64"]) == b"\0\x02\x04\x06"


def test_tensors_of_a_request_come_from_samples(tmp_path: Path) -> None:
    sample = np.full(16, 7, np.float32)
    np.save(tmp_path / "x.npy", sample)
    sampled = one_input(VECTOR)
    sampled = TaskGraph(
        sampled.name, sampled.slo, sampled.inputs, sampled.outputs, sampled.tasks, samples={"X": tmp_path / "x.npy"}
    )
    tensors, made_up = request_tensors(sampled)
    assert made_up == ()
    assert np.array_equal(tensors["X"], sample)


def test_made_up_tensors_are_the_same_in_each_call() -> None:
    tensors, made_up = request_tensors(one_input(TensorType("UINT8", (-1, 4))))
    again, _ = request_tensors(one_input(TensorType("UINT8", (-1, 4))))
    assert made_up == ("X",)
    assert tensors["X"].dtype == np.uint8
    assert tensors["X"].shape[1] == 4
    assert np.array_equal(tensors["X"], again["X"])


def test_made_up_tensors_have_the_expected_number_of_rows() -> None:
    tensors, _ = request_tensors(one_input(VECTOR.rows(), rows=4.6, for_each=True))
    assert tensors["X"].shape == (5, 16)


def test_a_report_is_parsed() -> None:
    measured = read_report(CSV, OUTPUT, "host:8000")
    assert measured == Measured(2970, 219.837, {50: 12.666, 90: 24.515, 95: 30.231, 99: 41.035})


def test_each_error_of_failed_requests_is_listed_once() -> None:
    with pytest.raises(ServerError) as error:
        read_report("", REFUSED, "host:8000")
    assert error.value.where == "host:8000"
    assert error.value.message == "requests failed, and perf_analyzer stops at the first error: queue is full; other"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("error: Failed to init manager inputs: unable to find float data in json\n\n\n", "failed: Failed to init"),
        ("", "failed: no output"),
    ],
)
def test_without_a_report_the_error_contains_the_last_line_of_output(output: str, message: str) -> None:
    with pytest.raises(ServerError, match=message):
        read_report("", output, "host:8000")


@pytest.mark.parametrize(
    "output",
    [
        "error: failed to find the requested model version\n",
        "Request concurrency: 1\nNo valid requests recorded within time interval. Please use a larger time window.\n\n",
    ],
)
def test_an_empty_window_suggests_a_longer_duration(output: str) -> None:
    with pytest.raises(EmptyWindowError) as error:
        read_report("", output, "host:8000")
    assert "--duration" in (error.value.hint or "")


def test_a_damaged_report_raises_an_error() -> None:
    with pytest.raises(ServerError, match="perf_analyzer failed"):
        read_report("Concurrency,Inferences/Second\n4,fast\n", OUTPUT, "host:8000")
