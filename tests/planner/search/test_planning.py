"""Programs that turn an allotment into a plan."""

from jigsaw_triton.planner.search.planning import _LEAST_S, _values
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.program import Draft, Program, SolverName
from jigsaw_triton.planner.solver.solver import Outcome, Stage


class Noting:
    """A solver that notes its time limits."""

    name: SolverName = "highs"

    def __init__(self) -> None:
        self.limits_s: list[float] = []

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        self.limits_s.append(time_limit_s)
        return Outcome("optimal", (0.0,), (Stage(0.0, 0.0, proven=True),))


def test_a_program_with_a_solution_gets_time_after_the_deadline_too() -> None:
    draft, solver = Draft(), Noting()
    draft.minimise_count([(draft.integer(1), 1.0)])
    for limit_s in (0.0, 60.0):
        assert _values(solver, draft.program(), Deadline(limit_s)) == (0.0,)
    assert solver.limits_s[0] == _LEAST_S
    assert solver.limits_s[1] > 50.0
