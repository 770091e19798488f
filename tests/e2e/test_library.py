"""A deployment from Python: a graph without files, served, updated and taken down."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import jigsaw_triton as jt
from jigsaw_triton.cli.commands.init import SKELETON
from tests.e2e.clients import Client
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

VALUES = jt.TensorType("FP32", (16,))
MEAN = jt.TensorType("FP32", (1,))


def mean_graph(folder: Path) -> jt.TaskGraph:
    shutil.copy(SKELETON / "models" / "average.py", folder)
    return (
        jt.GraphBuilder("mean", latency_ms=500, folder=folder)
        .input("VALUES", VALUES)
        .task("average", inputs={"VALUES": "inputs.VALUES"}, outputs={"MEAN": MEAN})
        .variant("exact", accuracy=1.0, template="python", artifacts={"model.py": "average.py"})
        .output("MEAN", "average.MEAN")
        .build(require_files=True)
    )


def mean_profiles() -> jt.ProfileTable:
    return (
        jt.ProfileBuilder("cpu")
        .row("average", "exact", "1g", batch=8, latency_ms=(4, 6, 8), throughput_rps=1600, memory_mib=200)
        .build()
    )


def mean_of(system: System, values: NDArray[np.float32]) -> float:
    with Client(system, "grpc") as client:
        return float(client.ask("mean", {"VALUES": values}, ("MEAN",))["MEAN"][0, 0])


def test_a_graph_that_was_built_in_python_is_deployed_updated_and_taken_down(system: System, tmp_path: Path) -> None:
    graph, values = mean_graph(tmp_path), np.arange(16, dtype=np.float32)[None]
    with jt.deploy(
        graph,
        demand=20,
        gpus="2xcpu",
        profiles=mean_profiles(),
        http=system.http,
        grpc=system.grpc,
        metrics=system.metrics,
        state=system.state,
    ) as deployment:
        assert deployment.status()["graphs"]["mean"]["demand_rps"] == 20
        assert mean_of(system, values) == 7.5
        deployment.update(demand=50)
        status = asyncio.run(jt.AsyncDeployment(system.state).status())
        assert status["graphs"]["mean"]["demand_rps"] == 50
        assert deployment.plan().graphs["mean"].demand_rps == 50
        assert mean_of(system, values) == 7.5
        with pytest.raises(jt.InfeasibleError):
            deployment.update(demand=1e6)
        assert deployment.find_status() is not None
    assert deployment.find_status() is None
    assert [event.kind for event in deployment.events()][-1] == "stopped"
    assert system.orphans() == []
    with pytest.raises(jt.StateError, match="nothing is deployed here"):
        deployment.down()
