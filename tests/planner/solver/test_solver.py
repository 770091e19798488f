"""Tests of both solvers in their real processes."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jigsaw_triton
from jigsaw_triton.planner.solver import highs
from jigsaw_triton.planner.solver import solver as solver_module
from jigsaw_triton.planner.solver.program import Column, Draft, Program, SolverName
from jigsaw_triton.planner.solver.solver import SolverFailure, SolverHung, SolverProcess, lasting_solvers

NAMES: tuple[SolverName, ...] = ("highs", "cbc")


def knapsack(least: float) -> Program:
    """2a + 3b + 7c >= least. Objectives: least cost 2a + 3b + 6c, then fewest pieces, then most a."""
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


def test_objectives_are_minimised_in_lexicographic_order(solver: SolverProcess) -> None:
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


def with_lower_bound(program: Program, lower_bound: float) -> Program:
    """The program with a known lower bound on its first objective."""
    first, *rest = program.objectives
    return replace(program, objectives=(replace(first, lower_bound=lower_bound), *rest))


@pytest.mark.parametrize("lower_bound", [0.0, 1.0, 11.0, 12.0])
def test_a_lower_bound_near_or_far_does_not_change_the_optimum(solver: SolverProcess, lower_bound: float) -> None:
    outcome, plain = (solver.solve(p, 10) for p in (with_lower_bound(knapsack(13), lower_bound), knapsack(13)))
    assert (outcome.status, outcome.values) == (plain.status, plain.values)
    assert [(s.value, s.proven) for s in outcome.stages] == [(s.value, s.proven) for s in plain.stages]
    assert solver.solve(with_lower_bound(knapsack(121), lower_bound), 10).status == "infeasible"


def test_a_lower_bound_is_reported_as_the_bound(solver: SolverProcess) -> None:
    draft = Draft()
    count = [draft.integer(9) for _ in range(3)]
    draft.at_least(7, [(c, 2.0) for c in count])
    draft.minimise_count([(c, 1.0) for c in count], relative_gap=0.2)
    (stage,) = solver.solve(with_lower_bound(draft.program(), 4.0), 10).stages
    assert (stage.value, stage.bound, stage.proven) == (4.0, 4.0, True)


def test_a_solution_near_the_lower_bound_is_improved_while_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    minimise, limits = highs._minimise, list[float]()

    def cut_short(model: Any, objective: Any, integer: Any, start: Any, seconds: float) -> Any:
        limits.append(seconds)
        found = minimise(model, objective, integer, start, seconds)
        assert not isinstance(found, str)
        values, stage, done = found
        return values, replace(stage, proven=False), done and len(limits) > 1

    monkeypatch.setattr(highs, "_minimise", cut_short)
    program = with_lower_bound(knapsack(13), 12.0)
    outcome = highs.solve(replace(program, objectives=program.objectives[:1]), 10)
    assert outcome.stages[0].value == 12.0
    assert [round(seconds) for seconds in limits] == [5, 10]


def test_an_infeasible_program_is_reported(solver: SolverProcess) -> None:
    outcome = solver.solve(knapsack(121), 10)
    assert (outcome.status, outcome.values, outcome.stages) == ("infeasible", (), ())


def test_a_program_without_integer_variables_is_solved(solver: SolverProcess) -> None:
    draft = Draft()
    x, y = draft.real(), draft.real(4.0)
    draft.equal(10, [(x, 1), (y, 1), (x, 1)])
    draft.minimise([(x, 1.0)], gap=1e-9)
    assert solver.solve(draft.program(), 10).values == pytest.approx((3.0, 4.0))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_later_objective_matches_enumeration(data: st.DataObject) -> None:
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
    """A market split problem: four equations over 30 binaries, slack minimised. Solvers prove nothing quickly."""
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


@pytest.mark.slow
def test_a_solution_at_the_time_limit_is_not_called_optimal(solver: SolverProcess) -> None:
    outcome = solver.solve(hard(), 0.5)
    assert outcome.status in ("feasible", "unknown")
    if outcome.stages:
        (stage,) = outcome.stages
        assert not stage.proven
        assert 0 < stage.gap <= 1
        assert stage.bound < stage.value


def test_the_solver_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
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


def test_a_solver_that_dies_is_reported() -> None:
    failure = disturbed(lambda pid: os.kill(pid, signal.SIGKILL))
    assert str(failure) == "HiGHS ended with status -9"


def test_a_solver_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_module, "GRACE_S", 0.1)
    assert "did not answer" in str(disturbed(lambda pid: os.kill(pid, signal.SIGSTOP)))


def test_a_solver_that_hung_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_module, "GRACE_S", 0.1)
    with SolverProcess("highs") as process:
        before = process.pid
        os.kill(before, signal.SIGSTOP)
        with pytest.raises(SolverHung):
            process.solve(knapsack(5), 0.01)
        assert process.solve(knapsack(5), 10).status == "optimal"
        assert process.pid != before
    assert not process.alive


@pytest.mark.slow
def test_each_objective_keeps_to_its_own_time_limit() -> None:
    program = hard()
    model, integer = highs._model(program), np.array([c.integer for c in program.columns])
    for seconds in (0.5, 0.1):
        before_s = model.getRunTime()
        highs._minimise(model, program.objectives[0], integer, (), seconds)
        taken_s = model.getRunTime() - before_s
    assert taken_s < 0.4


def test_a_malformed_program_is_an_error(solver: SolverProcess) -> None:
    draft = Draft()
    draft.real()
    draft.minimise([(7, 1.0)], gap=0)
    with pytest.raises(SolverFailure, match="IndexError"):
        solver.solve(draft.program(), 1)
    assert solver.solve(knapsack(5), 10).status == "optimal"


@pytest.mark.parametrize("wrong", [1, 2])
def test_a_solution_worse_than_the_proven_optimum_is_rejected(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
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
        with pytest.raises(ValueError, match="worse than the optimum it proved"):
            highs.solve(knapsack(13), 10)
    else:
        assert highs.solve(knapsack(13), 10).values == pytest.approx((0, 0, 2))


def test_a_warm_start_does_not_change_the_optimum() -> None:
    for start in (((0, 0.0), (1, 2.0), (2, 1.0)), ((0, 1.0),), ((0, 99.0), (1, 0.0))):
        outcome = highs.solve(replace(knapsack(13), start=start), 10)
        assert outcome.status == "optimal"
        assert outcome.values == pytest.approx((0, 0, 2))


def test_a_solution_within_the_relative_gap_is_returned_with_its_bound(solver: SolverProcess) -> None:
    program, least = hard(), 1000
    # Every solution costs a thousand, so the slack, about which nothing can be proven, is soon within the gap.
    columns = (*program.columns, Column(float(least), float(least), integer=True))
    first = program.objectives[0]
    first = replace(first, terms=(*first.terms, (len(program.columns), 1.0)), relative_gap=0.05)
    second = replace(first, terms=((0, 1.0),), relative_gap=1.0)
    outcome = solver.solve(replace(program, columns=columns, objectives=(first, second)), 60)
    # The first objective finished before the time limit, so the second was solved as well.
    stage, _ = outcome.stages
    assert least <= stage.bound <= stage.value <= 1.05 * stage.bound
    assert stage.proven == (stage.bound == stage.value)
    assert (outcome.status == "optimal") == all(stage.proven for stage in outcome.stages)


def test_an_objective_with_a_node_limit_keeps_its_incumbent() -> None:
    program = hard()
    first, *_ = program.objectives
    easy = replace(first, terms=((0, 1.0),))
    outcome = highs.solve(replace(program, objectives=(replace(first, node_limit=1), easy)), 30)
    assert outcome.status == "feasible"
    assert [stage.proven for stage in outcome.stages][:1] == [False]


def test_the_solver_process_ends_with_its_context() -> None:
    with SolverProcess("cbc") as process:
        pid = process.pid
        process.solve(knapsack(5), 10)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_lasting_solvers_are_reused_until_they_die() -> None:
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


def test_a_time_limit_longer_than_the_kernel_can_wait_is_accepted(solver: SolverProcess) -> None:
    assert solver.solve(knapsack(5), 1e300).status == "optimal"


def test_the_answer_of_an_interrupted_request_is_not_taken_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with SolverProcess("highs") as solver:
        expected = solver.solve(knapsack(13), 10)

        def interrupt() -> object:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(solver._process.connection, "recv", interrupt, raising=False)
            with pytest.raises(KeyboardInterrupt):
                solver.solve(knapsack(29), 10)
        assert solver.solve(knapsack(13), 10) == expected


def test_the_solver_process_imports_the_package_of_its_parent() -> None:
    with SolverProcess("highs") as solver:
        # Once the process answers, its exec has taken place, so that the kernel shows its own environment.
        solver.solve(knapsack(13), 10)
        variables = Path(f"/proc/{solver.pid}/environ").read_bytes().split(b"\0")
    (path,) = (text.partition(b"=")[2].decode() for text in variables if text.startswith(b"PYTHONPATH="))
    assert Path(path.split(os.pathsep)[0]) == Path(jigsaw_triton.__file__).parents[1]
