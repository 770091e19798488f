"""Solves programs with HiGHS through its own interface: one model for all objectives, each warm-started."""

import math
import time
from typing import Literal

import highspy
import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.solver.program import BOUND_ERROR, FEASIBILITY_TOLERANCE, Objective, Program, Terms
from jigsaw_triton.planner.solver.solver import MIN_OBJECTIVE_S, Outcome, Stage, is_enough

_NEAR = 0.005
"""Relative distance from the objective's known lower bound within which a solution is searched for first. Chosen by
measurement, see ADR 4."""

_NEAR_SHARE = 0.5
"""Share of the time limit that this first search gets. A convention."""

_SEARCHES = (
    "mip_allow_restart",
    "mip_heuristic_run_rins",
    "mip_heuristic_run_rens",
    "mip_heuristic_run_feasibility_jump",
)
"""HiGHS options that are switched off for objectives with a node limit: these have a good warm start, and the searches
take longer than they gain."""

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
"""Column -> True if it is an integer variable."""

_Found = tuple[Values, Stage, bool] | Literal["infeasible", "unknown"]
"""Values, the objective's result, and True if HiGHS finished the objective; or the reason why there is no solution."""

_REAL, _INTEGER = highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger

_INFEASIBLE = (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible)


def solve(program: Program, time_limit_s: float) -> Outcome:
    """Minimises the objectives in lexicographic order within the time limit.

    Raises:
        ValueError: HiGHS rejects the program as malformed, or the solution it returns is worse than what it proves.
    """
    deadline = time.monotonic() + time_limit_s
    model, integer = _model(program), np.array([c.integer for c in program.columns])
    values = np.empty(0)
    stages: list[Stage] = []
    for objective in program.objectives:
        left_s = deadline - time.monotonic()
        if is_enough(program, stages, left_s):
            break
        if stages:
            found = _minimise_next(model, objective, integer, values, max(left_s, MIN_OBJECTIVE_S))
        else:
            found = _minimise_first(model, objective, integer, program.start, max(left_s, MIN_OBJECTIVE_S))
        if isinstance(found, str):
            if not stages:
                return Outcome("infeasible" if found == "infeasible" else "unknown", (), ())
            break
        values, stage, done = found
        stages.append(stage)
        if not done and objective.node_limit is None:
            break
        _add_row(model, objective, -highspy.kHighsInf, stage.value + objective.slack(stage.value))
    return Outcome.of(program, values.tolist(), stages)


def _minimise_first(model: highspy.Highs, objective: Objective, integer: Mask, start: Terms, seconds: float) -> _Found:
    """Minimises the first objective, which has no solution to start from but the program's warm start.

    If a lower bound is known, a solution near it is searched for first: reduced costs of the relaxation narrow the
    bounds of the columns to those that such a solution can have.
    """
    if not math.isfinite(objective.lower_bound):
        return _minimise(model, objective, integer, start, seconds)
    deadline = time.monotonic() + seconds
    relaxed = _solve_relaxation(model, objective, integer, seconds)
    near = objective.lower_bound + _NEAR * abs(objective.lower_bound)
    _add_row(model, objective, objective.lower_bound, highspy.kHighsInf)
    if relaxed is not None and near > relaxed[0]:
        lower, upper = _bounds(model)
        _set_bounds(model, *_reduced_cost_bounds(lower, upper, integer, relaxed[1], near - relaxed[0]))
        found = _minimise(model, objective, integer, start, max(_NEAR_SHARE * seconds, MIN_OBJECTIVE_S))
        is_near = False
        if not isinstance(found, str):
            values, stage, done = found
            is_near, start = stage.value <= near + FEASIBILITY_TOLERANCE, _warm_start(values)
            if is_near and not done:
                # Any better solution lies within the narrowed bounds as well.
                left_s = max(deadline - time.monotonic(), MIN_OBJECTIVE_S)
                better = _minimise(model, objective, integer, start, left_s)
                found = found if isinstance(better, str) else better
        _set_bounds(model, lower, upper)
        if is_near:
            return found
    return _minimise(model, objective, integer, start, max(deadline - time.monotonic(), MIN_OBJECTIVE_S))


