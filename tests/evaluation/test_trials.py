from pathlib import Path

import pytest

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.replay import OURS, Contender
from jigsaw_triton.evaluation.simulator.curves import Measured, planned
from jigsaw_triton.evaluation.trials import Trial, Trials, try_loads
from jigsaw_triton.evaluation.trials_plot import plot
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.solve import make_plan
from tests.fakes.problems import docread_problem

PROBLEM = docread_problem()
LOADS = [{"docread": rps} for rps in (5.0, 40.0, 10.0)]
TRIALS = (Trial(100.0, 0.0, 4, 1.0), Trial(300.0, 40.0, 10, 0.9))


@pytest.mark.slow
def test_each_load_has_a_plan_of_its_own() -> None:
    found = try_loads(OURS, PROBLEM, LOADS, make_plan, planned)
    assert [one.load_rps for one in found.trials] == [5.0, 40.0, 10.0]
    slices = [one.slices for one in found.trials]
    assert slices[0] < slices[1] > slices[2]
    assert [one.violations_rps for one in found.trials] == [0.0, 0.0, 0.0]


@pytest.mark.slow
def test_violations_are_what_the_servers_do_not_answer_on_time() -> None:
    made = make_plan(docread_problem(10.0))

    def plan(_: Problem) -> Plan:
        return made

    found = try_loads(OURS, PROBLEM, [{"docread": 1.0}, {"docread": 100.0}], plan, Measured())
    few, many = found.trials
    assert few.violation_share < 0.01 < 0.5 < many.violation_share


def test_a_system_that_can_serve_nothing_has_a_reason() -> None:
    def refuse(_: Problem) -> Plan:
        raise InfeasibleError(["too tight"], hint="loosen it")

    found = try_loads(Contender("paper", "AT"), PROBLEM, LOADS, refuse, planned)
    assert (found.trials, found.reason) == ((), "too tight")


def test_means_weigh_trials_by_requests_for_violations_and_alike_for_slices() -> None:
    found = Trials(OURS, TRIALS)
    assert (found.violation_share, found.mean_slices, found.mean_accuracy) == pytest.approx((0.1, 7.0, 0.95))


@pytest.mark.slow
def test_the_plot_leaves_out_systems_that_serve_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    served = Trials(OURS, TRIALS)
    plot([served, Trials(Contender("paper", ""), (), "no")], 28, tmp_path / "trials.svg", title="28 slices")
    text = (tmp_path / "trials.svg").read_text()
    assert "exact A+S+T: 25.0%, 10.00% late or refused" in text
    assert "paper none" not in text
