"""Random graphs on real servers, compiled to each target, against a direct evaluation of the graphs."""

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
"""Seed and target of each graph, by name."""

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


def test_the_graphs_cover_all_features() -> None:
    wanted = {"graph", "ensemble", "bls", "fan-out", "conditions", "rows of rows", "counts", "python steps"}
    assert {feature for name in SERVED for feature in features(graph(name))} == wanted


@pytest.mark.parametrize("name", SERVED)
def test_answers_match_the_evaluation(client: Client, name: str) -> None:
    of, rng = graph(name), Random(name)
    for _ in range(REQUESTS):
        (inputs,) = requests(rng, of, 1)
        wanted = tuple(rng.sample(list(of.outputs), rng.randint(1, len(of.outputs))))
        answer = client.ask(name, {key: array[None] for key, array in inputs.items()}, wanted)
        same(answer, [evaluate(of, inputs)], of, wanted)


@pytest.mark.parametrize("name", ["rows", "rows-bls", "steps"])
def test_batches_of_equal_shapes_are_answered(client: Client, name: str) -> None:
    of, rng = graph(name), Random(name)
    for _ in range(REQUESTS):
        (inputs,) = requests(rng, of, 1)
        batch = {key: np.stack([array, array]) for key, array in inputs.items()}
        answer = client.ask(name, batch, tuple(of.outputs))
        same(answer, [evaluate(of, inputs)] * 2, of, tuple(of.outputs))