def _minimise_next(model: highspy.Highs, objective: Objective, integer: Mask, values: Values, seconds: float) -> _Found:
    """Minimises a later objective, starting from a solution.

    The first step changes only the objective's own columns and fixes the others, which is quick and usually comes near
    the optimum. If the relaxation does not prove that solution optimal, its reduced costs narrow the bounds of the
    columns to those that a solution at least as good can have (reduced cost fixing). HiGHS does this as well, but first
    computes the cost at which each column would be limited to each of its values; with ranges of thousands, that took
    most of the time.
    """
    deadline = time.monotonic() + seconds
    lower, upper = _bounds(model)
    others = integer.copy()
    others[[column for column, _ in objective.terms]] = False
    _set_bounds(model, np.where(others, values, lower), np.where(others, values, upper))
    near = _minimise(model, objective, integer, _warm_start(values), seconds)
    _set_bounds(model, lower, upper)
    if isinstance(near, str):
        left_s = max(deadline - time.monotonic(), MIN_OBJECTIVE_S)
        return _minimise(model, objective, integer, _warm_start(values), left_s)
    values, stage, _ = near
    relaxed = _solve_relaxation(model, objective, integer, max(deadline - time.monotonic(), MIN_OBJECTIVE_S))
    if relaxed is not None:
        bound, costs = relaxed
        gap, tolerance = stage.value - bound, FEASIBILITY_TOLERANCE * max(1.0, abs(bound))
        if gap + tolerance < 1 if objective.integral else gap < objective.slack(stage.value):
            return values, Stage(stage.value, stage.value, proven=True), True
        _set_bounds(model, *_reduced_cost_bounds(lower, upper, integer, costs, gap + tolerance))
    left_s = max(deadline - time.monotonic(), MIN_OBJECTIVE_S)
    found = _minimise(model, objective, integer, _warm_start(values), left_s)
    _set_bounds(model, lower, upper)
    return found


def _solve_relaxation(
    model: highspy.Highs, objective: Objective, integer: Mask, seconds: float
) -> tuple[float, Values] | None:
    """Returns the optimum of the linear relaxation and the columns' reduced costs; None if it was not solved."""
    columns = np.arange(len(integer), dtype=np.int32)
    model.changeColsIntegrality(len(integer), columns, np.array([_REAL] * len(integer)))
    _set_objective(model, objective, np.zeros_like(integer), seconds)
    model.run()
    solved = model.getModelStatus() == highspy.HighsModelStatus.kOptimal
    bound, costs = model.getInfo().objective_function_value, np.array(model.getSolution().col_dual)
    model.changeColsIntegrality(len(integer), columns, np.array([_INTEGER if i else _REAL for i in integer]))
    return (bound, costs) if solved and len(costs) == len(integer) else None


def _reduced_cost_bounds(
    lower: Values, upper: Values, integer: Mask, costs: Values, gap: float
) -> tuple[Values, Values]:
    """Returns the bounds of columns in solutions that exceed the relaxation by no more than `gap`."""
    new_lower, new_upper = lower.copy(), upper.copy()
    rising, falling = integer & (costs > FEASIBILITY_TOLERANCE), integer & (costs < -FEASIBILITY_TOLERANCE)
    most = np.floor(lower[rising] + gap / costs[rising] + FEASIBILITY_TOLERANCE)
    least = np.ceil(upper[falling] + gap / costs[falling] - FEASIBILITY_TOLERANCE)
    new_upper[rising] = np.minimum(upper[rising], most)
    new_lower[falling] = np.maximum(lower[falling], least)
    return new_lower, new_upper


