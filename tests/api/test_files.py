import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jigsaw_triton.api import machine
from jigsaw_triton.api.files import Mistakes, load_cluster, load_graph, load_plan, planned_cluster, read_cluster
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.profile_files import load_profiles
from jigsaw_triton.api.reporting import COMMAND_LINE, PYTHON, Wording
from jigsaw_triton.api.wanted import make_problem, read_demand, read_wanted
from jigsaw_triton.controller.core.generation import Wanted
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
    """Names of the GPUs that NVML reports."""
    names: list[str] = []
    monkeypatch.setattr(machine, "visible_gpus", lambda: tuple(names))
    return names


def found(error: SpecError) -> list[str]:
    return [str(diagnostic) for diagnostic in error.diagnostics]


def demand(
    demand: dict[str, float], *names: str, default_rps: float | None = None, wording: Wording = PYTHON
) -> dict[str, float]:
    mistakes = Mistakes()
    read = read_demand(demand, names, mistakes, default_rps=default_rps, wording=wording)
    mistakes.raise_if_any()
    return read


def test_a_demand_is_read_by_graph() -> None:
    assert demand({"": 12}, "a") == {"a": 12}
    assert demand({"a": 1.5}, "a") == {"a": 1.5}
    assert demand({"a": 1, "b": 2}, "a", "b") == {"a": 1, "b": 2}
    assert demand({"b": 2}, "a", "b", default_rps=1.0) == {"a": 1.0, "b": 2}


@pytest.mark.parametrize(
    ("rps", "names", "flags", "arguments"),
    [
        (
            {"": 12.0},
            ("a", "b"),
            "--demand: it is not clear which graph has a demand of 12; write --demand a=RPS,b=RPS",
            "demand: it is not clear which graph has a demand of 12; write demand={'a': RPS, 'b': RPS}",
        ),
        (
            {"trafic": 1.0},
            ("traffic",),
            "--demand: there is no graph 'trafic'; did you mean 'traffic'?",
            "demand: there is no graph 'trafic'; did you mean 'traffic'?",
        ),
        (
            {"a": 1.0},
            ("a", "b"),
            "--demand: the graph b has no demand; add --demand b=RPS",
            "demand: the graph b has no demand; add demand={'b': RPS}",
        ),
        (
            {"a": 1.0, "": 2.0},
            ("a",),
            "--demand: the graph a has two demands; keep one",
            "demand: the graph a has two demands; keep one",
        ),
    ],
)
def test_a_wrong_demand_is_refused(rps: dict[str, float], names: tuple[str, ...], flags: str, arguments: str) -> None:
    for wording, expected in ((COMMAND_LINE, flags), (PYTHON, arguments)):
        with pytest.raises(SpecError) as error:
            demand(rps, *names, wording=wording)
        assert found(error.value) == [expected]


@pytest.mark.parametrize("rps", [0.0, -3.0, float("nan"), float("inf"), 1e10])
def test_a_demand_is_a_positive_number(rps: float) -> None:
    with pytest.raises(SpecError, match=f"demand: {rps:g} is not a number of requests a second".replace("+", r"\+")):
        demand({"a": rps}, "a")


def cluster(gpus: str | None = None, file: Path | None = None, driver: Driver | None = None) -> tuple[str, int]:
    """Driver and number of GPUs."""
    mistakes = Mistakes()
    built = read_cluster(mistakes, gpus=gpus, cluster=file, driver=driver, wording=COMMAND_LINE)
    mistakes.raise_if_any()
    assert built is not None
    return built.driver, len(built.gpus)


def test_emulation_that_nobody_asked_for_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert cluster("2xA100-80GB") == ("emulated", 2)
    assert "no GPU answers on this machine, so MIG is emulated" in caplog.text


def test_emulation_that_was_asked_for_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.replace("spec:", "spec:\n  driver: emulated"))
    assert cluster("2xcpu")[0] == cluster("2xA100-80GB", driver="emulated")[0] == cluster(file=file)[0] == "emulated"
    assert caplog.text == ""


