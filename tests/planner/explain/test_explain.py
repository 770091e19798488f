"""Explanations of plans; every figure is that of a newly made plan."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.explain.explain import explained
from jigsaw_triton.planner.explain.explanation import MOST_PATHS, Effect, Explanation, Limit
from jigsaw_triton.planner.explain.requirement import Requirement, varied
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan, make_plan
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain, diamond, graph, task
from tests.fakes.problems import TWO_P95, cluster, docread_problem, problem, row

pytestmark = pytest.mark.slow

OPTIONS = Options()


def explanation(p: Problem, solvers: SolverFactory, options: Options = OPTIONS) -> tuple[Plan, Explanation]:
    plan = make_plan(p, options, solvers=solvers)
    return plan, explained(plan, p, options, solvers=solvers, clock=lambda: 0.0)


def limit(found: Explanation, name: str) -> Limit:
    (same,) = (one for one in found.limits if str(one.requirement) == name)
    return same


def effects(found: Limit) -> dict[str, Effect]:
    return {step.change: step.effect for step in found.steps}


@pytest.mark.slow
@pytest.mark.parametrize("options", [OPTIONS, Options(features="AS"), TWO_P95])
def test_budgets_of_paths_and_tasks_are_those_of_the_plan(options: Options, solvers: SolverFactory) -> None:
    p = docread_problem(60, slo=Slo(500.0, accuracy=0.8))
    plan, found = explanation(p, solvers, options)
    planned = plan.graphs["docread"]
    (path,) = found.paths
    assert path.tasks == ("detect", "recognise")
    assert path.latency_ms == pytest.approx(planned.latency_ms)
    assert path.slack_ms == pytest.approx(500.0 - planned.latency_ms)
    assert path.budget_ms <= 500.0 * (1 + 1e-9)
    assert path.accuracy == pytest.approx(planned.accuracy)
    assert path.slack_accuracy == pytest.approx(planned.accuracy - 0.8)
    assert [(t.task, t.budget_ms) for t in found.tasks] == [(n, t.budget_ms) for n, t in planned.tasks.items()]
    assert sum(t.latency_ms for t in found.tasks) == pytest.approx(planned.latency_ms)


def test_every_path_is_reported(solvers: SolverFactory) -> None:
    g = diamond(slo=Slo(100.0, accuracy=0.5))
    rows = [row(t, "v0", p95_ms=ms) for t, ms in (("a", 5.0), ("b", 20.0), ("c", 1.0), ("d", 5.0))]
    _, found = explanation(problem(g, rows, demand_rps=1), solvers, TWO_P95)
    assert {path.tasks: path.latency_ms for path in found.paths} == {
        ("a", "b", "d"): pytest.approx(60.0),
        ("a", "c", "d"): pytest.approx(22.0),
    }


def test_of_many_paths_the_longest_through_each_task_is_reported(solvers: SolverFactory) -> None:
    layers = 5
    tasks = [task(f"{side}0", {"X": "inputs.X"}) for side in "ab"]
    tasks += [task(f"{side}{i}", {"X": f"a{i - 1}.Y", "Z": f"b{i - 1}.Y"}) for i in range(1, layers) for side in "ab"]
    g = graph(tasks, {"Y": f"a{layers - 1}.Y", "Z": f"b{layers - 1}.Y"})
    rows = [row(t.name, "v0", p95_ms=1.0 if t.name < "b" else 2.0) for t in tasks]
    assert 2**layers > MOST_PATHS
    _, found = explanation(problem(g, rows, demand_rps=1, gpus=2), solvers, TWO_P95)
    assert max(path.latency_ms for path in found.paths) == pytest.approx(layers * 4.0)
    assert {name for path in found.paths for name in path.tasks} == set(g.tasks)
    assert len(found.paths) == 1 + layers


def test_the_cost_of_a_requirement_is_that_of_a_new_plan(solvers: SolverFactory) -> None:
    p = docread_problem(60, gpus=2)
    plan, found = explanation(p, solvers)
    assert [str(one.requirement) for one in found.limits] == [
        "cpu.gpus",
        "docread.latency_ms",
        "docread.accuracy",
        "docread.demand_rps",
    ]
    for one in found.limits:
        for step in one.steps:
            other = find_plan(varied(p, one.requirement, step.value), solvers=solvers)
            if other is None:
                assert step.effect == Effect("none")
            else:
                assert step.effect.slices == other.slices_used - plan.slices_used
                assert step.effect.gpus == other.gpus_used - plan.gpus_used
        assert one.binds is any(step.eases and step.effect.saves for step in one.steps)


def test_a_requirement_binds_if_relaxing_it_saves_slices(solvers: SolverFactory) -> None:
    # The SLO needs a 3g at 40 ms, and permits a 1g from 50 ms on.
    g = chain(1, slo=Slo(45.0, accuracy=0.5))
    rows = [row("t0", "v0", slice_="3g", p95_ms=20.0), row("t0", "v0", p95_ms=25.0)]
    _, found = explanation(problem(g, rows, demand_rps=1), solvers, TWO_P95)
    latency = limit(found, "chain.latency_ms")
    assert latency.binds is True
    assert effects(latency)["+10 ms"].slices == -2
    assert effects(latency)["-10 ms"].outcome == "none"
    assert [one.binds for one in found.limits if one is not latency] == [False, False, False]


def test_invalid_steps_are_left_out(solvers: SolverFactory) -> None:
    g = chain(1, slo=Slo(10.0, accuracy=1.0))
    _, found = explanation(problem(g, [row("t0", "v0", p95_ms=1.0)], demand_rps=1), solvers)
    assert list(effects(limit(found, "cpu.gpus"))) == ["+1"]
    assert list(effects(limit(found, "chain.latency_ms"))) == ["+10 ms"]
    assert list(effects(limit(found, "chain.accuracy"))) == ["-0.01"]


def test_the_effect_of_doing_without_a_choice_is_that_of_a_new_plan(solvers: SolverFactory) -> None:
    # v0 on 1g is best; without v0, v1 does it less accurately; without 1g, a 2g is needed.
    g = chain(1, variant_count=2)
    rows = [row("t0", "v0"), row("t0", "v0", slice_="2g"), row("t0", "v1")]
    _, found = explanation(problem(g, rows, demand_rps=1), solvers)
    variant, kind = found.choices
    assert (variant.what, variant.chosen, variant.effect.slices) == ("variant", "v0", 0)
    assert variant.effect.accuracy == variant.effect.mean_accuracy == {"chain": pytest.approx(-0.1)}
    assert [s.variant for s in variant.instead] == ["v1"]
    assert (kind.what, kind.chosen, kind.effect.slices, kind.effect.accuracy) == ("slice", "1g", 1, {"chain": 0.0})
    assert [(s.variant, s.slice) for s in kind.instead] == [("v0", "2g")]


def test_a_choice_without_an_alternative_has_none_instead(solvers: SolverFactory) -> None:
    _, found = explanation(problem(chain(1), [row("t0", "v0")], demand_rps=1), solvers)
    assert [(choice.effect.outcome, choice.instead) for choice in found.choices] == [("none", ())] * 2


def test_each_of_several_graphs_has_its_budgets_and_limits(solvers: SolverFactory) -> None:
    g, h = chain(1, name="g"), chain(2, name="h")
    tables = {w.name: ProfileTable([row(t, "v0", rps=100.0) for t in w.tasks]) for w in (g, h)}
    p = Problem((Workload(g, 100), Workload(h, 10)), cluster(1), tables)
    _, found = explanation(p, solvers, TWO_P95)
    assert [(b.graph, b.task) for b in found.tasks] == [("g", "t0"), ("h", "t0"), ("h", "t1")]
    assert {one.requirement.subject for one in found.limits} == {"cpu", "g", "h"}
    assert effects(limit(found, "g.demand_rps"))["-10%"].slices == 0
    eased = varied(p, Requirement("g", "demand_rps"), 80)
    assert make_plan(eased, TWO_P95, solvers=solvers).slices_used < make_plan(p, TWO_P95, solvers=solvers).slices_used


@pytest.mark.slow
def test_what_time_leaves_open_is_said(solvers: SolverFactory) -> None:
    plan = make_plan(docread_problem(60), solvers=solvers)
    ticks: Iterator[int] = itertools.count()
    found = explained(
        plan, docread_problem(60), Options(time_limit_s=4), solvers=solvers, clock=lambda: float(next(ticks))
    )
    outcomes = [s.effect.outcome for one in found.limits for s in one.steps] + [c.effect.outcome for c in found.choices]
    assert 0 < found.unknown == outcomes.count("unknown") < len(outcomes)
    assert limit(found, "docread.demand_rps").binds is None
    assert found.paths


def test_an_unproven_effect_is_marked(solvers: SolverFactory) -> None:
    plan = make_plan(docread_problem(60), solvers=solvers)
    unproven = replace(plan, solver=replace(plan.solver, status="feasible", gap=0.1))
    found = explained(unproven, docread_problem(60), OPTIONS, solvers=solvers, clock=lambda: 0.0)
    assert not any(choice.effect.proven for choice in found.choices if choice.effect.outcome == "plan")


def test_an_explanation_is_written_as_json(solvers: SolverFactory) -> None:
    _, found = explanation(problem(chain(1, variant_count=2), [row("t0", v) for v in ("v0", "v1")]), solvers)
    data = json.loads(json.dumps(found.to_json()))
    assert data["limits"][0]["requirement"] == "cpu.gpus"
    assert data["limits"][0]["steps"][0]["effect"]["outcome"] == "plan"
    assert data["choices"][0]["instead"][0]["variant"] == "v1"
    assert data["unknown"] == 0


def test_the_explanation_reports_a_mean_accuracy(solvers: SolverFactory) -> None:
    g = chain(1, variant_count=2, slo=Slo(100.0, accuracy=0.95, accuracy_mode="mean"))
    p = problem(g, [row("t0", "v0", rps=50.0), row("t0", "v1", rps=200.0)], demand_rps=240)
    _, found = explanation(p, solvers, TWO_P95)
    assert [path.accuracy for path in found.paths] == pytest.approx([0.95], abs=1e-4)
