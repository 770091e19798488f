"""Traces of single requests through a deployment."""

import numpy as np
import pytest

from tests.e2e.app import write_application
from tests.e2e.clients import PROTOCOLS, Client
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

TARGETS = {"words": "graph", "words-ensemble": "ensemble", "words-bls": "bls"}


@pytest.fixture(scope="module")
def served(shared: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    folder = tmp_path_factory.mktemp("apps")
    apps = [write_application(folder / name, name=name, target=target, square_ms=2) for name, target in TARGETS.items()]
    shared.deploy(*apps, "--gpus", "2xcpu", "--demand", ",".join(f"{name}=5" for name in TARGETS))
    return shared


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", TARGETS)
def test_a_request_with_an_id_leaves_a_trace_at_every_hop(served: System, model: str, protocol: str) -> None:
    request = f"{model}, {protocol}"
    with Client(served, protocol) as client:
        client.ask(model, {"NUMBERS": np.array([[2, 3]], np.int64)}, ("TOTAL",), request_id=request)
        client.squares([1], model)
    result = served.run("trace", model, "--request", request, "-o", "json")
    assert result.code == 0, result.err
    trace = result.json
    assert (trace["request"], trace["outcome"]) == (request, "answered")
    assert [hop["task"] for hop in trace["hops"]] == ["split", "square", "total"]
    for hop in trace["hops"]:
        (call,) = hop["calls"]
        (run,) = call["runs"]
        assert hop["arrived_ms"] <= hop["taken_ms"] <= call["sent_ms"] <= call["ended_ms"] <= hop["returned_ms"]
        assert call["sent_ms"] - 2 <= run["began_ms"] <= run["began_ms"] + run["took_ms"] <= call["ended_ms"] + 2
    assert trace["hops"][1]["calls"][0]["items"] == 2
    assert [hop["calls"][0]["variant"] for hop in trace["hops"]] == ["plain", "slow", "plain"]
    assert request in served.run("trace", model).out


def test_requests_without_an_id_leave_no_trace(served: System) -> None:
    before = served.run("trace", "words", "-o", "json").json["traces"]
    with Client(served, "http") as client:
        client.squares([1, 2])
    assert served.run("trace", "words", "-o", "json").json["traces"] == before
