"""Solves programs with CBC through PuLP."""

import math
import time
from dataclasses import dataclass
from typing import Any

import pulp
from pulp.apis.coin_api import pulp_cbc_path

from jigsaw_triton.planner.solver.program import BOUND_ERROR, Objective, Program
from jigsaw_triton.planner.solver.solver import MIN_OBJECTIVE_S, Outcome, Stage, is_enough


@dataclass(frozen=True, slots=True)
class _Answer:
    """Result of one call of CBC.

    Attributes:
        values: Value of each column; None without a solution.
        infeasible: True if it is proven that no solution exists.
        done: True if the solution is optimal within the requested gap.
        bound: Lower bound on the optimum, or infinity if the solution's own value is the bound.
    """

    values: list[float] | None
    infeasible: bool
    done: bool
    bound: float


def solve(program: Program, time_limit_s: float) -> Outcome:
    """Minimises the objectives in lexicographic order within the time limit."""
    deadline = time.monotonic() + time_limit_s
    lp, columns = _problem(program)
    values: list[float] = []
    stages: list[Stage] = []
    for objective in program.objectives:
        left_s = deadline - time.monotonic()
        if is_enough(program, stages, left_s):
            break
        expression = pulp.LpAffineExpression([(columns[c], k) for c, k in objective.terms])
        lp.setObjective(expression)
        if math.isfinite(lower := objective.lower_bound):
            lp.addConstraint(pulp.LpConstraint(expression.copy(), pulp.LpConstraintGE, f"least{len(stages)}", lower))
        answer = _solve_one(lp, objective, max(left_s, MIN_OBJECTIVE_S), columns)
        if answer.values is None:
            if not stages:
                return Outcome("infeasible" if answer.infeasible else "unknown", (), ())
            break
        values = answer.values
        value = sum(values[c] * k for c, k in objective.terms)
        value = round(value) if objective.integral else value
        stages.append(Stage(value, min(answer.bound, value), answer.done and answer.bound >= value))
        upper = value + objective.slack(value)
        lp.addConstraint(pulp.LpConstraint(expression.copy(), pulp.LpConstraintLE, f"stage{len(stages)}", upper))
        if not answer.done and objective.node_limit is None:
            break
    return Outcome.of(program, values, stages)


def _problem(program: Program) -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    lp = pulp.LpProblem("plan", pulp.LpMinimize)
    # PuLP sorts variables by name; zero padding keeps them in our order.
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


def _solve_one(lp: pulp.LpProblem, objective: Objective, seconds: float, columns: list[pulp.LpVariable]) -> _Answer:
    # Do not set the number of threads. Even with one, CBC starts an extra thread and at times waits forever.
    limits = {
        "timeLimit": seconds,
        "gapRel": objective.relative_gap,
        "gapAbs": objective.gap,
        "maxNodes": objective.node_limit,
    }
    lp.solve(pulp.COIN_CMD(path=pulp_cbc_path, msg=False, **limits))
    # `status` is "optimal" even if time ran out at a feasible point; `sol_status` distinguishes the two.
    done = lp.sol_status == pulp.LpSolutionOptimal
    if not done and lp.sol_status != pulp.LpSolutionIntegerFeasible:
        return _Answer(None, lp.sol_status == pulp.LpSolutionInfeasible, False, -math.inf)
    values = [float(v.varValue or 0.0) for v in columns]
    bound = math.inf
    if not done or (objective.integral and objective.relative_gap):
        bound = _relaxed(lp, seconds)
        bound = math.ceil(bound - BOUND_ERROR) if math.isfinite(bound) and objective.integral else bound
    return _Answer(values, False, done, bound)


def _relaxed(lp: pulp.LpProblem, seconds: float) -> float:
    """Returns the optimum of the linear relaxation as a bound, because PuLP does not report CBC's own."""
    lp.solve(pulp.COIN_CMD(path=pulp_cbc_path, mip=False, msg=False, timeLimit=max(seconds, 1.0)))
    return float(pulp.value(lp.objective)) if lp.sol_status == pulp.LpSolutionOptimal else -math.inf
