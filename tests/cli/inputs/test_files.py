from collections.abc import Callable
from pathlib import Path

import pytest

from jigsaw_triton.cli.inputs import machine
from jigsaw_triton.cli.inputs.files import (
    Mistakes,
    planned_cluster,
    problem,
    read_cluster,
    read_demand,
    read_plan,
    read_wanted,
)
from jigsaw_triton.cli.inputs.machine import Driver
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.errors import InputError, SpecError
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.planner.domain.plan import PlacedSlice, Plan, PlannedGpu, SolverReport, plan_to_text

Named = Callable[[str], Path]

CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  nodes: [{name: a, gpus: [{model: A100-80GB, count: 2}]}]
  gateway: {http: 9000, grpc: 9001, metrics: 9002}
"""


@pytest.fixture(autouse=True)
def gpus_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the GPUs that answer."""
    names: list[str] = []
    monkeypatch.setattr(machine, "visible_gpus", lambda: tuple(names))
    return names


def found(error: SpecError) -> list[str]:
    return [str(diagnostic) for diagnostic in error.diagnostics]


def demand(*texts: str, names: tuple[str, ...] = ("a",), default_rps: float | None = None) -> dict[str, float]:
    mistakes = Mistakes()
    read = read_demand(texts, names, mistakes, default_rps=default_rps)
    mistakes.raise_if_any()
    return read


@pytest.mark.parametrize(
    ("texts", "names", "read"),
    [
        (("12",), ("a",), {"a": 12.0}),
        (("a=1.5",), ("a",), {"a": 1.5}),
        (("a=1", "b=2"), ("a", "b"), {"a": 1.0, "b": 2.0}),
        (("a=1, b=2",), ("a", "b"), {"a": 1.0, "b": 2.0}),
        (("1e3",), ("a",), {"a": 1000.0}),
    ],
)
def test_demand(texts: tuple[str, ...], names: tuple[str, ...], read: dict[str, float]) -> None:
    assert demand(*texts, names=names) == read


def test_a_demand_by_default() -> None:
    assert demand("b=2", names=("a", "b"), default_rps=1.0) == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize(
    ("texts", "names", "said"),
    [
        (("12",), ("a", "b"), "'12' does not say of which graph; write --demand a=RPS,b=RPS"),
        (("trafic=1",), ("traffic",), "there is no graph 'trafic'; did you mean 'traffic'?"),
        (("a=1", "a=2"), ("a",), "the graph a has two; keep one"),
        (("a=1",), ("a", "b"), "the graph b has none; add --demand b=RPS"),
        (("many",), ("a",), "'many' is not a number of requests a second"),
        (("0",), ("a",), "'0' is not a number"),
        (("-3",), ("a",), "'-3' is not a number"),
        (("nan",), ("a",), "'nan' is not a number"),
        (("inf",), ("a",), "'inf' is not a number"),
        (("",), ("a",), "'' is not a number"),
        (("a=",), ("a",), "'' is not a number"),
    ],
)
def test_a_wrong_demand(texts: tuple[str, ...], names: tuple[str, ...], said: str) -> None:
    with pytest.raises(SpecError) as error:
        demand(*texts, names=names)
    (line,) = found(error.value)
    assert line.startswith(f"--demand: {said}")


def cluster(gpus: str | None = None, file: Path | None = None, driver: Driver | None = None) -> tuple[str, str, int]:
    """Driver, engine and number of GPUs."""
    mistakes = Mistakes()
    built = read_cluster(Output(), mistakes, gpus=gpus, cluster=None if file is None else str(file), driver=driver)
    mistakes.raise_if_any()
    assert built is not None
    return built.driver, built.engine, len(built.gpus)


def test_emulation_that_nobody_asked_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster("2xA100-80GB") == ("emulated", "local", 2)
    assert "no GPU answers here, so MIG is emulated" in capsys.readouterr().err


def test_emulation_that_is_meant_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.replace("spec:", "spec:\n  driver: emulated"))
    assert cluster("2xcpu")[0] == cluster("2xA100-80GB", driver="emulated")[0] == cluster(file=file)[0] == "emulated"
    assert capsys.readouterr().err == ""


def test_real_gpus_are_the_default_where_one_answers(gpus_here: list[str]) -> None:
    gpus_here.append("NVIDIA A100 80GB PCIe")
    assert cluster("2xA100-80GB")[0] == "nvml"
    assert cluster("2xcpu")[0] == "emulated"


def test_the_flag_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.replace("spec:", "spec:\n  driver: nvml"))
    assert cluster(file=file)[0] == "nvml"
    assert cluster(file=file, driver="emulated")[0] == "emulated"


