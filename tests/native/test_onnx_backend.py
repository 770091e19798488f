"""ONNX models in a fake server that has loaded the compiled backend."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.runtime.spec import RunnerSpec, to_json
from jigsaw_triton.runtime.trace import run_from_json
from tests.fakes.onnx_files import Graph, Node, Tensor, onnx_file
from tests.native import triton
from tests.native.conftest import column
from tests.native.onnx import PACKAGES, runner, tensor
from tests.native.test_answer_gate import MESSAGE, fill, pair
from tests.native.triton import Model, ServerError
from tests.waiting import eventually

__all__ = ["pair"]

pytest.importorskip("onnxruntime")

SPEC = runner({"X": tensor("INT64", 1)}, {"Y": tensor("INT64", 1), "SAME": tensor("INT64", 1)})


def gather() -> bytes:
    """A model that returns 10 + X as Y for an X of 0 or 1 and fails for others, and passes X through as SAME."""
    whole = Tensor("INT64", ("batch", 1))
    nodes = [Node("Gather", ["table", "X"], ["Y"]), Node("Identity", ["X"], ["SAME"])]
    return onnx_file(Graph(nodes, {"X": whole}, {"Y": whole, "SAME": whole}, {"table": [10, 11]}))


class Server:
    """A started server with models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: list[Model] = []

    def load(self, spec: RunnerSpec = SPEC, *, kind: str = "KIND_CPU", content: bytes | None = None) -> Model:
        """Loads the model `a.t.v.g1` of worker `w`."""
        folder = self.folder / "w" / "a.t.v.g1"
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "1" / "model.onnx").write_bytes(gather() if content is None else content)
        config = {
            "name": "a.t.v.g1",
            "backend": "jigsaw",
            "instance_group": [{"name": "instance", "count": 2, "kind": kind}],
            "parameters": {"spec": {"string_value": to_json(spec)}},
        }
        self.models.append(Model(config, folder))
        return self.models[-1]


