"""Plans of the highest accuracy that the GPUs carry."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import event, given, settings

from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Slo
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan, make_plan
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.layouts import Places, plan_of
from tests.fakes.problems import TWO_P95, problem, row
from tests.planner.test_brute_force import (
    ACCURACY_GAP,
    brute_force,
    lost,
    problems,
    uses_by,
)

GRAPH = chain(1, variant_count=2, slo=Slo(1000, accuracy=0.5))
ACCURATE = replace(TWO_P95, objective="accuracy")
PROFILES = ProfileTable(
    [
        row("t0", "v0", slice_="1g", rps=10 / 0.8),
        row("t0", "v1", slice_="1g", rps=50 / 0.8),
    ]
)
"""The accurate variant carries 10 calls a second on a 1g, the light one 50, with the latency model 2p95."""


def asked(demand_rps: float, before: Places | None = None) -> Problem:
    return problem(GRAPH, PROFILES, demand_rps=demand_rps, running=plan_of(before) if before is not None else None)


def planned(p: Problem, solvers: SolverFactory, options: Options = ACCURATE) -> Plan:
    plan = make_plan(p, options, solvers=solvers)
    assert violations(plan, p, options) == ()
    assert plan.solver.status == "optimal"
    return plan


def replicas(plan: Plan) -> Counter[str]:
    return Counter(m.variant for gpu in plan.gpus for placed in gpu.layout for m in placed.models)


@pytest.mark.parametrize(
    ("demand_rps", "accurate", "light"),
    [
        (8, 1, 0),
        (40, 4, 0),
        # One of the seven slices serves the light variant, which carries what the others leave.
        (75, 6, 1),
        (100, 6, 1),
    ],
)
def test_idle_slices_serve_the_accurate_variant(
    demand_rps: float, accurate: int, light: int, solvers: SolverFactory
) -> None:
    plan = planned(asked(demand_rps), solvers)
    assert replicas(plan) == Counter({"v0": accurate, "v1": light})
    assert plan.slices_used == accurate + light


def test_the_fewest_slices_would_serve_the_light_variant(solvers: SolverFactory) -> None:
    assert replicas(planned(asked(40), solvers, TWO_P95)) == Counter({"v1": 1})


@pytest.mark.parametrize(("price", "variant"), [(0.05, "v0"), (0.2, "v1")])
def test_a_change_has_to_gain_its_price_in_accuracy(price: float, variant: str, solvers: SolverFactory) -> None:
    p = asked(8, {0: {"1g@3": "t0.v1"}})
    plan = planned(p, solvers, replace(ACCURATE, change_price=price))
    # The accurate variant loses nothing, the light one -log(0.9) = 0.105.
    assert (replicas(plan)[variant], plan.graphs["chain"].accuracy) == (1, {"v0": 1.0, "v1": 0.9}[variant])


def test_a_plan_stays_where_it_is_as_the_demand_falls(solvers: SolverFactory) -> None:
    before: Places = {0: {f"1g@{at}": "t0.v0" for at in (1, 3, 5, 6)}}
    plan = planned(asked(35, before), solvers, replace(ACCURATE, change_price=0.001))
    assert sorted(str(s.placement) for s in plan.gpus[0].layout) == ["1g@1", "1g@3", "1g@5", "1g@6"]


def test_without_accuracies_to_choose_from_the_plan_has_the_fewest_slices(solvers: SolverFactory) -> None:
    p = problem(chain(1, slo=Slo(1000, accuracy=0.5)), PROFILES, demand_rps=8)
    assert planned(p, solvers).slices_used == 1


def test_a_problem_without_a_plan_has_none_of_the_highest_accuracy_either(solvers: SolverFactory) -> None:
    assert find_plan(asked(1000), ACCURATE, solvers=solvers) is None


@given(p=problems())
@settings(deadline=None, max_examples=40, derandomize=True)
def test_no_plan_is_more_accurate(p: Problem, solvers: SolverFactory) -> None:
    (workload,) = p.workloads
    best = None if workload.graph.fans_out else brute_force(p, uses_by("2p95", p), accurate=True)
    event("compared" if best else "not compared")
    if best is not None:
        plan = planned(p, solvers)
        loss = lost(plan, workload.graph)
        assert loss <= best.loss + ACCURACY_GAP + 1e-6
        if loss <= best.loss + 1e-6:
            assert plan.slices_used <= best.slices


@pytest.mark.parametrize("other", [Options(share=True), Options(formulation="paper", latency_model="2p95")])
def test_the_highest_accuracy_needs_the_exact_formulation_without_sharing(other: Options) -> None:
    with pytest.raises(InputError, match="the objective `accuracy` does not work with"):
        replace(other, objective="accuracy").checked()
