"""The plan that changes are worth: each running MIG instance that it does not leave in place costs compute slices.

Minimised are compute slices + price x changes. A change is a MIG instance that runs, on a GPU that the cluster still
has, and that the plan does not have at the same place with the same model, instances and batch: whether it goes, moves,
or comes to hold something else. What the plan adds where there is room is none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.bounds.bounds import least_slices
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, TaskConfigurations
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.formulation.model import PRICE_GAP, Allocation, allocation
from jigsaw_triton.planner.placement.placement import running_slices
from jigsaw_triton.planner.placement.running_supply import running_supply
from jigsaw_triton.planner.solver.solver import Outcome, Solver, Stage, solved

_ROUNDING = 1e-6
"""Of a slice, that a bound may be off by."""


def cheapest_change(
    problem: Problem,
    candidates: Mapping[str, TaskConfigurations],
    staying: Mapping[Replica, int],
    price: float,
    *,
    model: Allocation,
    outcome: Outcome,
    gap: float,
    solver: Solver,
    left_s: Callable[[], float],
) -> tuple[Allocation, Outcome]:
    """The program of slices and changes, solved; its first stage is of both together.

    First with what a plan of few slices uses and what runs. What no plan of as many slices as that comes to can use is
    then left out. Where time runs out before anything is found it is the plan of few slices.

    Args:
        problem: With a plan that runs.
        candidates: Graph name -> task -> configurations, those of the replicas that run included.
        staying: Replicas that run and may stay.
        price: Compute slices for each change; above 0.
        model: Of the program of few slices.
        outcome: Of that program, which has a solution.
        gap: Relative, at which a plan is good enough.
        solver: To ask.
        left_s: Time that is left.
    """
    running = problem.running
    assert running is not None, "nothing runs that could change"
    worth = price * sum(map(len, running_slices(problem.cluster, running).values()))
    least = math.ceil(outcome.stages[0].bound - _ROUNDING)
    using = {c for c, column in model.count.items() if round(outcome.values[column]) > 0}

    def solved_with(
        these: Mapping[str, TaskConfigurations], start: Mapping[Configuration, int]
    ) -> tuple[Allocation, Outcome]:
        made = allocation(
            problem.workloads,
            these,
            [
                running_supply(problem.cluster, board, kinds, running, staying)
                for board in problem.boards
                if (kinds := {c.slice for c in _all(these) if c.board == board.name})
            ],
            running=staying,
            least=least,
            gap=gap,
            start=start,
            price=price,
        )
        return made, _with_price(solved(solver, made.program, left_s()), worth, least)

    few = {
        name: {task: tuple(c for c in of if c in using or c.replica in staying) for task, of in tasks.items()}
        for name, tasks in candidates.items()
    }
    begun, found = solved_with(few, {})
    limit = found.stages[0].value if found.stages else least + worth
    kept = _within(problem.workloads, candidates, few, limit)
    made, best = solved_with(kept, begun.counts(found.values) if found.stages else {})
    if best.stages and not (found.stages and best.stages[0].value > found.stages[0].value + PRICE_GAP):
        return made, best
    # Time ran out before as good a plan was found as the one to begin with, or before any was.
    if not found.stages:
        begun, found = model, _with_price(replace(outcome, stages=outcome.stages[:1]), worth, least)
    value, bound = found.stages[0].value, best.stages[0].bound if best.stages else float(least)
    first = Stage(value, min(value, bound), proven=False)
    return begun, replace(found, status="feasible", stages=(first, *found.stages[1:]))


def _with_price(outcome: Outcome, worth: float, least: int) -> Outcome:
    """The first stage with what all changes together would cost, less what stays."""
    if not outcome.stages:
        return outcome
    first, *rest = outcome.stages
    first = Stage(first.value + worth, max(first.bound + worth, float(least)), first.proven)
    return replace(outcome, stages=(first, *rest))


def _within(
    workloads: Sequence[Workload],
    candidates: Mapping[str, TaskConfigurations],
    few: Mapping[str, TaskConfigurations],
    limit: float,
) -> dict[str, TaskConfigurations]:
    """The few configurations, and those that plans of up to so many slices may use."""
    bounds = {w.graph.name: least_slices(w, candidates[w.graph.name]) for w in workloads}
    over = limit - sum(b.least for b in bounds.values())
    return {
        name: {
            task: tuple(sorted({*of, *few[name][task]}))
            for task, of in bounds[name].within(over + bounds[name].least, tasks).items()
        }
        for name, tasks in candidates.items()
    }


def _all(of: Mapping[str, TaskConfigurations]) -> chain[Configuration]:
    return chain.from_iterable(found for tasks in of.values() for found in tasks.values())
