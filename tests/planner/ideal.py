"""Fewest slices by the whole program with unlimited GPUs, with which lower bounds are compared."""

import math
from dataclasses import replace

from hypothesis import assume

from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.formulation.model import Allocation
from jigsaw_triton.planner.solver.solver import SolverProcess
from tests.fakes.problems import SOLVE_S


def fewest_slices(
    ideal: Allocation, using: Configuration | None, highs: SolverProcess, *, proven: bool = False
) -> float:
    """Returns the fewest slices by a program for unlimited GPUs, with a replica of one configuration if one is given.

    Args:
        ideal: The program.
        using: Configuration that the plan must use; None for none.
        highs: Solver.
        proven: True if the result must be the fewest slices. Otherwise it may be more, if the time runs out: no lower
            bound may exceed that, either.
    """
    columns = list(ideal.program.columns)
    if using is not None:
        columns[ideal.count[using]] = replace(columns[ideal.count[using]], lower=1.0)
    program = replace(ideal.program, columns=tuple(columns), objectives=ideal.program.objectives[:1])
    outcome = highs.solve(program, 30.0 if proven else SOLVE_S)
    assert outcome.status in ("optimal", "infeasible") or not proven
    if not proven:
        assume(outcome.status != "unknown")
    return outcome.stages[0].value if outcome.stages else math.inf
