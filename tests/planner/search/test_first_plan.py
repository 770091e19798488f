from contextlib import nullcontext
from dataclasses import replace

import pytest

from jigsaw_triton.gpus.model import Cluster, Placement
from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.plan_reader import plan_from_json
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import (
    SolverFactory,
    has_plan,
    largest_demand,
    make_first_plan,
    make_largest_plan,
    make_plan,
)
from jigsaw_triton.planner.solver.program import Program, SolverName
from jigsaw_triton.planner.solver.solver import Outcome
from jigsaw_triton.planner.validation.validate import violations
from tests.fakes.problems import cluster, docread, docread_problem, docread_profiles


class TooSlow:
    """Solver that finds nothing within any time limit, as on a busy machine."""

    name: SolverName = "highs"

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        return Outcome("unknown", (), ())


def too_slow(name: SolverName) -> nullcontext[TooSlow]:
    return nullcontext(TooSlow())


def first(problem: Problem, options: Options | None = None) -> Plan:
    plan = make_first_plan(problem, options or Options())
    assert plan is not None
    return plan


@pytest.mark.parametrize("features", ["AST", "AS", "ST", "T"])
@pytest.mark.parametrize("demand_rps", [0.5, 20.0, 45.0])
def test_a_first_plan_is_valid_and_near_the_optimum(demand_rps: float, features: str, solvers: SolverFactory) -> None:
    problem, options = docread_problem(demand_rps, gpus=6), Options(features=features)
    plan, best = first(problem, options), make_plan(problem, options, solvers=solvers)
    assert violations(plan, problem, options) == ()
    assert best.slices_used <= plan.slices_used <= 1.5 * best.slices_used
    assert (plan.solver.name, plan.solver.status) == ("first-fit", "feasible")
    assert plan.slices_used * (1 - plan.solver.gap) <= best.slices_used


def test_a_mean_accuracy_is_kept() -> None:
    problem = docread_problem(20.0, slo=Slo(400.0, accuracy=0.9, accuracy_mode="mean"), gpus=4)
    assert violations(first(problem), problem, Options()) == ()


def test_without_an_answer_of_the_solver_the_first_plan_is_the_plan() -> None:
    problem = docread_problem(20.0)
    plan = make_plan(problem, solvers=too_slow)
    assert violations(plan, problem, Options()) == ()
    assert plan.solver.name == "first-fit"
    assert has_plan(problem, solvers=too_slow) is True


@pytest.mark.slow
def test_without_an_answer_of_the_solver_there_is_still_a_capacity(solvers: SolverFactory) -> None:
    problem = docread_problem(20.0)
    largest = largest_demand(problem, solvers=solvers).rps["docread"]
    found = largest_demand(problem, solvers=too_slow)
    assert 0.25 * largest <= found.rps["docread"] <= largest
    assert not found.proven
    plan = make_largest_plan(problem, solvers=too_slow)
    assert plan.graphs["docread"].demand_rps == pytest.approx(found.rps["docread"])
    assert largest <= found.rps["docread"] * (1 + plan.solver.gap) < float("inf")


def test_running_replicas_stay_and_more_of_the_same_join_them(solvers: SolverFactory) -> None:
    running = make_plan(docread_problem(20.0, gpus=3), solvers=solvers)
    problem = docread_problem(45.0, gpus=3, running=running)
    plan = first(problem)
    assert violations(plan, problem, Options()) == ()
    changes = difference(running, plan)
    assert changes
    assert {change.kind for change in changes} == {"add"}
    known = {(s.placement.slice, s.models) for gpu in running.gpus for s in gpu.layout}
    assert {(change.placement.slice, change.after) for change in changes} <= known


def test_a_lower_demand_changes_nothing(solvers: SolverFactory) -> None:
    running = make_plan(docread_problem(20.0), solvers=solvers)
    assert difference(running, first(docread_problem(10.0, running=running))) == ()


def test_instances_of_others_are_left_alone() -> None:
    one, other = cluster(2).gpus
    busy = Cluster((replace(one, foreign=(Placement(0, "4g"),)), other))
    problem = replace(docread_problem(5.0), cluster=busy)
    assert violations(first(problem), problem, Options()) == ()


def test_a_graph_that_joins_another_leaves_it_in_place(solvers: SolverFactory) -> None:
    running = make_plan(docread_problem(10.0, gpus=4), solvers=solvers)
    one, other = docread(), docread(name="other")
    workloads = (Workload(one, 10.0), Workload(other, 5.0))
    problem = Problem(workloads, cluster(4), dict.fromkeys(("docread", "other"), docread_profiles()), running)
    plan = first(problem)
    assert violations(plan, problem, Options()) == ()
    assert {model.graph for change in difference(running, plan) for model in change.after} == {"other"}


def test_a_removed_graph_gives_up_its_slices(solvers: SolverFactory) -> None:
    one, other = docread(), docread(name="other")
    both = Problem(
        (Workload(one, 10.0), Workload(other, 5.0)),
        cluster(4),
        dict.fromkeys(("docread", "other"), docread_profiles()),
    )
    running = make_plan(both, solvers=solvers)
    plan = first(docread_problem(10.0, gpus=4, running=running))
    assert {model.graph for gpu in plan.gpus for placed in gpu.layout for model in placed.models} == {"docread"}


@pytest.mark.parametrize(
    ("demand_rps", "options"),
    [(1000.0, Options()), (20.0, Options(formulation="paper", latency_model="2p95"))],
)
def test_there_may_be_no_first_plan(demand_rps: float, options: Options) -> None:
    assert make_first_plan(docread_problem(demand_rps), options) is None


def test_a_solve_beside_a_running_plan_that_runs_out_of_time_constructs_a_plan() -> None:
    problem = docread_problem(20.0, gpus=4)
    running = first(problem)
    found = make_plan(replace(problem, running=running), solvers=too_slow)
    assert found.solver.constructed
    assert found.gpus == running.gpus


def test_a_constructed_plan_is_read_back_from_its_json() -> None:
    plan = make_first_plan(docread_problem(20), Options())
    assert plan is not None and plan.solver.constructed
    assert plan_from_json(plan.to_json(), where="the plan") == plan
