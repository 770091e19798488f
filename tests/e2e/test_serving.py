"""A graph from the clients' view, compiled to each target."""

from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.e2e.app import write_application
from tests.e2e.clients import PROTOCOLS, Array, Client, Crowd, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

TARGETS = {"words": "graph", "words-ensemble": "ensemble", "words-bls": "bls"}
"""Name and target of three copies of one graph: as one front, as a native ensemble and as a BLS pipeline."""

MODELS = tuple(TARGETS)


@pytest.fixture(scope="module")
def served(shared: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    folder = tmp_path_factory.mktemp("apps")
    apps = [write_application(folder / name, name=name, target=target, square_ms=2) for name, target in TARGETS.items()]
    status = shared.deploy(*apps, "--gpus", "2xcpu", "--demand", ",".join(f"{name}=5" for name in MODELS))
    assert {name: graph["target"] for name, graph in status["graphs"].items()} == TARGETS
    return shared


@pytest.fixture(params=PROTOCOLS)
def client(served: System, request: pytest.FixtureRequest) -> Iterator[Client]:
    with Client(served, request.param) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("numbers", [[], [7], [3, -4, 5], list(range(100, 140))], ids=len)
def test_answers_are_exact_for_any_number_of_rows(client: Client, model: str, numbers: list[int]) -> None:
    assert client.squares(numbers, model) == expected(numbers)


@pytest.mark.parametrize("model", MODELS)
def test_a_request_may_ask_for_some_of_the_outputs(client: Client, model: str) -> None:
    numbers = np.array([[2, 3]], np.int64)
    assert client.ask(model, {"NUMBERS": numbers}, ("TOTAL",))["TOTAL"].tolist() == [[13]]


@pytest.mark.parametrize("model", MODELS)
def test_concurrent_clients_receive_their_own_answers(served: System, model: str) -> None:
    with Crowd(served, 16, pause_s=0.0, model=model) as crowd:
        crowd.wait_answers(400)
    crowd.assert_none_failed()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"NUMBER": np.zeros((1, 2), np.int64)}, "unexpected inference input 'NUMBER' for model"),
        ({"NUMBERS": np.zeros((1, 2), np.float32)}, "data-type is 'FP32', but model '.*' expects 'INT64'"),
        ({"NUMBERS": np.zeros((1, 2, 2), np.int64)}, "unexpected shape for input 'NUMBERS'"),
        ({}, "expected 1 inputs but got 0"),
    ],
    ids=["name", "dtype", "shape", "missing"],
)
def test_wrong_input_fails_with_tritons_own_error_and_affects_no_other_request(
    client: Client, model: str, inputs: dict[str, Array], message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message):
        client.ask(model, inputs, ())
    assert client.squares([1, 2, 3], model) == expected([1, 2, 3])


@pytest.mark.parametrize("model", ["words", "words-bls"])
def test_fronts_and_pipelines_accept_batches_of_items_with_rows(client: Client, model: str) -> None:
    numbers = np.arange(10).reshape(5, 2)
    answer = client.ask(model, {"NUMBERS": numbers}, ("SQUARES", "TOTAL"))
    assert answer["SQUARES"].tolist() == (numbers**2)[..., None].tolist()
    assert answer["TOTAL"].tolist() == (numbers**2).sum(axis=1, keepdims=True).tolist()


def test_an_ensemble_refuses_batches_of_items_with_rows(client: Client) -> None:
    with pytest.raises(InferenceServerException, match="batch-size must be <= 1"):
        client.ask("words-ensemble", {"NUMBERS": np.zeros((5, 2), np.int64)}, ("TOTAL",))


def test_an_unknown_model_fails_with_tritons_own_error(client: Client) -> None:
    with pytest.raises(InferenceServerException, match="unknown model: 'nobody'"):
        client.squares([1], "nobody")


@pytest.mark.parametrize("model", MODELS)
def test_metadata_and_config_describe_the_graph(served: System, model: str) -> None:
    with Client(served, "http") as client:
        metadata = client.triton.get_model_metadata(model)
        config = client.triton.get_model_config(model)
    assert metadata["name"] == model
    assert metadata["inputs"] == [{"name": "NUMBERS", "datatype": "INT64", "shape": [-1, -1]}]
    assert sorted(metadata["outputs"], key=lambda o: o["name"]) == [
        {"name": "SQUARES", "datatype": "INT64", "shape": [-1, -1, 1]},
        {"name": "TOTAL", "datatype": "INT64", "shape": [-1, 1]},
    ]
    assert config["name"] == model
    assert config["max_batch_size"] == {"words": 64, "words-ensemble": 1, "words-bls": 64}[model]


@pytest.mark.parametrize("model", MODELS)
def test_the_gateways_metrics_count_requests_rows_and_batches(served: System, client: Client, model: str) -> None:
    split, square, total = ({"graph": model, "task": task} for task in ("split", "square", "total"))
    before = served.metric("jigsaw_yield_rows_total", **split)
    client.squares([1, 2, 3], model)
    client.squares([], model)
    served.wait_alike(
        ("jigsaw_arrivals_total", {"graph": model}),
        *(("jigsaw_requests_total", task) for task in (split, total)),
        ("jigsaw_yield_items_total", split | {"variant": "plain", "output": "ROWS"}),
    )
    # Requests without rows never reach the queue of a for_each task.
    served.wait_alike(
        ("jigsaw_requests_total", square),
        ("jigsaw_dispatch_seconds_count", square),
        ("jigsaw_wait_seconds_bucket", square | {"le": "+Inf"}),
    )
    # Only a graph that is one front has a place that sees the whole request.
    arrived = served.metric("jigsaw_arrivals_total", graph=model)
    assert served.metric("jigsaw_slo_total", graph=model, outcome="failed") == 0
    assert served.metric("jigsaw_slo_total", graph=model) == (arrived if TARGETS[model] == "graph" else 0)
    rows = served.wait_alike(
        ("jigsaw_yield_rows_total", split | {"variant": "plain", "output": "ROWS"}),
        ("jigsaw_batch_items_sum", square | {"variant": "slow"}),
    )
    assert rows >= before + 3
    assert served.metric("jigsaw_refused_total", graph=model) == 0
    assert served.metric("jigsaw_batches_lost_total", graph=model) == 0


def test_the_gateways_repository_protocol_needs_the_secret(served: System) -> None:
    with Client(served, "http") as over_http, pytest.raises(InferenceServerException, match="403"):
        over_http.triton.unload_model("words")
    with Client(served, "grpc") as over_grpc, pytest.raises(InferenceServerException, match="protocol is restricted"):
        over_grpc.triton.unload_model("words")


def test_status_events_and_logs_describe_the_deployment(served: System) -> None:
    status = served.run("status", "-o", "json").json
    # Bursts of other tests may be a reason to plan again, while the graphs are served.
    assert status["state"] in ("ready", "solving")
    assert not status["degraded"]
    assert any("only in a state file" in sentence for sentence in status["emulated"])
    tasks = {(m["graph"], m["task"]) for worker in status["workers"] for m in worker["models"]}
    assert tasks == {(graph, task) for graph in MODELS for task in ("split", "square", "total")}
    table = served.run("status")
    assert table.code == 0
    assert all(worker["name"] in table.out for worker in status["workers"])
    events = served.run("events")
    assert "the new generation serves" in events.out
    logs = served.run("logs", "gateway", "-n", "1000")
    assert "Started HTTPService" in logs.out
    assert "secret" not in logs.out.lower()


def test_status_wait_returns_when_the_deployment_is_ready(served: System) -> None:
    assert served.run("status", "--wait", "ready", "--timeout", "30").code == 0
