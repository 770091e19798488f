"""Plans with a price on changes: each running MIG instance that a plan does not keep in place costs compute slices.

The objective is cost of the slices + price x changes, where a slice of the price costs as much as the cluster's compute
slices on average. A change is a running MIG instance, on a GPU that the cluster still has, that the plan does not have
at the same place with the same models, instances and batch size: it goes, moves, or holds something else. New instances
where there is room are no changes.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from jigsaw_triton.planner.candidates.configurations import Configuration, Replica
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.processors import processor_limit
from jigsaw_triton.planner.domain.tolerances import ROUNDING
from jigsaw_triton.planner.formulation.model import allocation
from jigsaw_triton.planner.formulation.objectives import PRICE_GAP
from jigsaw_triton.planner.placement.placement import running_slices
from jigsaw_triton.planner.placement.running_supply import running_supply
from jigsaw_triton.planner.search.choices import (
    Candidates,
    bounds_of,
    every,
    filtered,
    slices_by_board,
    with_these,
    within_slices,
)
from jigsaw_triton.planner.search.incumbent import Solution
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.solver import Outcome, Solver, Stage, solved


def cheapest_change(
    problem: Problem,
    candidates: Candidates,
    staying: Mapping[Replica, int],
    options: Options,
    solver: Solver,
    time: Deadline,
    fewest: Solution,
) -> Solution:
    """Solves the program of slices and changes; the first stage of its outcome is the sum of both.

    The first solve has only the configurations of running replicas and of the plan of the fewest slices. Its objective
    is an upper bound: the second solve leaves out the configurations that no plan within it can use. If time runs out
    before either has a solution, the result is the plan of the fewest slices.

    Args:
        problem: Problem with a running plan.
        candidates: Configurations to choose from, with those of running replicas.
        staying: Number of running replicas of each kind that may stay.
        options: Options with a price on changes.
        solver: Solver to use.
        time: Deadline of both solves.
        fewest: Program of the fewest slices and its outcome, which has a solution.
    """
    running = problem.running
    assert running is not None, "nothing runs that could change"
    model, outcome = fewest
    # The program counts what stays; this constant makes it the price of what changes.
    slice_cost = problem.board_costs.mean
    price = options.change_price * slice_cost
    all_changed = price * sum(map(len, running_slices(problem.cluster, running).values()))
    least = math.ceil(outcome.stages[0].bound - ROUNDING)

    def solved_with(these: Candidates, start: Mapping[Configuration, int]) -> Solution:
        slices = slices_by_board(these)
        made = allocation(
            problem.workloads,
            these,
            [
                running_supply(problem.cluster, board, slices[board.name], running, staying)
                for board in problem.boards
                if board.name in slices
            ],
            running=staying,
            least=least,
            gap=options.gap,
            start=start,
            price=options.change_price,
            slice_cost=slice_cost,
            survive=problem.survive,
            limit=processor_limit(problem),
        )
        return made, _plus(all_changed, solved(solver, made.program, time.left_s), least)

    using = {c for c, column in model.count.items() if round(outcome.values[column]) > 0}
    few = filtered(candidates, lambda c: c in using or c.replica in staying)
    first_model, first = solved_with(few, {})
    limit = first.stages[0].value if first.stages else least + all_changed
    kept = with_these(within_slices(limit, bounds_of(problem.workloads, candidates), candidates), [*every(few)])
    best_model, best = solved_with(kept, first_model.counts(first.values) if first.stages else {})
    if best.stages and not (first.stages and best.stages[0].value > first.stages[0].value + PRICE_GAP * slice_cost):
        return best_model, best
    # Time ran out before the second solve found a plan as good as the first.
    if not first.stages:
        first_model, first = model, _plus(all_changed, replace(outcome, stages=outcome.stages[:1]), least)
    value, bound = first.stages[0].value, best.stages[0].bound if best.stages else float(least)
    stage = Stage(value, min(value, bound), proven=False)
    return first_model, replace(first, status="feasible", stages=(stage, *first.stages[1:]))


def _plus(constant: float, outcome: Outcome, least: int) -> Outcome:
    """Returns the outcome with a constant added to its first stage, whose bound is at least `least`."""
    if not outcome.stages:
        return outcome
    first, *rest = outcome.stages
    first = Stage(first.value + constant, max(first.bound + constant, float(least)), first.proven)
    return replace(outcome, stages=(first, *rest))