def _minimise(model: highspy.Highs, objective: Objective, integer: Mask, start: Terms, seconds: float) -> _Found:
    """Minimises an objective from a warm start, which may have values of only some columns.

    HiGHS 1.16, when given a warm start, occasionally proves an optimum but returns a worse solution. Then it solves
    again without one.
    """
    for warm_start in (start, ()):
        _set_objective(model, objective, integer, seconds)
        # The warm start comes last, because any change of the model makes HiGHS drop it.
        if warm_start:
            columns, known = zip(*warm_start, strict=True)
            model.setSolution(len(columns), np.array(columns, dtype=np.int32), np.array(known, dtype=np.float64))
        model.run()
        status, info = model.getModelStatus(), model.getInfo()
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return "infeasible" if status in _INFEASIBLE else "unknown"
        values = _solution(model, integer)
        value = sum(values[column] * k for column, k in objective.terms)
        value = round(value) if objective.integral else float(value)
        done = status == highspy.HighsModelStatus.kOptimal
        bound = info.mip_dual_bound if integer.any() else value
        gap = max(objective.gap, objective.relative_gap * abs(value))
        if done and not value <= bound + gap + FEASIBILITY_TOLERANCE * max(1.0, abs(value)):
            model.clearSolver()
            continue
        if objective.integral and math.isfinite(bound):
            bound = math.ceil(bound - BOUND_ERROR)
        # A solver that stops within the requested gap has proven no more than its bound.
        proven = done and not (objective.integral and objective.relative_gap and bound < value)
        return values, Stage(value, value if proven else min(bound, value), proven), done
    raise ValueError("HiGHS returned a solution that is worse than the optimum it proved")


def _model(program: Program) -> highspy.Highs:
    columns, rows = program.columns, program.rows
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(columns), len(rows)
    lp.col_cost_ = np.zeros(len(columns))
    lp.col_lower_ = np.array([c.lower for c in columns])
    lp.col_upper_ = np.array([highspy.kHighsInf if c.upper is None else c.upper for c in columns])
    lp.row_lower_ = np.array([-highspy.kHighsInf if r.lower is None else r.lower for r in rows])
    lp.row_upper_ = np.array([highspy.kHighsInf if r.upper is None else r.upper for r in rows])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.cumsum([0, *(len(r.terms) for r in rows)])
    lp.a_matrix_.index_ = np.array([column for r in rows for column, _ in r.terms], dtype=np.int32)
    lp.a_matrix_.value_ = np.array([k for r in rows for _, k in r.terms], dtype=np.float64)
    lp.integrality_ = [_INTEGER if c.integer else _REAL for c in columns] if any(c.integer for c in columns) else []
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    # HiGHS fails to solve anything once the number of threads changes within a process.
    model.setOptionValue("threads", 1)
    if model.passModel(lp) == highspy.HighsStatus.kError:
        raise ValueError("HiGHS rejects the program as malformed")
    return model


def _set_objective(model: highspy.Highs, objective: Objective, integer: Mask, seconds: float) -> None:
    columns, costs = len(integer), np.zeros(len(integer))
    for column, k in objective.terms:
        costs[column] = k
    model.changeColsCost(columns, np.arange(columns, dtype=np.int32), costs)
    model.setOptionValue("mip_abs_gap", objective.gap)
    model.setOptionValue("mip_rel_gap", objective.relative_gap)
    node_limit = highspy.kHighsIInf if objective.node_limit is None else objective.node_limit
    model.setOptionValue("mip_max_nodes", node_limit)
    for heuristic in _SEARCHES:
        model.setOptionValue(heuristic, objective.node_limit is None)
    # HiGHS 1.16 measures the time limit from the start of this run if the model has integer variables, and otherwise
    # from the start of the model's first run.
    model.setOptionValue("time_limit", seconds if integer.any() else model.getRunTime() + seconds)


def _add_row(model: highspy.Highs, objective: Objective, lower: float, upper: float) -> None:
    """Adds the constraint lower <= objective <= upper."""
    columns = np.array([column for column, _ in objective.terms], dtype=np.int32)
    coefficients = np.array([k for _, k in objective.terms], dtype=np.float64)
    model.addRow(lower, upper, len(columns), columns, coefficients)


def _bounds(model: highspy.Highs) -> tuple[Values, Values]:
    lp = model.getLp()
    return np.array(lp.col_lower_), np.array(lp.col_upper_)


def _set_bounds(model: highspy.Highs, lower: Values, upper: Values) -> None:
    model.changeColsBounds(len(lower), np.arange(len(lower), dtype=np.int32), lower, upper)


def _warm_start(values: Values) -> Terms:
    return tuple(enumerate(values.tolist()))


def _solution(model: highspy.Highs, integer: Mask) -> Values:
    values = np.array(model.getSolution().col_value)
    values[integer] = np.round(values[integer])
    return values
