"""A chain of tasks that share a slice takes one call."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {{name: {name}}}
spec:
  target: {target}
  slo: {{latency_ms: 2000, percentile: 99}}
  inputs:
    NUMBERS: {{dtype: INT64, shape: [-1]}}
  outputs:
    SQUARES: square.SQUARES
    TOTAL: total.TOTAL
  tasks:
    square:
      inputs: {{NUMBERS: inputs.NUMBERS}}
      outputs:
        SQUARES: {{dtype: INT64, shape: [-1, 1]}}
      variants:
        - {{name: plain, accuracy: 1.0, template: python, artifacts: {{model.py: square.py}}}}
    total:
      inputs: {{SQUARES: square.SQUARES, OF: inputs.NUMBERS}}
      outputs:
        TOTAL: {{dtype: INT64, shape: [1]}}
      variants:
        - {{name: plain, accuracy: 1.0, template: python, artifacts: {{model.py: total.py}}}}
"""
"""Chain whose clients also receive the tensor between its tasks."""

MODEL = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {made}
"""
SQUARE = '{"SQUARES": inputs["NUMBERS"][..., None] ** 2}'
TOTAL = '{"TOTAL": inputs["SQUARES"].sum(axis=1)}'

Slices = Mapping[str, str]

TOGETHER = {"square": "1g", "total": "1g"}
APART = {"square": "4g", "total": "3g"}
"""Slices that need a whole GPU, so that the workers there must make room."""


def write(folder: Path, name: str, target: str, slices: Slices = TOGETHER) -> Path:
    """Writes the application, with profiles of each task on one slice."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.yaml").write_text(GRAPH.format(name=name, target=target))
    for task, made in (("square", SQUARE), ("total", TOTAL)):
        (folder / f"{task}.py").write_text(MODEL.format(made=made))
    rows = [
        ProfileRow(ProfileKey("cpu", task, "plain", kind, 1, batch), 2.0, 2.0, 2.0, batch * 500.0, 60, "assumed")
        for task, kind in slices.items()
        for batch in (1, 4)
    ]
    (folder / "profiles.csv").write_text(write_profiles(rows))
    return folder


def tasks(status: dict[str, Any]) -> list[list[str]]:
    """Returns the tasks of each worker's models."""
    return sorted(sorted(model["task"] for model in worker["models"]) for worker in status["workers"])


def test_a_chain_takes_one_call_and_no_request_is_lost_when_it_is_split_and_joined(
    system: System, tmp_path: Path
) -> None:
    targets = {"steps": "graph", "steps-ensemble": "ensemble", "steps-bls": "bls"}

    demand = ",".join(f"{name}=3" for name in targets)

    def deploy(slices: Slices, *more: str) -> list[list[str]]:
        apps = [write(tmp_path / name, name, target, slices) for name, target in targets.items()]
        return tasks(system.deploy(*apps, "--gpus", "3xcpu", "--demand", demand, *more))

    whole = [sorted(["square", "square~total", "total"] * len(targets))]
    assert deploy(TOGETHER, "--share") == whole
    for name in targets:
        with Client(system, "grpc") as client:
            assert client.squares([2, 3, 5], name) == expected([2, 3, 5])
            # If a request asks for some outputs, Triton may skip steps of an ensemble that are needed.
            for output, answer in (("SQUARES", [[[4], [9]]]), ("TOTAL", [[13]])):
                assert client.some(name, {"NUMBERS": np.array([[2, 3]], np.int64)}, output).tolist() == answer
            client.ask(name, {"NUMBERS": np.array([[2, 3]], np.int64)}, ("TOTAL",), request_id=name)
        (hop,) = system.run("trace", name, "--request", name, "-o", "json").json["hops"]
        assert hop["task"] == "square~total"
        runs = [run["model"] for run in hop["calls"][0]["runs"]]
        assert runs == [f"{name}.square.plain.g1", f"{name}.total.plain.g1"]
    with ExitStack() as stack:
        crowds = [stack.enter_context(Crowd(system, 2, pause_s=0.4, model=name)) for name in targets]
        assert deploy(APART) == sorted([["square"], ["total"]] * len(targets))
        assert any("switch the fronts to calling these tasks one by one" in event for event in system.events())
        for crowd in crowds:
            crowd.wait_answers(8)
        assert deploy(TOGETHER, "--share") == whole
        for crowd in crowds:
            crowd.wait_answers(8)
    for crowd in crowds:
        crowd.assert_none_failed()
