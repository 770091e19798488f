"""Rehearsals, up to the moment at which a server would start."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jigsaw_triton.api import rehearsing
from jigsaw_triton.api.rehearsing import rehearse
from jigsaw_triton.api.request import Request
from jigsaw_triton.evaluation.traces import Trace
from jigsaw_triton.planner.domain.problem import Options

TRACE = Trace(1.0, np.full(8, 20.0))


class StartedError(Exception):
    """A deployment would start now."""


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Replaces deployments by an error. Returns their requests."""
    requests = []

    def fake(request: Request, *_: Any) -> None:
        requests.append(request)
        raise StartedError

    monkeypatch.setattr(rehearsing, "_deployed", fake)
    return requests


def test_emulated_models_are_deployed_for_the_simulations_demand(app: Path, deployed: list[Request]) -> None:
    (app / "models" / "average.py").unlink()
    with pytest.raises(StartedError):
        rehearse(str(app), TRACE, gpus="2xcpu")
    wanted = deployed[0].read()
    assert {v.template for v in wanted.graphs["hello"].tasks["average"].variants} == {"emulated"}
    assert wanted.cluster.driver == "emulated"
    assert wanted.demand_rps["hello"] == pytest.approx(1.25 * 20, rel=0.3)
    assert not wanted.deterministic
    assert len({wanted.cluster.gateway.http, wanted.cluster.gateway.grpc, wanted.cluster.gateway.metrics}) == 3


def test_the_options_of_the_planner_are_those_of_the_simulation(app: Path, deployed: list[Request]) -> None:
    given = (
        Options(share=True),
        Options(change_price=0.5, objective="accuracy"),
        Options(features="AS", formulation="paper", latency_model="2p95"),
    )
    for options in given:
        with pytest.raises(StartedError):
            rehearse(str(app), TRACE, gpus="2xcpu", options=options)
        assert deployed[-1].read().options == options


def test_conditions_are_warned_of(app: Path, deployed: list[Request], caplog: pytest.LogCaptureFixture) -> None:
    graph = yaml.safe_load((app / "graph.yaml").read_text())
    tasks = graph["spec"]["tasks"]
    tasks["again"] = {
        **tasks["average"],
        "when": {"tensor": "average.MEAN", "above": 0.5, "probability": 0.5},
    }
    graph["spec"]["outputs"]["AGAIN"] = "again.MEAN"
    (app / "graph.yaml").write_text(json.dumps(graph))
    profiles = (app / "profiles.csv").read_text()
    rows = [line.replace(",average,", ",again,") for line in profiles.splitlines()[1:]]
    (app / "profiles.csv").write_text(profiles + "\n".join(rows) + "\n")
    with pytest.raises(StartedError):
        rehearse(str(app), TRACE, gpus="2xcpu")
    assert "hello has conditions, but emulated models return zeros" in caplog.text
