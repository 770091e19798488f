"""Feasibility: True if a problem has any plan, which takes less time to find than the best plan."""

from dataclasses import replace

from jigsaw_triton.planner.search.attempt import Attempt
from jigsaw_triton.planner.search.choices import complete, with_room
from jigsaw_triton.planner.search.fewest_slices import fewest_slices
from jigsaw_triton.planner.search.first_plan import constructed
from jigsaw_triton.planner.solver.deadline import Deadline

_ANY_GAP = 1e9
"""Relative gap at which every solution counts as optimal."""


def feasible(attempt: Attempt) -> bool | None:
    """Returns True if there is a plan, and None if the time limit ended the search; the limit holds for each solve."""
    attempt = attempt.apart()
    fused = attempt.fused()
    answers = []
    for variant in (attempt,) if fused is None else (fused, attempt):
        answers.append(_feasible(variant))
        if answers[-1]:
            return True
    return None if None in answers else False


def _feasible(attempt: Attempt) -> bool | None:
    candidates = with_room(attempt.problem, attempt.candidates(), attempt.options)
    if not complete(candidates):
        return False
    options = replace(attempt.options, gap=_ANY_GAP)
    time = Deadline(options.time_limit_s)
    found = fewest_slices(attempt.problem, candidates, options, attempt.solver, time, ties=False)
    if found is None or found[1].status == "infeasible":
        return False
    return bool(found[1].stages) or constructed(attempt.whole or attempt) is not None or None