def test_nvml_is_the_default_driver_if_a_gpu_answers(gpus_here: list[str]) -> None:
    gpus_here.append("NVIDIA A100 80GB PCIe")
    assert cluster("2xA100-80GB")[0] == "nvml"
    assert cluster("2xcpu")[0] == "emulated"


def test_the_driver_argument_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.replace("spec:", "spec:\n  driver: nvml"))
    assert cluster(file=file)[0] == "nvml"
    assert cluster(file=file, driver="emulated")[0] == "emulated"


@pytest.mark.parametrize(
    ("gpus", "file", "said"),
    [
        (None, None, "--gpus: no GPUs are given; give --gpus 2xA100-80GB"),
        ("1xcpu", "cluster.yaml", "--gpus: --cluster is given too"),
        ("2xA100", None, "--gpus: there is no GPU model 'A100'; did you mean"),
        ("two", None, "--gpus: there is no GPU model 'two'"),
        ("x2", None, "--gpus: there is no GPU model 'x2'"),
        ("2 A100", None, "--gpus: '2 A100' does not name a number of GPUs"),
        (None, "nothing.yaml", "nothing.yaml: there is no such file"),
    ],
)
def test_wrong_gpus_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: str | None, file: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as error:
        cluster(gpus, None if file is None else Path(file))
    assert found(error.value)[0].startswith(said)


def wanted(*paths: Path, demand: dict[str, float] | None = None, gpus: str = "1xcpu", to_serve: bool = True) -> Wanted:
    return read_wanted(paths, gpus=gpus, demand=demand or {"": 1}, to_serve=to_serve)


def test_graphs_demands_and_profiles_are_read(named: Named) -> None:
    read = wanted(named("a"), named("b"), demand={"a": 1, "b": 2})
    assert list(read.graphs) == ["a", "b"]
    assert read.demand_rps == {"a": 1.0, "b": 2.0}
    assert len(read.profiles["a"]) == len(read.profiles["b"]) == 4
    workloads = make_problem(read).workloads
    assert [(w.graph.name, w.demand_rps) for w in workloads] == [("a", 1.0), ("b", 2.0)]


