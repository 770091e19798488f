import math
from dataclasses import replace
from typing import Any

import pytest

from jigsaw_triton.console.web import what_if as module
from jigsaw_triton.console.web.what_if import varied, what_if, with_gpus
from jigsaw_triton.controller.core.generation import Basis
from jigsaw_triton.controller.core.slowness import Kind
from jigsaw_triton.errors import InputError
from jigsaw_triton.planner.solver.solver import SolverProcess
from tests.controller.worlds import bundle, profiled, wanted, worker

MADE = profiled(bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))]))


def test_what_is_not_asked_for_stays_as_it_is() -> None:
    problem = varied(MADE, {})
    (workload,) = problem.workloads
    assert workload.graph == MADE.wanted.graphs["app"]
    assert workload.demand_rps == MADE.plan.graphs["app"].demand_rps
    assert (problem.cluster, problem.running) == (MADE.wanted.cluster, MADE.plan)


def test_other_plans_are_made_with_what_the_plan_was_made_with() -> None:
    graph = MADE.wanted.graphs["app"]
    measured = replace(graph, tasks={**graph.tasks, "t1": replace(graph.tasks["t1"], retry=False)})
    cluster = MADE.wanted.cluster
    kind = Kind("app", "t0", "a", cluster.gpus[0].board.name, "1g")
    basis = Basis({"app": measured}, {kind: 2.0}, frozenset({cluster.gpus[0].id}))
    problem = varied(replace(MADE, basis=basis), {})
    assert problem.workloads[0].graph == measured
    assert problem.cluster.gpus == cluster.gpus[1:]
    before, after = (
        next(row for row in table["app"].rows() if row.key.task == "t0" and row.key.slice == "1g")
        for table in (MADE.wanted.profiles, problem.profiles)
    )
    assert after.latency_p95_ms == 2 * before.latency_p95_ms
    assert problem.unloaded == MADE.wanted.profiles


def test_demand_slo_and_gpus_may_differ() -> None:
    problem = varied(MADE, {"demand": {"app": 7}, "slo": {"app": {"latency_ms": 90, "accuracy": 0.8}}, "gpus": 1})
    (workload,) = problem.workloads
    assert (workload.demand_rps, workload.graph.slo.latency_ms, workload.graph.slo.accuracy) == (7.0, 90.0, 0.8)
    assert problem.cluster.gpus == MADE.wanted.cluster.gpus[:1]


def test_more_gpus_are_like_the_last_one() -> None:
    cluster = wanted(gpus=2).cluster
    more = with_gpus(cluster, 4)
    assert [str(gpu.id) for gpu in more.gpus] == ["n/0", "n/1", "n/2", "n/3"]
    assert {gpu.board for gpu in more.gpus} == {cluster.gpus[0].board}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"demands": {}}, "there is no requirement 'demands'"),
        ({"demand": 3}, "demand is not an object"),
        ({"demand": {"x": 3}}, "there is no graph 'x'"),
        ({"demand": {"app": "3"}}, "'3' is not a number above 0"),
        ({"demand": {"app": 0}}, "0 is not a number"),
        ({"demand": {"app": True}}, "True is not a number"),
        ({"demand": {"app": 1e12}}, "up to 1e"),
        ({"demand": {"app": math.nan}}, "nan is not a number"),
        ({"slo": {"app": 3}}, "the SLO is not an object"),
        ({"slo": {"app": {"latency_ms": -1}}}, "-1 is not a number"),
        ({"slo": {"app": {"latency_ms": math.inf}}}, "inf is not a number"),
        ({"slo": {"app": {"accuracy": 1.1}}}, "1.1 is not a number above 0 up to 1"),
        ({"gpus": 0}, "0 is not a number of GPUs"),
        ({"gpus": 2.5}, "2.5 is not a number of GPUs"),
        ({"gpus": 10**9}, "is not a number of GPUs"),
    ],
)
def test_impossible_requirements_are_errors(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        varied(MADE, asked)


def test_a_long_difference_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHANGES", 1)
    found = what_if(MADE, {"demand": {"app": 40}}, SolverProcess)
    assert found["feasible"]
    assert len(found["difference"]) == 2
    assert found["difference"][-1].startswith("and ")