@pytest.mark.parametrize(
    ("gpus", "file", "said"),
    [
        (None, None, "--gpus: the GPUs are not given; say which: --gpus 2xA100-80GB"),
        ("1xcpu", "cluster.yaml", "--gpus: --cluster is given too"),
        ("2xA100", None, "--gpus: there is no GPU model 'A100'; did you mean"),
        ("two", None, "--gpus: there is no GPU model 'two'"),
        ("x2", None, "--gpus: there is no GPU model 'x2'"),
        ("2 A100", None, "--gpus: '2 A100' does not name a number of GPUs"),
        (None, "nothing.yaml", "nothing.yaml: there is no such file"),
    ],
)
def test_wrong_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: str | None, file: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as error:
        cluster(gpus, None if file is None else Path(file))
    assert found(error.value)[0].startswith(said)


def wanted(*paths: Path, demand: tuple[str, ...] = ("1",), gpus: str = "1xcpu", to_serve: bool = True) -> Wanted:
    return read_wanted(
        Output(), [str(path) for path in paths], gpus=gpus, cluster=None, driver=None, demand=demand, to_serve=to_serve
    )


def test_what_is_wanted(named: Named) -> None:
    read = wanted(named("a"), named("b"), demand=("a=1,b=2",))
    assert list(read.graphs) == ["a", "b"]
    assert read.demand_rps == {"a": 1.0, "b": 2.0}
    assert len(read.profiles["a"]) == len(read.profiles["b"]) == 4
    workloads = problem(read).workloads
    assert [(w.graph.name, w.demand_rps) for w in workloads] == [("a", 1.0), ("b", 2.0)]


def test_all_mistakes_are_told_at_once(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = named("a"), named("b")
    monkeypatch.chdir(first.parent)
    (first / "profiles.csv").unlink()
    profiles = second / "profiles.csv"
    profiles.write_text(profiles.read_text().replace("exact,1g,1,1", "exact,9g,1,1"))
    with pytest.raises(SpecError) as error:
        wanted(first, second, demand=("a=1",), gpus="1xH1000")
    places = [line.split(": ")[0] for line in found(error.value)]
    assert places == ["a/profiles.csv", "b/profiles.csv:2", "--gpus", "--demand"]


def test_the_demand_of_a_graph_that_cannot_be_read_is_no_mistake_more(named: Named) -> None:
    good, bad = named("a"), named("b")
    (bad / "graph.yaml").write_text("kind: TaskGraph\n")
    with pytest.raises(SpecError) as error:
        wanted(good, bad, demand=("a=1,b=2",))
    assert not any("--demand" in line for line in found(error.value))


def test_two_graphs_of_one_name(app: Path, named: Named) -> None:
    with pytest.raises(SpecError, match="there is a graph 'hello' before it"):
        wanted(app, named("hello"))


def test_model_files_are_needed_to_serve_alone(app: Path) -> None:
    (app / "models" / "average.py").unlink()
    assert list(wanted(app, to_serve=False).graphs) == ["hello"]
    with pytest.raises(SpecError, match=r"there is no file 'models/average\.py'"):
        wanted(app)


def test_what_is_not_profiled_is_told(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = app / "profiles.csv"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "quick" not in line))
    wanted(app)
    assert "variant 'quick' of average has no profile on cpu" in capsys.readouterr().err


def test_an_engine_that_is_not_there_is_refused_to_serve(tmp_path: Path, app: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.replace("spec:", "spec:\n  engine: ray"))
    arguments = {"gpus": None, "cluster": str(file), "driver": None, "demand": ["1"]}
    # The checker sees values of one type for all arguments.
    read_wanted(Output(), [str(app)], **arguments, to_serve=False)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"engine: ray.* is not in this release"):
        read_wanted(Output(), [str(app)], **arguments)  # type: ignore[arg-type]


def plan(model: str = "A100-80GB") -> Plan:
    gpu = PlannedGpu(GpuId("n", 1), model, (PlacedSlice(Placement(0, "1g"), ()),))
    return Plan({}, (gpu,), 1, 7, 1, "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.1, 0.0))


def test_a_plan_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(plan_to_text(plan()))
    assert read_plan(file) == plan()


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[]", "not a plan"), ('{"version": 9}', "version 9")])
def test_what_is_no_plan(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        read_plan(file)


def test_a_plan_has_its_cluster() -> None:
    built = planned_cluster(plan(), None)
    assert [(str(gpu.id), gpu.board.name) for gpu in built.gpus] == [("n/1", "A100-80GB")]
    with pytest.raises(InputError, match="no GPU model 'A101'"):
        planned_cluster(plan("A101"), None)
