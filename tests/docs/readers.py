"""Preparations for pages: the applications, models and GPUs that readers have, and stand-ins for servers.

Each function prepares the current folder, and returns a context in which the commands of a page run.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.agent import process
from jigsaw_triton.api import variants
from jigsaw_triton.api.fronts import FrontFile
from jigsaw_triton.cli.commands import cells, console, deploy, profile_gpu
from jigsaw_triton.evaluation.accuracy.estimate import Estimate
from jigsaw_triton.evaluation.accuracy.results import Result
from jigsaw_triton.evaluation.profiling.load import Pace
from jigsaw_triton.evaluation.profiling.measure import Measurement, Profiler
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.models import describing, running
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from jigsaw_triton.servers import installation
from tests.api.test_accuracies import labelled as labelled_application
from tests.cli.commands.test_profiles_import import PERF
from tests.docs.making import Making
from tests.docs.pages import blocks
from tests.e2e.app import write_application
from tests.fakes.controller import FakeController
from tests.fakes.documents import edited
from tests.fakes.model_process import KeptProcess
from tests.fakes.nvml.machine import Machine
from tests.fakes.onnx_networks import perceptron
from tests.front.fronts import FRONT
from tests.waiting import WAIT_LIMIT_S

URL = "http://127.0.0.1:8080/login?token=x"


@contextmanager
def nothing(_: Path, __: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing: the page needs only the application."""
    yield


@contextmanager
def new_gpu(folder: Path, _: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU whose MIG mode is off."""
    machine = Machine(folder / "gpus", ["H100-80GB"], mig=False)
    machine.enter()
    try:
        yield
    finally:
        machine.leave()


@contextmanager
def controller(_: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers that start and end at once: controllers, agents, fronts and consoles."""
    fake = FakeController().install(monkeypatch)
    fake.nodes = ["a", "b"]
    monkeypatch.setattr(deploy, "status_view", lambda *_: ["the status"])
    monkeypatch.setattr(cells, "cells_view", lambda _: ["the status"])
    monkeypatch.setattr(deploy, "check_console", lambda *_: None)
    monkeypatch.setattr(deploy, "start_console", lambda *_: URL)
    monkeypatch.setattr(console, "running_console", lambda _: None)
    monkeypatch.setattr(console, "run_console", lambda _, settings, __: settings.checked())
    monkeypatch.setattr(installation, "find_installation", lambda: None)
    monkeypatch.setattr(process, "run_agent", lambda *_: None)
    monkeypatch.setattr(FrontFile, "run", FrontFile.read)
    yield


@contextmanager
def machines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers like `controller`, and profiles of the application on GPUs."""
    file = Path("app/profiles.csv")
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *rows, *map(_of_a100, rows), ""]))
    with controller(folder, monkeypatch):
        yield


@contextmanager
def front(_: Path, __: pytest.MonkeyPatch) -> Iterator[None]:
    """The file of a front."""
    Path("cells").mkdir()
    Path("cells/front.yaml").write_text(FRONT)
    yield


@contextmanager
def profiled(_: Path, __: pytest.MonkeyPatch) -> Iterator[None]:
    """A variant that was measured on a GPU, and a result of perf_analyzer."""
    _on_a100(write_application(Path("traffic")), lambda row: "square,slow" in row)
    Path("detect.csv").write_text(PERF)
    yield


@contextmanager
def labelled(_: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two tasks with two variants each and labels, and servers on which all have an accuracy at once."""
    folder = labelled_application(Path("traffic"))
    graph = folder / "graph.yaml"
    plain = "        - {name: plain, accuracy: 1.0, template: python, artifacts: {model.py: total.py}}\n"
    graph.write_text(edited(graph.read_text(), (plain, plain + plain.replace("plain", "rough"))))
    _on_a100(folder)

    async def measured(graph: TaskGraph, work: Any, *_: object) -> AsyncIterator[Result]:
        single = [{task: name} for task, names in work.variants.items() for name in names]
        for one in [*single, *work.combinations]:
            yield Result(one, "exact", "labels.py", Estimate(0.9, 0.8, 1.0, 3))

    monkeypatch.setattr("jigsaw_triton.api.accuracies.measured_accuracies", measured)
    monkeypatch.setattr("jigsaw_triton.api.accuracies.find_installation", lambda _: None)
    yield


def _on_a100(application: Path, wanted: Callable[[str], bool] = lambda _: True) -> None:
    """Turns the profiles of an application into measurements on a GPU, those of `total.plain` also into `total.rough`.

    Args:
        application: Folder of the application.
        wanted: Function that returns True for a row to keep.
    """
    file = application / "profiles.csv"
    header, *rows = file.read_text().splitlines()
    rows = [edited(_of_a100(row), ("assumed", "measured")) for row in rows if wanted(row)]
    rows += [row.replace("total,plain", "total,rough") for row in rows if "total,plain" in row]
    file.write_text("\n".join([header, *rows, ""]))


def _of_a100(row: str) -> str:
    """Returns a row of profiles of the processor as one of a GPU."""
    board, rest = row.split(",", 1)
    assert board == "cpu", row
    return f"A100-80GB,{rest}"


@contextmanager
def models(_: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models that the page makes or that the reader brings, and servers on which all are equally fast."""
    onnx = pytest.importorskip("onnx", reason="the extra `variants` is not installed")
    pytest.importorskip("onnxruntime")
    if find_spec("transformers") is None:
        pytest.skip("the extra `transformers` is not installed")
    onnx.save(perceptron(), "digits.onnx")
    np.save("samples.npy", np.eye(16, dtype=np.float32))
    (code,) = (block.text for block in blocks("tutorial/models.md", "python") if "torch.jit" in block.text)

    @asynccontextmanager
    async def workers(*_: object) -> AsyncIterator[Any]:
        yield SimpleNamespace(has_room=lambda _: True)

    async def prepare(*_: object) -> None:
        pass

    async def measure(_: Profiler, key: ProfileKey, pace: Pace) -> Measurement:
        ms = 2.0 + key.batch
        row = ProfileRow(key, ms, ms, ms, key.instances * key.batch * 1000 / ms, 50, "measured")
        return Measurement(row, 100, 1.0, 0.1, None, confident=True, memory="pss")

    FakeController().install(monkeypatch)
    monkeypatch.setattr(deploy, "status_view", lambda *_: ["the status"])
    monkeypatch.setattr(profile_gpu, "find_installation", lambda _: None)
    monkeypatch.setattr(profile_gpu, "profiling_workers", workers)
    monkeypatch.setattr(Profiler, "prepare", prepare)
    monkeypatch.setattr(Profiler, "measure", measure)
    # Each command would start a process that imports the libraries of the models.
    process = KeptProcess(running.WORKER_MODULE)
    for module in (describing, running, variants):
        monkeypatch.setattr(module, "ChildProcess", lambda _: process)
    try:
        process.call(Making(Path.cwd(), code), 2 * WAIT_LIMIT_S)
        yield
    finally:
        process.end()
