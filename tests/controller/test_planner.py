from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.core.slowness import Kind
from jigsaw_triton.controller.solving import Planner, planned
from jigsaw_triton.errors import InputError
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


def test_a_file_that_was_edited_is_not_deployed_because_of_the_load(planner: Planner, tmp_path: Path) -> None:
    graph, weights = docread(), tmp_path / "weights.bin"
    tasks = {
        name: replace(task, variants=tuple(replace(v, artifacts={"weights.bin": weights}) for v in task.variants))
        for name, task in graph.tasks.items()
    }
    wanted = replace(WANTED, graphs={"docread": replace(graph, tasks=tasks)})
    planner = replace(planner, identity=lambda path: path.read_text())
    weights.write_text("good")

    def solved(number: int, running: Generation | None, *, by_load: bool) -> Generation:
        demand_rps = {"docread": 5.0 * number}
        action = a.Solve(wanted, demand_rps, number, "test", running, wanted.graphs, may_fall_short=by_load)
        return Generation(wanted, *planner.solve(action, wanted.cluster))

    first = solved(1, None, by_load=False)
    second = solved(2, first, by_load=True)
    weights.write_text("bad")
    with pytest.raises(InputError, match="the file has changed since its graph was deployed") as caught:
        solved(3, second, by_load=True)
    assert caught.value.where == str(weights)
    third = solved(3, second, by_load=False)
    assert solved(4, third, by_load=True).bundle.artifacts == {weights: "bad"}


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


def with_other(folder: Path) -> tuple[Wanted, Path]:
    """Returns the graphs `docread` and `other`, and the file of all models of `other`."""
    weights, graph = folder / "weights.bin", docread(name="other")
    tasks = {
        name: replace(task, variants=tuple(replace(v, artifacts={"weights.bin": weights}) for v in task.variants))
        for name, task in graph.tasks.items()
    }
    graphs = {"docread": docread(), "other": replace(graph, tasks=tasks)}
    profiles, demand_rps = dict.fromkeys(graphs, docread_profiles()), dict.fromkeys(graphs, 5.0)
    return replace(WANTED, graphs=graphs, profiles=profiles, demand_rps=demand_rps), weights


def solved_for(planner: Planner, number: int, wanted: Wanted, running: Generation | None) -> Generation:
    """Solves for a change of the graphs."""
    demand_rps = dict.fromkeys(wanted.graphs, 5.0)
    action = a.Solve(wanted, demand_rps, number, "test", running, wanted.graphs, may_fall_short=running is not None)
    return Generation(wanted, *planner.solve(action, wanted.cluster))


def test_a_file_that_was_edited_prevents_no_change_that_does_not_load_it(planner: Planner, tmp_path: Path) -> None:
    both, weights = with_other(tmp_path)
    planner = replace(planner, identity=lambda path: path.read_text())
    weights.write_text("first")
    running = solved_for(planner, 1, both, None)
    weights.write_text("second")
    alone = replace(both, graphs={"other": both.graphs["other"]})
    found = solved_for(planner, 2, alone, running)
    assert {w.name for w in found.bundle.workers.values()} <= {*running.bundle.workers}
    assert found.bundle.artifacts == {weights: "first"}
    weights.unlink()
    assert solved_for(planner, 3, both, found).bundle.artifacts == {weights: "first"}


def test_files_of_a_graph_that_has_left_may_change_before_it_joins_again(planner: Planner, tmp_path: Path) -> None:
    both, weights = with_other(tmp_path)
    planner = replace(planner, identity=lambda path: path.read_text())
    weights.write_text("first")
    first = solved_for(planner, 1, both, None)
    alone = solved_for(planner, 2, WANTED, first)
    assert alone.bundle.artifacts == {}
    weights.write_text("second")
    assert solved_for(planner, 3, both, alone).bundle.artifacts == {weights: "second"}
