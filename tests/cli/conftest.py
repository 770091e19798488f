"""Runs commands, and creates small applications for them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from jigsaw_triton.api import files, planning, replaying, shedding, simulating
from jigsaw_triton.cli.commands import ablation
from jigsaw_triton.cli.commands.init import SKELETON
from jigsaw_triton.cli.main import program
from jigsaw_triton.planner.search.solve import SolverFactory
from jigsaw_triton.planner.solver.solver import lasting_solvers
from tests.fakes.model_process import kept_models as kept_models
from tests.fakes.model_process import kept_processes as kept_processes
from tests.fakes.nvml.machine import Machine

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def solvers() -> Iterator[SolverFactory]:
    with lasting_solvers() as solvers:
        yield solvers


@pytest.fixture(autouse=True)
def kept_solvers(solvers: SolverFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all commands use the same solver processes: starting one takes longer than most of their programs."""
    for module in (ablation, planning, replaying, shedding, simulating):
        monkeypatch.setattr(module, "lasting_solvers", lambda: nullcontext(solvers))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program in an empty folder, without the environment variables that it reads, with many processors."""
    monkeypatch.setattr(files, "usable_processors", lambda: 64.0)
    for name in list(os.environ):
        if name.startswith(("JIGSAW_", "XDG_")) or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def invoke(*args: str | Path, env: dict[str, str] | None = None, stdin: str | None = None) -> Result:
        return CliRunner().invoke(program, [str(arg) for arg in args], env=env, input=stdin)

    return invoke


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Application of `init` without --from: one task with two variants, profiled on `cpu`."""
    folder = tmp_path / "app"
    shutil.copytree(SKELETON, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def make_machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Makes the GPUs of this machine, by the stand-in for NVML."""
    made: list[Machine] = []

    def make_machine(*models: str, mig: bool = True) -> Machine:
        made.append(Machine(tmp_path / "gpus", models, mig=mig))
        made[-1].enter()
        return made[-1]

    yield make_machine
    for machine in made:
        machine.leave()


@pytest.fixture
def stepped(tmp_path: Path, app: Path) -> Path:
    """Application like `app`, with a Python step after its task."""
    folder = tmp_path / "stepped"
    shutil.copytree(app, folder)
    graph = yaml.safe_load((folder / "graph.yaml").read_text())
    spec = graph["spec"]
    outputs = {"MEAN": {"dtype": "FP32", "shape": [1]}}
    spec["tasks"]["round"] = {"python": "round.py", "inputs": {"MEAN": "average.MEAN"}, "outputs": outputs}
    spec["outputs"] = {"MEAN": "round.MEAN"}
    (folder / "graph.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    (folder / "round.py").write_text('def step(MEAN):\n    return {"MEAN": MEAN.round()}\n')
    return folder


@pytest.fixture
def named(tmp_path: Path, app: Path) -> Callable[[str], Path]:
    """Copies `app` under another name."""

    def copy(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(app, folder)
        graph = folder / "graph.yaml"
        graph.write_text(graph.read_text().replace("{name: hello}", f"{{name: {name}}}"))
        return folder

    return copy