def test_all_mistakes_are_reported_at_once(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = named("a"), named("b")
    monkeypatch.chdir(first.parent)
    (first / "profiles.csv").unlink()
    profiles = second / "profiles.csv"
    profiles.write_text(profiles.read_text().replace("exact,1g,1,1", "exact,9g,1,1"))
    with pytest.raises(SpecError) as error:
        wanted(first, second, demand={"a": 1}, gpus="1xH1000")
    places = [line.split(": ")[0] for line in found(error.value)]
    assert places == ["a/profiles.csv", "b/profiles.csv:2", "gpus", "demand"]


def test_profiles_of_the_other_kind_of_instances_are_refused_with_file_and_line(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = app / "profiles.csv"
    header, first, *_ = file.read_text().splitlines()
    first = first.replace(",1g,1,", ",1g,2,")
    file.write_text(f"{header},processes\n{first},mps\n")
    with pytest.raises(SpecError) as error:
        wanted(app)
    (line,) = found(error.value)
    assert line.startswith("app/profiles.csv:2: 2 instances of average.")
    assert "were measured as processes under MPS, but the cluster serves instances of one tritonserver" in line
    (tmp_path / "cluster.yaml").write_text(
        "apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  processes: mps\n"
        "  nodes: [{name: a, gpus: [{model: cpu, count: 1}]}]\n"
    )
    assert len(read_wanted([app], cluster=tmp_path, demand={"": 1}).profiles["hello"]) == 1


def test_a_cluster_of_this_processor_knows_its_processors() -> None:
    mistakes = Mistakes()
    built, on_gpus = (read_cluster(mistakes, gpus=gpus, driver="emulated") for gpus in ("2xcpu", "1xA100-80GB"))
    assert built is not None and on_gpus is not None
    assert built.processors is not None and 0 < built.processors <= len(os.sched_getaffinity(0))
    assert on_gpus.processors is None


def test_the_demand_of_a_graph_that_cannot_be_read_is_not_a_second_mistake(named: Named) -> None:
    good, bad = named("a"), named("b")
    (bad / "graph.yaml").write_text("kind: TaskGraph\n")
    with pytest.raises(SpecError) as error:
        wanted(good, bad, demand={"a": 1, "b": 2})
    assert not any(line.startswith("demand") for line in found(error.value))


def test_two_graphs_with_one_name_are_refused(app: Path, named: Named) -> None:
    with pytest.raises(SpecError, match="another graph is named 'hello'"):
        wanted(app, named("hello"))


def test_only_serving_needs_model_files(app: Path) -> None:
    (app / "models" / "average.py").unlink()
    assert list(wanted(app, to_serve=False).graphs) == ["hello"]
    with pytest.raises(SpecError, match=r"there is no file 'models/average\.py'"):
        wanted(app)


def test_a_variant_without_profiles_is_noted(app: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file = app / "profiles.csv"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "quick" not in line))
    wanted(app)
    assert "variant 'quick' of average has no profile on cpu" in caplog.text


def plan(model: str = "A100-80GB") -> Plan:
    gpu = PlannedGpu(GpuId("n", 1), model, (PlacedSlice(Placement(0, "1g"), ()),))
    return Plan({}, (gpu,), 1, 7, 1, "AST", "exact", "2p95", SolverReport("HiGHS", "optimal", 0.1, 0.0))


def test_a_plan_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(plan_to_text(plan()))
    assert load_plan(file) == plan()


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[]", "not a plan"), ('{"version": 9}', "version 9")])
def test_a_file_without_a_plan_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        load_plan(file)


def test_the_cluster_of_a_plan_has_its_gpus() -> None:
    built = planned_cluster(plan(), None)
    assert [(str(gpu.id), gpu.board.name) for gpu in built.gpus] == [("n/1", "A100-80GB")]
    with pytest.raises(InputError, match="no GPU model 'A101'"):
        planned_cluster(plan("A101"), None)


def test_a_graph_is_loaded_from_its_folder_or_file(app: Path) -> None:
    assert load_graph(app) == load_graph(str(app / "graph.yaml"))
    with pytest.raises(SpecError, match="there is no such file"):
        load_graph(app / "nothing.yaml")


def test_profiles_are_loaded_from_their_folder_or_file(app: Path) -> None:
    assert load_profiles(app).rows() == load_profiles(app / "profiles.csv").rows()
    (app / "profiles.csv").unlink()
    with pytest.raises(InputError, match=r"there is no such file; it has the speed of each variant; `jigsaw-triton"):
        load_profiles(app)


def test_a_cluster_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    loaded = load_cluster(tmp_path, driver="nvml")
    assert (len(loaded.gpus), loaded.driver, loaded.gateway.http) == (2, "nvml", 9000)


def test_profiles_may_be_given_by_graph(app: Path, named: Named) -> None:
    table = load_profiles(app)
    (app / "profiles.csv").rename(app / "other.csv")
    read = read_wanted([app], gpus="1xcpu", demand={"": 1}, profiles={"": app / "other.csv"})
    assert read.profiles["hello"].rows() == table.rows()
    graphs = [named("a"), named("b")]
    with pytest.raises(SpecError, match="profiles: it is not clear for which graph"):
        read_wanted(graphs, gpus="1xcpu", demand={"a": 1, "b": 1}, profiles={"": table})
    with pytest.raises(SpecError, match=r"profiles: there is no graph 'c'; graphs: a, b"):
        read_wanted(graphs, gpus="1xcpu", demand={"a": 1, "b": 1}, profiles={"c": table})