@pytest.fixture
def server(tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("JIGSAW_RUN_DIR", str(run_dir))
    monkeypatch.setenv("JIGSAW_PACKAGES", PACKAGES)
    triton.start()
    server = Server(tmp_path)
    yield server
    triton.fail("")
    for model in server.models:
        model.unload()
    eventually(lambda: not triton.leaks())


def request(*values: int, **more: Any) -> dict[str, Any]:
    return {"inputs": {"X": column(*values)}, "outputs": ["Y"], **more}


def test_requests_are_answered_together(server: Server) -> None:
    model = server.load()
    found = [sent.wait() for sent in model.execute(*(request(1, 0) for _ in range(3)))]
    assert [answer["Y"].tolist() for answer in found] == [[[11], [10]]] * 3
    assert model.statistics == (3, 0, 1, 6)


def test_only_requested_outputs_are_returned(server: Server) -> None:
    model = server.load()
    assert model.ask(**request(1)).outputs.keys() == {"Y"}
    assert model.ask({"X": column(1)}, outputs=["SAME", "Y"]).outputs.keys() == {"SAME", "Y"}


@pytest.mark.parametrize("buffers", [0, 1, 2, 5])
def test_an_input_may_consist_of_several_buffers(server: Server, buffers: int) -> None:
    given = column(*([1, 0, 1] if buffers else []))
    assert server.load().ask({"X": given}, outputs=["SAME"], buffers=buffers)["SAME"].tolist() == given.tolist()


def test_a_request_that_fails_gets_the_error_and_the_model_goes_on(server: Server) -> None:
    model = server.load()
    bad = model.ask(**request(7))
    assert bad.code == "INTERNAL"
    assert "out of data bounds" in bad.message
    assert model.ask(**request(1))["Y"].item() == 11
    assert model.statistics == (1, 1, 1, 1)


def test_an_invalid_request_is_its_own_fault(server: Server) -> None:
    model = server.load()
    answer = model.ask(**request(1, input_on_gpu=1))
    assert (answer.code, answer.message) == (
        "INVALID_ARG",
        "input X is in GPU memory, which this backend cannot read; send it in host memory",
    )
    missing = model.ask({"Z": column(1)}, outputs=["Y"])
    assert (missing.code, missing.message) == ("INVALID_ARG", "the request has no input X")


def test_a_cancelled_request_is_not_run(server: Server) -> None:
    model = server.load()
    answer = model.ask(**request(7, cancelled=1))
    assert answer.code == "CANCELLED"
    assert model.statistics == (0, 1, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("value", [1, 7], ids=["answers", "failures"])
def test_answers_wait_until_the_http_frontend_has_space(
    server: Server, pair: tuple[socket.socket, socket.socket], value: int
) -> None:
    model = server.load()
    writer, reader = pair
    count = fill(writer)
    requests = model.execute(*(request(value) for _ in range(2000)))
    assert len([sent for sent in requests if not sent.answered(0.0005)]) > 1000
    for _ in range(count):
        assert reader.recv(len(MESSAGE)) == MESSAGE
    codes = {sent.wait().code for sent in requests}
    assert codes == {None if value == 1 else "INTERNAL"}


@pytest.mark.parametrize("function", ["ResponseNew", "ResponseOutput", "OutputBuffer", "ResponseSend", "RequestInput"])
def test_a_server_that_fails_breaks_nothing(server: Server, function: str) -> None:
    model = server.load()
    triton.fail(function)
    (sent,) = model.execute(request(1))
    triton.fail("")
    if function != "ResponseNew":
        code = sent.wait().code
        assert (code is None) == (function == "ResponseSend")
    assert model.ask(**request(1))["Y"].item() == 11


def test_runs_of_traced_requests_are_recorded(server: Server, run_dir: Path) -> None:
    model = server.load()
    (first,) = model.execute(request(1, 0, id="a,b#17"))
    first.wait()
    model.ask(**request(1, id="#18"))
    model.ask(**request(1, id="of a client"))
    (line,) = (run_dir / "traces" / "workers" / "w" / "instance_0.jsonl").read_text().splitlines()
    run = run_from_json(line)
    assert (run.ids, run.tokens, run.worker, run.model, run.items) == (("a", "b"), (17,), "w", "a.t.v.g1", 2)
    assert run.took_ms > 0


def test_no_run_is_recorded_without_a_run_directory(server: Server, run_dir: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("JIGSAW_RUN_DIR")
    server.load().ask(**request(1, id="a#1"))
    assert not (run_dir / "traces").exists()


def test_the_error_names_the_model(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match=r"^model a\.t\.v\.g1: ONNX Runtime [\d.]+ cannot load .*/1/model\.onnx: "):
        server.load(content=b"no model")
    monkeypatch.setenv("JIGSAW_PACKAGES", "/nowhere")
    with pytest.raises(ServerError, match=r"^model a\.t\.v\.g1: ONNX Runtime was not found in /nowhere; install"):
        server.load()


def test_a_library_without_gpu_support_runs_on_the_cpu_and_says_so(server: Server) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime supports GPUs")
    assert server.load(kind="KIND_GPU").ask(**request(1))["Y"].item() == 11
    (line,) = triton.state()["logs"]
    assert line.startswith("warning: a.t.v.g1 runs on the CPU, because ONNX Runtime ")
    assert line.endswith(" does not support GPUs; install onnxruntime-gpu in place of onnxruntime")


def test_an_unknown_runner_is_no_onnx_model(server: Server) -> None:
    with pytest.raises(ServerError, match="cannot run the template torch"):
        server.load(RunnerSpec("torch", SPEC.inputs, SPEC.outputs))


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_instances_share_one_thread_pool_which_ends_with_the_model(server: Server) -> None:
    server.load().unload()  # The library itself may keep threads.
    before = threads()
    model = server.load(replace(SPEC, threads=3))
    # Each of the two instances computes with three threads, one of which belongs to the server.
    assert threads() == before + 4
    assert model.ask(**request(1))["Y"].item() == 11
    model.unload()
    assert threads() == before


def test_a_model_is_loaded_again_after_it_was_unloaded(server: Server) -> None:
    server.load().unload()
    model = server.load()
    given = np.array([[0], [1]], np.int64)
    assert model.ask({"X": given}, outputs=["Y"])["Y"].tolist() == [[10], [11]]
    assert model.statistics == (1, 0, 1, 2)
