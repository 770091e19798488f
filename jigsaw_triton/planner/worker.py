"""The process that solves: `python -m jigsaw_triton.planner.worker FD`, requests and answers over the connection FD.

Solvers run here, apart from whoever plans, because HiGHS prints a banner on stdout that nothing can switch off, holds
its process until it is done, and must not take a controller with it when it crashes.
"""

import math
import os
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pulp
from pulp.apis.coin_api import pulp_cbc_path

from jigsaw_triton.planner.program import Objective, Program
from jigsaw_triton.planner.solver import Outcome, Request, Stage

_LEAST_S = 0.05
"""A later objective is not tried with less time than this."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of one solve: `values` None where there is no solution; then `infeasible` says whether that is proven."""

    values: list[float] | None
    infeasible: bool
    proven: bool
    bound: float


def solve(request: Request) -> Outcome:
    """Optimises the objectives in turn, each among the optima of those before, within the time limit."""
    deadline = time.monotonic() + request.time_limit_s
    lp, columns = _problem(request.program)
    values: list[float] = []
    stages: list[Stage] = []
    for objective in request.program.objectives:
        left = deadline - time.monotonic()
        if stages and left < _LEAST_S:
            break
        expression = pulp.LpAffineExpression([(columns[c], k) for c, k in objective.terms])
        lp.setObjective(expression)
        answer = _solve_one(lp, objective, request.solver, max(left, _LEAST_S), columns)
        if answer.values is None:
            if not stages:
                return Outcome("infeasible" if answer.infeasible else "unknown", (), ())
            break
        values = answer.values
        value = sum(values[c] * k for c, k in objective.terms)
        value = round(value) if objective.integral else value
        stages.append(Stage(value, min(answer.bound, value), answer.proven))
        room = 0.5 if objective.integral else max(objective.gap, objective.relative_gap * abs(value))
        lp.addConstraint(pulp.LpConstraint(expression.copy(), pulp.LpConstraintLE, f"stage{len(stages)}", value + room))
        if not answer.proven:
            break
    proven = len(stages) == len(request.program.objectives) and all(s.proven for s in stages)
    return Outcome("optimal" if proven else "feasible", tuple(values), tuple(stages))


def _problem(program: Program) -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    lp = pulp.LpProblem("plan", pulp.LpMinimize)
    # PuLP sorts variables by name: the padding keeps them in our order.
    columns = [
        lp.add_variable(f"v{i:07d}", c.lower, c.upper, pulp.LpInteger if c.integer else pulp.LpContinuous)
        for i, c in enumerate(program.columns)
    ]

    def add(name: str, terms: list[tuple[Any, float]], sense: int, bound: float) -> None:
        lp.addConstraint(pulp.LpConstraint(pulp.LpAffineExpression(terms), sense, name, bound))

    for i, row in enumerate(program.rows):
        terms = [(columns[c], k) for c, k in row.terms]
        if row.lower is not None and row.lower == row.upper:
            add(f"r{i}", terms, pulp.LpConstraintEQ, row.lower)
            continue
        if row.lower is not None:
            add(f"l{i}", terms, pulp.LpConstraintGE, row.lower)
        if row.upper is not None:
            add(f"u{i}", terms, pulp.LpConstraintLE, row.upper)
    return lp, columns


def _solve_one(
    lp: pulp.LpProblem, objective: Objective, solver: str, seconds: float, columns: list[pulp.LpVariable]
) -> _Answer:
    common = {"msg": False, "timeLimit": seconds, "gapRel": objective.relative_gap, "gapAbs": objective.gap}
    if solver == "highs":
        # Always the same count: another one in the same process makes HiGHS answer "Not Solved".
        lp.solve(pulp.HiGHS(threads=1, **common))
    else:
        # No count: then CBC uses no threads. With a count of 1 it starts one beside itself and at times waits forever.
        lp.solve(pulp.COIN_CMD(path=pulp_cbc_path, **common))
    # `status` says optimal also where time ran out on a feasible point; `sol_status` tells them apart.
    proven = lp.sol_status == pulp.LpSolutionOptimal
    if not proven and lp.sol_status != pulp.LpSolutionIntegerFeasible:
        return _Answer(None, lp.sol_status == pulp.LpSolutionInfeasible, False, -math.inf)
    values = [float(v.varValue or 0.0) for v in columns]
    if proven:
        bound = math.inf
    elif solver == "highs":
        bound = float(lp.solverModel.getInfo().mip_dual_bound)
    else:
        bound = _relaxed(lp, seconds)
    if math.isfinite(bound) and objective.integral:
        bound = math.ceil(bound - 1e-6)
    return _Answer(values, False, proven, bound)


def _relaxed(lp: pulp.LpProblem, seconds: float) -> float:
    """The bound of the linear relaxation, since CBC's own is nowhere to be read."""
    lp.solve(pulp.COIN_CMD(path=pulp_cbc_path, mip=False, msg=False, timeLimit=max(seconds, 1.0)))
    return float(pulp.value(lp.objective)) if lp.sol_status == pulp.LpSolutionOptimal else -math.inf


def main() -> None:
    """Serves requests until the other end closes."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    connection = Connection(int(sys.argv[1]))
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            connection.send(solve(request))
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
