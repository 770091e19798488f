from collections.abc import Callable
from dataclasses import replace

import pytest

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.simulator import memory as memory_module
from jigsaw_triton.evaluation.simulator.memory import PlanMemory
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.planner.validation.validate import violations
from tests.fakes.problems import TWO_P95, docread_problem

BASE = docread_problem(20)


def asking(demand_rps: float, running: Plan | None = None) -> Problem:
    (workload,) = BASE.workloads
    return replace(BASE, workloads=(replace(workload, demand_rps=demand_rps),), running=running)


def making(made: list[float], problem: Problem, options: Options = TWO_P95) -> Callable[[], Plan]:
    def make() -> Plan:
        made.append(problem.workloads[0].demand_rps)
        return make_plan(problem, options)

    return make


def cost(plan: Plan) -> tuple[int, int, float]:
    return plan.slices_used, plan.gpus_used, round(plan.graphs["docread"].accuracy, 6)


@pytest.mark.slow
def test_remembered_plans_are_valid_and_as_good_as_new_ones() -> None:
    memory, made = PlanMemory(), list[float]()
    for demand_rps in (20, 40, 21, 39, 30, 25, 35, 40, 22, 60, 50, 41):
        problem = asking(demand_rps)
        found = memory.plan(problem, TWO_P95, making(made, problem))
        assert violations(found, problem, TWO_P95) == ()
        assert found.graphs["docread"].demand_rps == demand_rps
        assert cost(found) == cost(make_plan(problem, TWO_P95))
    assert 40 in made
    assert made.count(40) == 1
    assert len(made) < 12


def test_a_plan_is_validated_once_for_the_demands_between_two(monkeypatch: pytest.MonkeyPatch) -> None:
    validated: list[float] = []

    def counting(plan: Plan, problem: Problem, options: Options) -> tuple[str, ...]:
        validated.append(problem.workloads[0].demand_rps)
        return violations(plan, problem, options)

    monkeypatch.setattr(memory_module, "violations", counting)
    memory, made = PlanMemory(), list[float]()
    plans = [memory.plan(asking(rps), TWO_P95, making(made, asking(rps))) for rps in (20.0, 23.0, 21.0, 22.0)]
    assert (made, validated) == ([20.0], [23.0])
    assert {plan.slices_used for plan in plans} == {plans[0].slices_used}


def test_a_plan_that_is_invalid_for_a_demand_is_not_validated_for_a_higher_one(monkeypatch: pytest.MonkeyPatch) -> None:
    validated: list[float] = []

    def refusing(plan: Plan, problem: Problem, options: Options) -> tuple[str, ...]:
        validated.append(problem.workloads[0].demand_rps)
        return ("too much",)

    monkeypatch.setattr(memory_module, "violations", refusing)
    memory, made = PlanMemory(), list[float]()
    for rps in (20.0, 21.0, 22.0):
        memory.plan(asking(rps), TWO_P95, making(made, asking(rps)))
    assert made == [20.0, 21.0, 22.0]
    # The plan for 20 is tried for 21 alone, and that for 21 is tried for 22.
    assert validated == [21.0, 22.0]


def test_a_lower_demand_than_any_known_one_is_planned_anew() -> None:
    memory, made = PlanMemory(), list[float]()
    for demand_rps in (20, 5):
        memory.plan(asking(demand_rps), TWO_P95, making(made, asking(demand_rps)))
    assert made == [20, 5]


def test_a_remembered_plan_is_given_for_the_gpus_on_which_it_runs() -> None:
    memory, made = PlanMemory(), list[float]()
    plan = memory.plan(asking(20), TWO_P95, making(made, asking(20)))
    (gpu,) = plan.gpus
    moved = replace(plan, gpus=(replace(gpu, id=GpuId("a", 1)),))
    again = memory.plan(asking(20, moved), TWO_P95, making(made, asking(20, moved)))
    assert made == [20]
    assert again.gpus == moved.gpus


def test_a_remembered_plan_stays_where_slices_with_standby_variants_run() -> None:
    memory, made = PlanMemory(), list[float]()
    plan = memory.plan(asking(20), TWO_P95, making(made, asking(20)))
    (gpu,) = plan.gpus
    layout = tuple(replace(s, standby=(PlacedModel("docread", "detect", "tiny", 1, 1),)) for s in gpu.layout)
    moved = replace(plan, gpus=(replace(gpu, id=GpuId("a", 1), layout=layout),))
    again = memory.plan(asking(20, moved), TWO_P95, making(made, asking(20, moved)))
    assert [found.id for found in again.gpus] == [GpuId("a", 1)]


def test_other_options_are_planned_anew() -> None:
    memory, made = PlanMemory(), list[float]()
    for options in (TWO_P95, replace(TWO_P95, features="S")):
        memory.plan(asking(20), options, making(made, asking(20), options))
    assert made == [20, 20]


def test_an_error_is_not_remembered() -> None:
    memory = PlanMemory()

    def fails() -> Plan:
        raise InfeasibleError(["no room"])

    with pytest.raises(InfeasibleError, match="no room"):
        memory.plan(asking(20), TWO_P95, fails)
    assert memory.plan(asking(20), TWO_P95, making([], asking(20))).slices_used > 0
