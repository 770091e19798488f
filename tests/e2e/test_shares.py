"""Mean accuracy: the variants of a task serve the shares of the plan."""

import json
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as http

from tests.e2e.system import System

pytestmark = pytest.mark.e2e

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {name: mixed}
spec:
  slo: {latency_ms: 400, accuracy: 0.9, accuracy_mode: mean}
  inputs: {X: {dtype: FP32, shape: [4]}}
  outputs: {Y: only.Y}
  tasks:
    only:
      inputs: {X: inputs.X}
      outputs: {Y: {dtype: FP32, shape: [4]}}
      variants:
        - {name: good, accuracy: 1.0, template: python, artifacts: {model.py: good.py}}
        - {name: poor, accuracy: 0.8, template: python, artifacts: {model.py: poor.py}}
"""

MODEL = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {{"Y": inputs["X"] * 0 + {value}}}
"""

PROFILES = """\
gpu,task,variant,slice,instances,batch,latency_p50_ms,latency_p95_ms,latency_p99_ms,throughput_rps,memory_mib,source
cpu,only,good,1g,1,1,50,50,50,20,100,assumed
cpu,only,poor,1g,1,1,10,10,10,100,100,assumed
"""
"""Profiles for which, at 2 x p95, 60 requests/s need three slices with both variants and four with the good one."""

REQUESTS = 400


def write(folder: Path) -> Path:
    """Writes an application whose answer identifies the variant: 1 for the good one, 0 for the other."""
    folder.mkdir()
    (folder / "graph.yaml").write_text(GRAPH)
    for value, name in enumerate(("poor", "good")):
        (folder / f"{name}.py").write_text(MODEL.format(value=value))
    (folder / "profiles.csv").write_text(PROFILES)
    return folder


def test_shares_keep_a_mean_accuracy(system: System, tmp_path: Path) -> None:
    app = write(tmp_path / "mixed")
    asked = (app, "--gpus", "4xcpu", "--demand", "60", "--latency-model", "2p95")
    plan = system.run("plan", *asked, "-o", "json").json
    shares: dict[str, float] = {}
    for segment in plan["graphs"]["mixed"]["tasks"]["only"]["segments"]:
        shares[segment["variant"]] = shares.get(segment["variant"], 0.0) + segment["share"]
    assert set(shares) == {"good", "poor"}, json.dumps(plan)
    assert 0.8 * shares["poor"] + shares["good"] >= 0.9 - 1e-6

    system.deploy(*asked)
    client = http.InferenceServerClient(f"127.0.0.1:{system.http}")
    tensor = http.InferInput("X", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    good = sum(int(client.infer("mixed", [tensor]).as_numpy("Y")[0, 0]) for _ in range(REQUESTS))
    client.close()
    assert abs(good - shares["good"] * REQUESTS) <= 2
