from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.api.replaying import SteadyTrials, steady_trials
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.replay import Contender
from jigsaw_triton.evaluation.traces import Trace
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, make_largest_plan
from tests.fakes.problems import docread_problem

PROBLEM = docread_problem()
GRAPH = PROBLEM.workloads[0].graph
SHAPE = np.array([0.2, 1.0, 3.0, 0.0, 5.0])
PAPER = Contender("paper")


def tried(trace: Trace, peak: float) -> SteadyTrials:
    return steady_trials(
        GRAPH, trace, contenders=(PAPER,), peak=peak, cluster=PROBLEM.cluster, profiles=PROBLEM.profiles["docread"]
    )


@pytest.mark.slow
def test_a_system_that_cannot_carry_a_load_plans_for_the_most_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []

    def counted(problem: Problem, options: Options, *, solvers: SolverFactory) -> Plan:
        solved.append(problem)
        return make_largest_plan(problem, options, solvers=solvers)

    monkeypatch.setattr("jigsaw_triton.api.replaying.make_largest_plan", counted)
    (system,) = tried(Trace(300.0, SHAPE), 5.0).systems
    assert len(system.trials) == 4
    by_load = sorted(system.trials, key=lambda one: one.load_rps)
    assert [one.slices for one in by_load] == sorted(one.slices for one in by_load)
    assert by_load[0].violation_share < 0.05 < 0.5 < by_load[-1].violation_share
    # Two trials have more load than the GPUs carry, and share their plan.
    assert len(solved) == 1


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ({"docread": Trace(300.0, np.zeros(3))}, "the trace has no requests"),
        ({"docread": Trace(300.0, SHAPE), "other": Trace(60.0, SHAPE)}, "intervals of different lengths"),
        (
            {"docread": Trace(60.0, SHAPE), "other": Trace(60.0, SHAPE[:3])},
            r"different numbers of intervals \(docread 5, other 3\); cut the longer ones to the shortest",
        ),
    ],
)
def test_traces_that_give_no_trials_are_refused(traces: dict[str, Trace], message: str) -> None:
    graphs = [replace(GRAPH, name=name) for name in traces]
    profiles = dict.fromkeys(traces, PROBLEM.profiles["docread"])
    with pytest.raises(InputError, match=message):
        steady_trials(graphs, traces, contenders=(PAPER,), cluster=PROBLEM.cluster, profiles=profiles)
