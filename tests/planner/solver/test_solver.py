"""The solver processes, for real."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.planner.solver import highs
from jigsaw_triton.planner.solver import solver as solver_module
from jigsaw_triton.planner.solver.program import Column, Draft, Program, SolverName
from jigsaw_triton.planner.solver.solver import SolverFailure, SolverHung, SolverProcess, lasting_solvers

NAMES: tuple[SolverName, ...] = ("highs", "cbc")


def knapsack(least: float) -> Program:
    """2a + 3b + 7c >= least at a cost of 2a + 3b + 6c; among the cheapest the fewest, among those the most a."""
    draft = Draft()
    a, b, c = (draft.integer(10) for _ in range(3))
    draft.at_least(least, [(a, 2), (b, 3), (c, 7)])
    draft.minimise_count([(a, 2), (b, 3), (c, 6)])
    draft.minimise_count([(a, 1), (b, 1), (c, 1)])
    draft.minimise([(a, -1.0)], gap=1e-6)
    return draft.program()


@pytest.fixture(params=NAMES)
def solver(request: pytest.FixtureRequest) -> SolverProcess:
    process = request.getfixturevalue(request.param)
    assert isinstance(process, SolverProcess)
    return process


def test_objectives_in_their_order(solver: SolverProcess) -> None:
    # 13 costs 12 in several ways: 2c, c + 2b, c + 3a. The fewest pieces are 2c.
    outcome = solver.solve(knapsack(13), 10)
    assert outcome.status == "optimal"
    assert [s.value for s in outcome.stages] == pytest.approx([12, 2, 0])
    assert outcome.values == pytest.approx((0, 0, 2))
    assert [s.gap for s in outcome.stages] == [0, 0, 0]


def test_later_objectives_choose_among_the_optima_of_the_earlier(solver: SolverProcess) -> None:
    # 5 costs 5 only as a + b; 6 costs 6 as 3a, 2b or c, of which c is one piece.
    assert solver.solve(knapsack(5), 10).values == pytest.approx((1, 1, 0))
    assert solver.solve(knapsack(6), 10).values == pytest.approx((0, 0, 1))


def at_least(program: Program, least: float) -> Program:
    """The same, of whose first objective it is known that no solution has less."""
    first, *rest = program.objectives
    return replace(program, objectives=(replace(first, least=least), *rest))


@pytest.mark.parametrize("least", [0.0, 1.0, 11.0, 12.0])
def test_what_is_needed_at_least_changes_nothing(solver: SolverProcess, least: float) -> None:
    """Whether the optimum is near that or far from it."""
    outcome, plain = (solver.solve(p, 10) for p in (at_least(knapsack(13), least), knapsack(13)))
    assert (outcome.status, outcome.values) == (plain.status, plain.values)
    assert [(s.value, s.proven) for s in outcome.stages] == [(s.value, s.proven) for s in plain.stages]
    assert solver.solve(at_least(knapsack(121), least), 10).status == "infeasible"


def test_what_is_needed_at_least_is_a_bound(solver: SolverProcess) -> None:
    draft = Draft()
    count = [draft.integer(9) for _ in range(3)]
    draft.at_least(7, [(c, 2.0) for c in count])
    draft.minimise_count([(c, 1.0) for c in count], relative_gap=0.2)
    (stage,) = solver.solve(at_least(draft.program(), 4.0), 10).stages
    assert (stage.value, stage.bound, stage.proven) == (4.0, 4.0, True)


def test_a_solution_near_what_is_needed_is_improved_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    optimised, asked = highs._optimised, list[float]()

    def cut_short(model: Any, objective: Any, whole: Any, start: Any, seconds: float) -> Any:
        asked.append(seconds)
        found = optimised(model, objective, whole, start, seconds)
        assert not isinstance(found, str)
        values, stage, done = found
        return values, replace(stage, proven=False), done and len(asked) > 1

    monkeypatch.setattr(highs, "_optimised", cut_short)
    program = at_least(knapsack(13), 12.0)
    outcome = highs.solve(replace(program, objectives=program.objectives[:1]), 10)
    assert outcome.stages[0].value == 12.0
    assert [round(seconds) for seconds in asked] == [5, 10]


def test_infeasible(solver: SolverProcess) -> None:
    outcome = solver.solve(knapsack(121), 10)
    assert (outcome.status, outcome.values, outcome.stages) == ("infeasible", (), ())


def test_a_program_without_whole_numbers(solver: SolverProcess) -> None:
    draft = Draft()
    x, y = draft.real(), draft.real(4.0)
    draft.equal(10, [(x, 1), (y, 1), (x, 1)])
    draft.minimise([(x, 1.0)], gap=1e-9)
    assert solver.solve(draft.program(), 10).values == pytest.approx((3.0, 4.0))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_later_objective_is_as_good_as_it_can_be(data: st.DataObject) -> None:
    def whole(least: int, most: int) -> list[int]:
        return data.draw(st.lists(st.integers(least, most), min_size=3, max_size=3))

    ranges, needs, costs, ties = whole(1, 12), whole(1, 9), whole(0, 4), whole(-5, 5)
    draft = Draft()
    columns = [draft.integer(most) for most in ranges]
    least = data.draw(st.integers(0, sum(r * n for r, n in zip(ranges, needs, strict=True))))
    draft.at_least(least, list(zip(columns, needs, strict=True)))
    draft.minimise_count([*zip(columns, costs, strict=True)])
    draft.minimise([*zip(columns, map(float, ties), strict=True)], gap=1e-6)
    every = np.stack(np.meshgrid(*(np.arange(r + 1) for r in ranges)), axis=-1).reshape(-1, 3)
    possible = every[every @ needs >= least]
    best = possible[possible @ costs == (possible @ costs).min()]
    outcome = highs.solve(draft.program(), 10)
    assert outcome.status == "optimal"
    assert [s.value for s in outcome.stages] == pytest.approx([(best @ costs).min(), (best @ ties).min()])


def hard() -> Program:
    """Market split: four equations over 30 binaries, slack minimised. No solver proves anything about it in no time."""
    draft = Draft()
    columns = [draft.integer(1) for _ in range(30)]
    slack = []
    for i in range(4):
        weights = [(37 * (j + 3) ** (i + 1) + 11 * i * j) % 100 for j in range(30)]
        over, under = draft.integer(), draft.integer()
        slack += [(over, 1.0), (under, 1.0)]
        terms = [(c, float(w)) for c, w in zip(columns, weights, strict=True)]
        draft.equal(sum(weights) // 2, [*terms, (over, -1.0), (under, 1.0)])
    draft.minimise_count(slack)
    return draft.program()


def test_what_the_time_limit_cuts_short_is_not_called_optimal(solver: SolverProcess) -> None:
    outcome = solver.solve(hard(), 0.5)
    assert outcome.status in ("feasible", "unknown")
    if outcome.stages:
        (stage,) = outcome.stages
        assert not stage.proven
        assert 0 < stage.gap <= 1
        assert stage.bound < stage.value


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with SolverProcess("highs") as process:
        process.solve(knapsack(13), 10)
    assert capfd.readouterr() == ("", "")


def disturbed(disturb: Callable[[int], None]) -> SolverFailure:
    with SolverProcess("highs") as process:
        process.solve(knapsack(5), 10)
        disturb(process.pid)
        with pytest.raises(SolverFailure) as caught:
            process.solve(knapsack(5), 0.01)
    return caught.value


def test_a_solver_that_dies() -> None:
    failure = disturbed(lambda pid: os.kill(pid, signal.SIGKILL))
    assert str(failure) == "HiGHS ended with status -9"


def test_a_solver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_module, "GRACE_S", 0.1)
    assert "did not answer" in str(disturbed(lambda pid: os.kill(pid, signal.SIGSTOP)))


def test_a_solver_that_hung_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_module, "GRACE_S", 0.1)
    with SolverProcess("highs") as process:
        before = process.pid
        os.kill(before, signal.SIGSTOP)
        with pytest.raises(SolverHung):
            process.solve(knapsack(5), 0.01)
        assert process.solve(knapsack(5), 10).status == "optimal"
        assert process.pid != before
    assert not process.alive


def test_each_objective_has_the_time_that_it_is_given() -> None:
    program = hard()
    model, whole = highs._model(program), np.array([c.integer for c in program.columns])
    for seconds in (0.5, 0.1):
        before_s = model.getRunTime()
        highs._optimised(model, program.objectives[0], whole, (), seconds)
        taken_s = model.getRunTime() - before_s
    assert taken_s < 0.4


def test_a_program_that_makes_no_sense(solver: SolverProcess) -> None:
    draft = Draft()
    draft.real()
    draft.minimise([(7, 1.0)], gap=0)
    with pytest.raises(SolverFailure, match="IndexError"):
        solver.solve(draft.program(), 1)
    assert solver.solve(knapsack(5), 10).status == "optimal"


@pytest.mark.parametrize("wrong", [1, 2])
def test_values_that_are_worse_than_what_is_proven_are_not_taken(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    true = highs._solution
    left = [wrong]

    def worse(*arguments: Any) -> Any:
        values = true(*arguments)
        if left[0]:
            left[0] -= 1
            values[0] += 1
        return values

    monkeypatch.setattr(highs, "_solution", worse)
    if wrong == 2:
        with pytest.raises(ValueError, match="proves another value"):
            highs.solve(knapsack(13), 10)
    else:
        assert highs.solve(knapsack(13), 10).values == pytest.approx((0, 0, 2))


def test_a_start_is_only_a_start() -> None:
    for start in (((0, 0.0), (1, 2.0), (2, 1.0)), ((0, 1.0),), ((0, 99.0), (1, 0.0))):
        outcome = highs.solve(replace(knapsack(13), start=start), 10)
        assert outcome.status == "optimal"
        assert outcome.values == pytest.approx((0, 0, 2))


def test_what_is_good_enough_is_taken_with_its_bound(solver: SolverProcess) -> None:
    program, least = hard(), 1000
    # A thousand that any solution takes: beside it the slack, which nothing can be proven of, is soon small enough.
    columns = (*program.columns, Column(float(least), float(least), integer=True))
    first = program.objectives[0]
    first = replace(first, terms=(*first.terms, (len(program.columns), 1.0)), relative_gap=0.05)
    second = replace(first, terms=((0, 1.0),), relative_gap=1.0)
    outcome = solver.solve(replace(program, columns=columns, objectives=(first, second)), 60)
    # With the first objective it was done before the time was over.
    stage, _ = outcome.stages
    assert least <= stage.bound <= stage.value <= 1.05 * stage.bound
    assert stage.proven == (stage.bound == stage.value)
    assert (outcome.status == "optimal") == all(stage.proven for stage in outcome.stages)


def test_an_objective_of_a_few_nodes_is_left_at_what_was_found() -> None:
    program = hard()
    first, *_ = program.objectives
    easy = replace(first, terms=((0, 1.0),))
    outcome = highs.solve(replace(program, objectives=(replace(first, nodes=1), easy)), 30)
    assert outcome.status == "feasible"
    assert [stage.proven for stage in outcome.stages][:1] == [False]


def test_no_process_is_left_behind() -> None:
    with SolverProcess("cbc") as process:
        pid = process.pid
        process.solve(knapsack(5), 10)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_lasting_solvers_go_on_until_they_die() -> None:
    with lasting_solvers() as solvers:
        pids = []
        for _ in range(2):
            with solvers("highs") as process:
                pids.append(process.pid)
        assert pids[0] == pids[1]
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(SolverFailure):
            process.solve(knapsack(5), 10)
        with solvers("highs") as another:
            assert another.solve(knapsack(5), 10).status == "optimal"
    assert not another.alive


def test_a_time_limit_beyond_what_the_kernel_waits_for(solver: SolverProcess) -> None:
    assert solver.solve(knapsack(5), 1e300).status == "optimal"
