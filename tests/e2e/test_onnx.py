"""ONNX models that the compiled backend runs inside the worker's server."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from jigsaw_triton.servers.process import python_stubs
from tests.e2e.clients import PROTOCOLS, Client
from tests.e2e.system import System
from tests.fakes.onnx_files import Graph, Node, Tensor, endless, onnx_file
from tests.waiting import eventually

pytestmark = pytest.mark.e2e
pytest.importorskip("onnxruntime")

GPUS = ("--gpus", "2xcpu", "--demand", "loop=150")
ENDLESS = 1000
"""Number for which the model runs for days."""


def write(folder: Path) -> Path:
    """Writes an application of one ONNX model, which returns its input."""
    folder.mkdir(parents=True)
    variant = {"name": "only", "accuracy": 1.0, "template": "onnxruntime", "artifacts": {"model.onnx": "model.onnx"}}
    kind = {"dtype": "INT64", "shape": [1]}
    spec = {
        "slo": {"latency_ms": 5_000},
        "inputs": {"X": kind},
        "outputs": {"Y": "run.Y"},
        "tasks": {"run": {"inputs": {"X": "inputs.X"}, "outputs": {"Y": kind}, "variants": [variant]}},
    }
    document = {"apiVersion": "jigsaw-triton/v1", "kind": "TaskGraph", "metadata": {"name": "loop"}, "spec": spec}
    (folder / "graph.yaml").write_text(json.dumps(document))
    (folder / "model.onnx").write_bytes(endless())
    rows = [
        ProfileRow(ProfileKey("cpu", "run", "only", "1g", 1, batch), 10.0, 10.0, 10.0, 100.0, 60, "assumed")
        for batch in (1, 4)
    ]
    (folder / "profiles.csv").write_text(write_profiles(rows))
    return folder


@pytest.fixture(scope="module")
def served(shared: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    shared.deploy(write(tmp_path_factory.mktemp("apps") / "loop"), *GPUS)
    assert len(shared.status()["workers"]) == 2
    return shared


def ask(client: Client, *numbers: int) -> list[int]:
    given = np.array(numbers, np.int64).reshape(-1, 1)
    found: list[int] = client.ask("loop", {"X": given}, ("Y",))["Y"].ravel().tolist()
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [1, 3, 9])
def test_batches_of_any_size_are_answered(served: System, protocol: str, count: int) -> None:
    numbers = [1, *[0] * (count - 1)]
    with Client(served, protocol) as client:
        assert ask(client, *numbers) == numbers


def test_the_model_needs_no_process_of_its_own(served: System) -> None:
    servers = {worker["pid"] for worker in served.status()["workers"]}
    assert python_stubs(servers) == {}
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in servers]
    assert all("libonnxruntime.so" in text for text in maps)


def test_a_model_that_hangs_has_its_worker_replaced(served: System) -> None:
    before = {worker["name"]: worker["pid"] for worker in served.status()["workers"]}
    last = served.last_event()
    with Client(served, "grpc") as client:
        with pytest.raises(InferenceServerException, match=r"task run: worker .* did not answer a batch of .* within"):
            ask(client, ENDLESS)
        assert ask(client, 1) == [1]
        last = served.wait_event("condemned: worker ", after=last)
        served.wait_event("serves again", after=last)
        assert served.run("status", "--wait", "ready").code == 0
        assert ask(client, 2) == [2]
    after = {worker["name"]: worker["pid"] for worker in served.status()["workers"]}
    assert after.keys() == before.keys()
    assert after != before


def test_a_server_that_crashes_is_replaced(served: System) -> None:
    def crash() -> tuple[str, int] | None:
        worker, last = served.status()["workers"][0], served.last_event()
        try:
            os.kill(worker["pid"], signal.SIGSEGV)
        except ProcessLookupError:
            # The worker hung in the test before this one, and is being replaced.
            return None
        return worker["name"], last

    name, last = eventually(crash)
    served.wait_event(f"{name} serves again", after=last)
    with Client(served, "http") as client:
        assert ask(client, 1) == [1]


def test_a_model_that_cannot_be_loaded_is_refused_and_the_running_one_goes_on(served: System, tmp_path: Path) -> None:
    folder = write(tmp_path / "loop")
    tensor = Tensor("INT64", ("batch", 1))
    (folder / "model.onnx").write_bytes(onnx_file(Graph([Node("Magic", ["X"], ["Y"])], {"X": tensor}, {"Y": tensor})))
    result = served.run("deploy", folder, *GPUS, *served.ports, "--detach")
    assert result.code == 1
    error = next(line for line in result.err.splitlines() if line.startswith("error:"))
    assert "loop.run.only" in error
    assert "Magic" in error
    assert "the previous generation still serves" in result.err
    with Client(served, "grpc") as client:
        assert ask(client, 1) == [1]
