"""Plans with the accuracies of pairs of variants that were measured end to end."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.graph.measured import Combination
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Objective, Options, Problem
from jigsaw_triton.planner.explain.conflict import find_conflict
from jigsaw_triton.planner.explain.explain import explained
from jigsaw_triton.planner.search.solve import SolverFactory, make_first_plan, make_largest_plan, make_plan
from jigsaw_triton.planner.standby import with_standby
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, docread_problem, problem, row

OPTIONS = Options()

PAIRS: Mapping[tuple[str, str], float] = {
    ("tiny", "tiny"): 0.45,
    ("tiny", "small"): 0.50,
    ("small", "tiny"): 0.88,
    ("small", "small"): 0.91,
    ("base", "tiny"): 0.60,
    ("base", "small"): 0.95,
}
"""Accuracies of detect and recognise. Unlike their product, `base` with `tiny` does not keep 0.8 of the best, and
`small` with `tiny` keeps 0.92."""


def paired(
    demand_rps: float = 20.0,
    *,
    slo: Slo | None = None,
    accuracy: float = 0.8,
    gpus: int = 2,
    pairs: Mapping[tuple[str, str], float] = PAIRS,
) -> Problem:
    of = docread_problem(demand_rps, gpus=gpus, slo=slo or Slo(400.0, accuracy=accuracy))
    (workload,) = of.workloads
    found = tuple(Combination({"detect": one, "recognise": other}, a) for (one, other), a in pairs.items())
    graph = replace(workload.graph, combinations=found)
    return replace(of, workloads=(replace(workload, graph=graph),))


def used(plan: Plan) -> set[tuple[str, str]]:
    tasks = plan.graphs["docread"].tasks
    return {(one, other) for one in tasks["detect"].mix for other in tasks["recognise"].mix}


def worst(plan: Plan) -> float:
    return min(PAIRS[pair] for pair in used(plan)) / 0.95


def test_a_plan_may_use_a_pair_whose_product_is_too_low(solvers: SolverFactory) -> None:
    """The product of small and tiny is 0.80 of the best; measured it is 0.93."""
    of = paired(accuracy=0.9)
    plan = make_plan(of, OPTIONS, solvers=solvers)
    assert used(plan) == {("small", "tiny")}
    assert plan.graphs["docread"].accuracy == pytest.approx(0.88 / 0.95)
    product = docread_problem(20.0, gpus=2, slo=Slo(400.0, accuracy=0.9))
    assert plan.slices_used < make_plan(product, OPTIONS, solvers=solvers).slices_used


@pytest.mark.parametrize("demand_rps", [1.0, 20.0, 60.0])
@pytest.mark.parametrize("accuracy", [0.55, 0.8, 0.95, 1.0])
def test_no_pair_in_use_is_below_the_slo(demand_rps: float, accuracy: float, solvers: SolverFactory) -> None:
    of = paired(demand_rps, accuracy=accuracy, gpus=6)
    plan = make_plan(of, OPTIONS, solvers=solvers)
    assert worst(plan) >= accuracy - 1e-9
    assert plan.graphs["docread"].accuracy == pytest.approx(worst(plan))
    assert violations(plan, of, OPTIONS) == ()


def test_a_pair_that_was_measured_to_be_too_low_is_an_error_of_the_plan(solvers: SolverFactory) -> None:
    """By product, small with tiny keeps 0.80 of the best; here it was measured to keep half."""
    product = docread_problem(20.0, gpus=2, slo=Slo(400.0, accuracy=0.8))
    plan = make_plan(product, OPTIONS, solvers=solvers)
    assert violations(plan, product, OPTIONS) == ()
    (pair,) = used(plan)
    wrong = violations(plan, paired(pairs={**PAIRS, pair: 0.475}), OPTIONS)
    assert any("the accuracy along a path is 0.5, below 0.8" in text for text in wrong)


@pytest.mark.slow
def test_baselines_and_means_keep_products(solvers: SolverFactory) -> None:
    for of, options in (
        (paired(), Options(features="ST")),
        (paired(), Options(features="AS")),
        (paired(), Options(formulation="paper", latency_model="2p95")),
        (paired(slo=Slo(400.0, accuracy=0.8, accuracy_mode="mean")), OPTIONS),
    ):
        (workload,) = of.workloads
        plain = replace(of, workloads=(replace(workload, graph=replace(workload.graph, combinations=())),))
        plan, without = (make_plan(p, options, solvers=solvers) for p in (of, plain))
        assert plan.graphs["docread"] == without.graphs["docread"]
        assert violations(plan, of, options) == ()


def test_the_first_plan_and_the_largest_keep_the_pairs_too(solvers: SolverFactory) -> None:
    of = paired(accuracy=0.8, gpus=6)
    first = make_first_plan(of, OPTIONS)
    assert first is not None
    largest = make_largest_plan(of, OPTIONS, solvers=solvers)
    for plan in (first, largest):
        assert worst(plan) >= 0.8 - 1e-9
    assert violations(first, of, OPTIONS) == ()


def test_a_shared_plan_with_fused_chains_keeps_the_pairs(solvers: SolverFactory) -> None:
    of, options = paired(1.0, accuracy=0.9, gpus=1), Options(share=True)
    plan = make_plan(of, options, solvers=solvers)
    assert worst(plan) >= 0.9 - 1e-9
    assert violations(plan, of, options) == ()


def test_standby_variants_keep_the_pairs(solvers: SolverFactory) -> None:
    """Beside base with small, tiny alone is too inaccurate at either task by what was measured."""
    of = paired(2.0, accuracy=0.8, gpus=2)
    plan = with_standby(of, make_plan(of, OPTIONS, solvers=solvers), OPTIONS)
    loaded = {
        task: {m.variant for g in plan.gpus for s in g.layout for m in (*s.models, *s.standby) if m.task == task}
        for task in ("detect", "recognise")
    }
    lowest = min(PAIRS[one, other] for one in loaded["detect"] for other in loaded["recognise"]) / 0.95
    assert lowest >= 0.8 - 1e-9
    standby = plan.graphs["docread"].standby
    if standby is not None:
        assert standby.accuracy == pytest.approx(lowest)
    assert violations(plan, of, OPTIONS) == ()


def with_pairs(pairs: Mapping[tuple[str, str], float], *, accuracy: float) -> TaskGraph:
    """Returns a chain of two tasks with the measured accuracies of all pairs of variants."""
    return replace(
        chain(2, variant_count=2, slo=Slo(1000.0, accuracy=accuracy)),
        combinations=tuple(Combination({"t0": one, "t1": other}, a) for (one, other), a in pairs.items()),
    )


@pytest.mark.parametrize("objective", ["slices", "accuracy"])
def test_the_accuracy_of_a_plan_is_as_high_as_by_pairs(objective: Objective, solvers: SolverFactory) -> None:
    """Each variant is in a pair that loses much and in one that loses little, so its own loss does not decide."""
    rows = [row(task, variant, rps=60.0) for task in ("t0", "t1") for variant in ("v0", "v1")]
    if objective == "accuracy":
        rows = [row(r.key.task, r.key.variant, rps=20.0 if r.key.variant == "v0" else 60.0) for r in rows]
    pairs = {("v0", "v0"): 0.8, ("v0", "v1"): 0.5, ("v1", "v0"): 0.5, ("v1", "v1"): 0.6}
    graph = with_pairs(pairs, accuracy=0.5)
    options = replace(TWO_P95, objective=objective)
    of = problem(graph, rows, demand_rps=40.0)
    plan = make_plan(of, options, solvers=solvers)
    assert (plan.graphs["chain"].accuracy, plan.solver.status) == (1.0, "optimal")
    assert violations(plan, of, options) == ()


def test_the_nearest_accuracy_is_that_of_a_measured_pair(solvers: SolverFactory) -> None:
    """Two tasks, 40 calls/s, and 7 slices, of which one carries 10 calls/s of v0 or 30 of v1: 4 + 4 are too many."""
    rows = [row(task, variant, rps=rps) for task in ("t0", "t1") for variant, rps in (("v0", 12.5), ("v1", 37.5))]
    pairs = {("v0", "v0"): 0.5, ("v0", "v1"): 0.46, ("v1", "v0"): 0.3, ("v1", "v1"): 0.2}
    graph = with_pairs(pairs, accuracy=1.0)
    of = problem(graph, rows, demand_rps=40.0)
    with pytest.raises(InfeasibleError) as caught:
        make_plan(of, TWO_P95, solvers=solvers)
    assert caught.value.reasons
    found = find_conflict(of, TWO_P95, solvers=solvers, clock=lambda: 0.0)
    assert found is not None
    assert {str(r): value for r, value in found.nearest.items()}["chain.accuracy"] == pytest.approx(0.92)


def test_an_accuracy_that_no_profiled_pair_reaches_is_a_reason(solvers: SolverFactory) -> None:
    of = paired(accuracy=0.97)
    table = of.profiles["docread"]
    rows = [row for row in table.rows() if (row.key.task, row.key.variant) != ("detect", "base")]
    with pytest.raises(InfeasibleError) as caught:
        make_plan(replace(of, profiles={"docread": ProfileTable(rows)}), OPTIONS, solvers=solvers)
    assert "an accuracy of 0.97 is out of reach" in str(caught.value)
    assert "0.957" in str(caught.value)


@pytest.mark.slow
def test_an_explanation_has_the_measured_accuracy_of_the_path(solvers: SolverFactory) -> None:
    of = paired(accuracy=0.9)
    plan = make_plan(of, OPTIONS, solvers=solvers)
    explanation = explained(plan, of, replace(OPTIONS, time_limit_s=1.0), solvers=solvers, clock=lambda: 0.0)
    assert [path.accuracy for path in explanation.paths] == [pytest.approx(0.88 / 0.95)]
