"""Any graphs on real servers, compiled to each target: their answers are what their plain evaluation gives."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from jigsaw_triton.graph.model import Target, TaskGraph
from tests.compiler.test_targets import features, same
from tests.e2e.clients import PROTOCOLS, Client
from tests.e2e.system import System
from tests.fakes.any_graph import any_graph, evaluate, requests, write_application

pytestmark = pytest.mark.e2e

SERVED: dict[str, tuple[int, Target]] = {
    "rows": (108, "graph"),
    "rows-ensemble": (108, "ensemble"),
    "rows-bls": (108, "bls"),
    "counts-ensemble": (172, "ensemble"),
    "steps": (88, "auto"),
}
"""Name -> what the graph follows from, and how it is compiled."""

REQUESTS = 8


def graph(name: str) -> TaskGraph:
    seed, target = SERVED[name]
    return replace(any_graph(Random(seed), name=name), target=target)


@pytest.fixture(scope="module")
def served(shared: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    folder = tmp_path_factory.mktemp("apps")
    applications = [write_application(graph(name), folder / name) for name in SERVED]
    demand = ",".join(f"{name}=1" for name in SERVED)
    shared.deploy(*applications, "--gpus", "3xcpu", "--demand", demand)
    return shared


@pytest.fixture(params=PROTOCOLS)
def client(served: System, request: pytest.FixtureRequest) -> Iterator[Client]:
    with Client(served, request.param) as client:
        yield client


def test_there_is_everything_in_these_graphs() -> None:
    wanted = {"graph", "ensemble", "bls", "fan-out", "conditions", "rows of rows", "counts", "python steps"}
    assert {what for name in SERVED for what in features(graph(name))} == wanted


@pytest.mark.parametrize("name", SERVED)
def test_answers_are_what_the_graph_says(client: Client, name: str) -> None:
    of, rng = graph(name), Random(name)
    for _ in range(REQUESTS):
        (inputs,) = requests(rng, of, 1)
        wanted = tuple(rng.sample(list(of.outputs), rng.randint(1, len(of.outputs))))
        answer = client.ask(name, {key: array[None] for key, array in inputs.items()}, wanted)
        same(answer, [evaluate(of, inputs)], of, wanted)


@pytest.mark.parametrize("name", ["rows", "rows-bls", "steps"])
def test_batches_are_answered_where_their_items_are_alike(client: Client, name: str) -> None:
    of, rng = graph(name), Random(name)
    for _ in range(REQUESTS):
        (inputs,) = requests(rng, of, 1)
        batch = {key: np.stack([array, array]) for key, array in inputs.items()}
        answer = client.ask(name, batch, tuple(of.outputs))
        same(answer, [evaluate(of, inputs)] * 2, of, tuple(of.outputs))
