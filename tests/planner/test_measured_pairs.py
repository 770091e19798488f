"""Plans with the accuracies of pairs of variants that were measured end to end."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.graph.measured import Combination
from jigsaw_triton.graph.model import Slo
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.explain.conflict import find_conflict
from jigsaw_triton.planner.explain.explain import explained
from jigsaw_triton.planner.search.solve import SolverFactory, make_first_plan, make_largest_plan, make_plan
from jigsaw_triton.planner.standby import with_standby
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.problems import docread_problem

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


def test_the_nearest_accuracy_is_that_of_a_measured_pair(solvers: SolverFactory) -> None:
    of = paired(60.0, accuracy=1.0, gpus=2)
    with pytest.raises(InfeasibleError) as caught:
        make_plan(of, OPTIONS, solvers=solvers)
    assert caught.value.reasons
    found = find_conflict(of, OPTIONS, solvers=solvers, clock=lambda: 0.0)
    assert found is not None
    nearest = {str(r): value for r, value in found.nearest.items()}["docread.accuracy"]
    assert nearest is not None
    assert min(abs(nearest - a / 0.95) for a in PAIRS.values()) < 1e-6
    (workload,) = of.workloads
    slo = replace(workload.graph.slo, accuracy=nearest)
    eased = replace(of, workloads=(replace(workload, graph=replace(workload.graph, slo=slo)),))
    assert worst(make_plan(eased, OPTIONS, solvers=solvers)) >= nearest - 1e-9


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
