from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import Artifact
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.core.slowness import Kind
from jigsaw_triton.controller.solving import Planner, planned
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.resources import templates_dir
from tests.fakes.problems import cluster, docread, docread_profiles

WANTED = Wanted({"docread": docread()}, {"docread": 10.0}, {"docread": docread_profiles()}, cluster(4))


@pytest.fixture(scope="module")
def planner() -> Iterator[Planner]:
    with lasting_solvers() as solvers:
        yield Planner(load_templates(templates_dir()), frozenset({"python"}), str, solvers)


def solve(planner: Planner, demand_rps: float, running: Generation | None = None, **more: object) -> Generation:
    number = 1 if running is None else running.bundle.generation + 1
    action = a.Solve(WANTED, {"docread": demand_rps}, number, "test", running, WANTED.graphs)
    return Generation(WANTED, *planner.solve(replace(action, **more), WANTED.cluster))  # type: ignore[arg-type]


def test_a_rise_gets_a_first_plan_and_its_review_one_of_fewer_slices(planner: Planner) -> None:
    low = solve(planner, 5.0)
    first = solve(planner, 55.0, low, first=True, may_fall_short=True)
    assert first.plan.solver.constructed
    assert {*low.bundle.workers} <= {*first.bundle.workers}
    better = solve(planner, 55.0, first, review=True, may_fall_short=True)
    assert better.plan.slices_used < first.plan.slices_used
    assert not better.plan.solver.constructed


def test_a_rise_that_no_first_plan_covers_is_solved(planner: Planner) -> None:
    low = solve(planner, 5.0)
    found = solve(planner, 1000.0, low, first=True, may_fall_short=True)
    assert not found.plan.solver.constructed
    assert 55.0 < found.plan.graphs["docread"].demand_rps < 1000.0


def test_plans_of_a_deployment_read_no_file_of_a_model(planner: Planner) -> None:
    graph, copy = docread(), Path("f" * 64)
    tasks = {
        name: replace(task, variants=tuple(replace(v, artifacts={"weights.bin": copy}) for v in task.variants))
        for name, task in graph.tasks.items()
    }
    wanted = replace(WANTED, graphs={"docread": replace(graph, tasks=tasks)})
    found = solve(replace(planner, identity=Identities()), 5.0, wanted=wanted)
    files = [m.folder.files["1/weights.bin"] for w in found.bundle.workers.values() for m in w.models]
    assert set(files) == {Artifact(copy)}


def test_a_review_that_saves_nothing_returns_what_runs(planner: Planner) -> None:
    running = solve(planner, 20.0)
    again = solve(planner, 20.0, running, review=True, may_fall_short=True)
    assert again.bundle is running.bundle
    assert again.plan is running.plan


@pytest.mark.slow
def test_a_review_with_the_objective_accuracy_need_not_save_slices(planner: Planner) -> None:
    running = solve(planner, 20.0)
    wanted = replace(WANTED, objective="accuracy")
    review = solve(planner, 20.0, running, wanted=wanted, review=True, may_fall_short=True)
    assert review.bundle is not running.bundle


def test_slow_slices_are_planned_with_their_measured_times(planner: Planner) -> None:
    slow = {
        Kind("docread", task, variant, "cpu", slice_): 2.0
        for task, variant in (("detect", "small"), ("detect", "tiny"), ("recognise", "small"), ("recognise", "tiny"))
        for slice_ in ("1g", "2g", "3g", "4g", "7g")
    }
    assert solve(planner, 20.0, slow=slow).plan.slices_used > solve(planner, 20.0).plan.slices_used


def test_slow_slices_are_not_planned_with_more_processor_time(planner: Planner) -> None:
    """Slices of one processor are slow because the machine is full."""
    asked: list[Problem] = []

    def plan(problem: Problem, options: Options, action: a.Solve, solvers: SolverFactory) -> Plan:
        asked.append(problem)
        return planned(problem, options, action, solvers)

    solve(replace(planner, plan=plan), 20.0, slow={Kind("docread", "detect", "small", "cpu", "1g"): 2.0})
    (problem,) = asked
    assert problem.unloaded["docread"] is WANTED.profiles["docread"]
    assert problem.profiles["docread"].rows() != problem.unloaded["docread"].rows()
