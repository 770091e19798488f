"""Planning from Python."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import jigsaw_triton as jt
from jigsaw_triton.api import planning

Named = Callable[[str], Path]


def test_a_plan_from_files_equals_the_plan_from_values(app: Path) -> None:
    by_path = jt.plan(app, demand=20, gpus="2xcpu")
    graph, table = jt.load_graph(app), jt.load_profiles(app)
    by_value = jt.plan(graph, demand={"hello": 20}, gpus="2xcpu", profiles=table)
    problem = jt.load_problem([str(app)], demand=20, gpus="2xcpu")
    assert by_path.graphs == by_value.graphs == jt.plan(problem).graphs
    assert by_path.gpus == by_value.gpus == jt.plan(problem).gpus


def test_a_plan_keeps_what_is_running(app: Path) -> None:
    running = jt.plan(app, demand=20, gpus="2xcpu")
    assert jt.plan(app, demand=20, gpus="2xcpu", running=running).gpus == running.gpus


def test_a_cluster_may_be_a_value(app: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec: {nodes: [{name: a, gpus: [{model: cpu}]}]}\n"
    )
    cluster = jt.load_cluster(tmp_path)
    assert str(jt.plan(app, demand=5, cluster=cluster).gpus[0].id) == "a/0"


@pytest.mark.slow
def test_an_infeasible_demand_raises_the_requirements_in_conflict(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The search for the conflict ends early on a busy machine.
    monkeypatch.setattr(planning, "time", SimpleNamespace(monotonic=lambda: 0.0))
    with pytest.raises(jt.InfeasibleError) as caught:
        jt.plan(app, demand=1e6, gpus="1xcpu")
    assert caught.value.conflict == ("cpu.gpus", "hello.demand_rps")
    assert "lower the demand" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"demand": 1}, "gpus: no GPUs are given; give gpus='2xA100-80GB'"),
        ({"demand": 1, "gpus": "1xA10"}, "gpus: there is no GPU model 'A10'"),
        ({"gpus": "1xcpu"}, "demand: no demand is given"),
        ({"demand": {"hallo": 1}, "gpus": "1xcpu"}, "demand: there is no graph 'hallo'; did you mean 'hello'?"),
        ({"demand": -1, "gpus": "1xcpu"}, "demand: -1 is not a number of requests a second"),
    ],
)
def test_wrong_arguments_are_input_errors(app: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(jt.InputError) as caught:
        jt.plan(app, **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_no_graph_is_an_input_error() -> None:
    with pytest.raises(jt.InputError, match="no graph is given"):
        jt.plan([], demand=1, gpus="1xcpu")


def test_a_graph_that_does_not_exist_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(jt.SpecError, match="there is no such file"):
        jt.plan(tmp_path / "nowhere", demand=1, gpus="1xcpu")


def test_the_capacity_can_be_served(app: Path) -> None:
    largest = jt.capacity(app, gpus="1xcpu")
    rps = largest.rps["hello"]
    assert jt.plan(app, demand=rps, gpus="1xcpu").graphs["hello"].demand_rps == rps
    with pytest.raises(jt.InfeasibleError):
        jt.plan(app, demand=1.01 * rps, gpus="1xcpu")


def test_the_demand_of_one_graph_grows(named: Named) -> None:
    apps = [named("a"), named("b")]
    largest = jt.capacity(apps, demand={"a": 1, "b": 7}, scale=["a"], gpus="1xcpu")
    assert largest.rps["b"] == 7 < largest.rps["a"]
    with pytest.raises(jt.InputError, match=r"scale: there is no graph 'c'; graphs: a, b"):
        jt.capacity(apps, scale=["c"], gpus="1xcpu")


def test_a_plan_is_compiled(app: Path, tmp_path: Path) -> None:
    plan = jt.plan(app, demand=5, gpus="1xcpu")
    bundle = jt.compile(app, plan, tmp_path / "build", backends=["python"])
    assert set(bundle.graphs) == {"hello"}
    assert (tmp_path / "build" / "gateway").is_dir()
