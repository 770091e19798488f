"""The plan of the highest accuracy: idle slices serve more accurate variants, as far as the cluster has any.

The objective is the loss of accuracy, weighted by the shares of the variants and summed over tasks, then slices. With a
price on changes, each compute slice in use adds the price to the loss, and each running MIG instance that stays in
place takes it off again. So neither a slice nor a change is made for less accuracy than the price.
"""

from dataclasses import replace

from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.processors import processor_limit
from jigsaw_triton.planner.formulation.model import allocation
from jigsaw_triton.planner.placement.running_supply import running_supply
from jigsaw_triton.planner.search.choices import Candidates, numerous, replicas_among, slices_by_board, supplies
from jigsaw_triton.planner.search.incumbent import Solution
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.solver import Solver, solved


def best_accuracy(
    problem: Problem,
    candidates: Candidates,
    options: Options,
    solver: Solver,
    time: Deadline,
    fewest: Solution,
) -> Solution:
    """Solves the program of the least loss; the first stage of its outcome is the loss with all prices.

    If time runs out before it has a solution, the result is the plan of the fewest slices.

    Args:
        problem: Problem to plan for.
        candidates: Configurations to choose from, with those of running replicas if changes have a price.
        options: Options of planning.
        solver: Solver to use.
        time: Deadline of the solve.
        fewest: Program of the fewest slices and its outcome, which has a solution.
    """
    model, outcome = fewest
    among = numerous(problem.workloads, candidates)
    running, staying, slices = problem.running, replicas_among(problem, among), slices_by_board(among)
    if options.change_price and staying and running is not None:
        boards = [board for board in problem.boards if board.name in slices]
        offered = [running_supply(problem.cluster, b, slices[b.name], running, staying) for b in boards]
    else:
        offered = supplies(problem, among, options)
    made = allocation(
        problem.workloads,
        among,
        offered,
        "accurate",
        running=staying,
        start=model.counts(outcome.values),
        price=options.change_price,
        slice_cost=problem.board_costs.mean,
        survive=problem.survive,
        limit=processor_limit(problem),
    )
    best = solved(solver, made.program, time.left_s)
    if best.stages:
        return made, best
    return model, replace(outcome, status="feasible")
