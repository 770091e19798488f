"""Solves programs with HiGHS, through its own interface: one model for all objectives, each begun from the last."""

import math
import time
from typing import Literal

import highspy
import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.solver.program import EXACT, Objective, Program, Terms
from jigsaw_triton.planner.solver.solver import LEAST_S, Outcome, Stage

_THREADS = 1
"""Always the same: after another number in the same process HiGHS solves nothing any more."""

_ENDLESS = 2**31 - 1

_NEAR = 0.005
"""A solution of so much more, relative, than is known to be needed is near that."""

_NEAR_SHARE = 0.5
"""Of the time, to look for one."""

_SEARCHES = (
    "mip_allow_restart",
    "mip_heuristic_run_rins",
    "mip_heuristic_run_rens",
    "mip_heuristic_run_feasibility_jump",
)
"""What takes longer than it is worth for an objective of limited effort, which has a good solution to begin with."""

Values = NDArray[np.float64]
Whole = NDArray[np.bool_]
"""Column -> whether it is a whole number."""

_Found = tuple[Values, Stage, bool] | Literal["infeasible", "unknown"]
"""Values, what they come to, and whether HiGHS is done with the objective; or that there are none."""

_REAL, _INTEGER = highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger

_NONE = (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible)


def solve(program: Program, time_limit_s: float) -> Outcome:
    """Optimises the objectives in turn, each among the optima of those before, within the time limit.

    Raises:
        ValueError: HiGHS takes the program for malformed, or proves another value than that of what it returns.
    """
    deadline = time.monotonic() + time_limit_s
    model, whole = _model(program), np.array([c.integer for c in program.columns])
    values = np.empty(0)
    stages: list[Stage] = []
    for objective in program.objectives:
        left_s = deadline - time.monotonic()
        if stages and (left_s < LEAST_S or not program.objectives[len(stages) - 1].suffices(stages[-1].value)):
            break
        if stages:
            found = _improved(model, objective, whole, values, max(left_s, LEAST_S))
        else:
            found = _first(model, objective, whole, program.start, max(left_s, LEAST_S))
        if isinstance(found, str):
            if not stages:
                return Outcome("infeasible" if found == "infeasible" else "unknown", (), ())
            break
        values, stage, done = found
        stages.append(stage)
        if not done and objective.nodes is None:
            break
        _hold(model, objective, stage.value)
    proven = len(stages) == len(program.objectives) and all(s.proven for s in stages)
    return Outcome("optimal" if proven else "feasible", tuple(values.tolist()), tuple(stages))


def _first(model: highspy.Highs, objective: Objective, whole: Whole, start: Terms, seconds: float) -> _Found:
    """As `_optimised`; where it is known what is needed at least, a solution near that is looked for first.

    By the relaxation's reduced costs columns have narrow limits there, see `_improved`.
    """
    if not math.isfinite(objective.least):
        return _optimised(model, objective, whole, start, seconds)
    deadline = time.monotonic() + seconds
    relaxed = _relaxed(model, objective, whole, seconds)
    near = objective.least + _NEAR * abs(objective.least)
    _add(model, objective, objective.least, highspy.kHighsInf)
    if relaxed is not None and near > relaxed[0]:
        lower, upper = _bounds(model)
        _limit(model, *_within(lower, upper, whole, relaxed[1], near - relaxed[0]))
        found = _optimised(model, objective, whole, start, max(_NEAR_SHARE * seconds, LEAST_S))
        is_near = False
        if not isinstance(found, str):
            values, stage, done = found
            is_near, start = stage.value <= near + EXACT, _start(values)
            if is_near and not done:
                # What is better than that is near, too.
                better = _optimised(model, objective, whole, start, max(deadline - time.monotonic(), LEAST_S))
                found = found if isinstance(better, str) else better
        _limit(model, lower, upper)
        if is_near:
            return found
    return _optimised(model, objective, whole, start, max(deadline - time.monotonic(), LEAST_S))


def _improved(model: highspy.Highs, objective: Objective, whole: Whole, values: Values, seconds: float) -> _Found:
    """As `_optimised`, from a solution.

    First comes what the objective's own columns can do with the others as they are, which is quick and mostly near the
    optimum. Where the relaxation does not prove it to be that, its reduced costs say what a column can be in a solution
    as good. HiGHS draws that conclusion itself, but only after it has noted at what cost each column would be limited
    to each of its values: with ranges of thousands, that took most of the time.
    """
    deadline = time.monotonic() + seconds
    lower, upper = _bounds(model)
    others = whole.copy()
    others[[column for column, _ in objective.terms]] = False
    _limit(model, np.where(others, values, lower), np.where(others, values, upper))
    near = _optimised(model, objective, whole, _start(values), seconds)
    _limit(model, lower, upper)
    if isinstance(near, str):
        return _optimised(model, objective, whole, _start(values), max(deadline - time.monotonic(), LEAST_S))
    values, stage, _ = near
    relaxed = _relaxed(model, objective, whole, max(deadline - time.monotonic(), LEAST_S))
    if relaxed is not None:
        bound, costs = relaxed
        away, missed = stage.value - bound, EXACT * max(1.0, abs(bound))
        if away + missed < 1 if objective.integral else away < objective.room(stage.value):
            return values, Stage(stage.value, stage.value, proven=True), True
        _limit(model, *_within(lower, upper, whole, costs, away + missed))
    found = _optimised(model, objective, whole, _start(values), max(deadline - time.monotonic(), LEAST_S))
    _limit(model, lower, upper)
    return found


def _relaxed(model: highspy.Highs, objective: Objective, whole: Whole, seconds: float) -> tuple[float, Values] | None:
    """The optimum without regard to whole numbers, and the columns' reduced costs; None where it was not found."""
    columns = np.arange(len(whole), dtype=np.int32)
    model.changeColsIntegrality(len(whole), columns, np.array([_REAL] * len(whole)))
    _aim(model, objective, np.zeros_like(whole), seconds)
    model.run()
    solved = model.getModelStatus() == highspy.HighsModelStatus.kOptimal
    bound, costs = model.getInfo().objective_function_value, np.array(model.getSolution().col_dual)
    model.changeColsIntegrality(len(whole), columns, np.array([_INTEGER if w else _REAL for w in whole]))
    return (bound, costs) if solved and len(costs) == len(whole) else None


def _within(lower: Values, upper: Values, whole: Whole, costs: Values, room: float) -> tuple[Values, Values]:
    """The bounds of columns in solutions that are worse than the relaxation by no more than `room`."""
    least, most = lower.copy(), upper.copy()
    rising, falling = whole & (costs > EXACT), whole & (costs < -EXACT)
    most[rising] = np.minimum(upper[rising], np.floor(lower[rising] + room / costs[rising] + EXACT))
    least[falling] = np.maximum(lower[falling], np.ceil(upper[falling] + room / costs[falling] - EXACT))
    return least, most


def _optimised(model: highspy.Highs, objective: Objective, whole: Whole, start: Terms, seconds: float) -> _Found:
    """The optimum, from values to start with for some or all columns.

    Once in a while HiGHS 1.16, given values to start from, proves an optimum and returns others that are worse. Then it
    has to do without a start.
    """
    for begin in (start, ()):
        _aim(model, objective, whole, seconds)
        # Last: a change of the model makes HiGHS forget its solution.
        if begin:
            columns, known = zip(*begin, strict=True)
            model.setSolution(len(columns), np.array(columns, dtype=np.int32), np.array(known, dtype=np.float64))
        model.run()
        status, info = model.getModelStatus(), model.getInfo()
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return "infeasible" if status in _NONE else "unknown"
        values = _solution(model, whole)
        value = sum(values[column] * k for column, k in objective.terms)
        value = round(value) if objective.integral else float(value)
        done = status == highspy.HighsModelStatus.kOptimal
        bound = info.mip_dual_bound if whole.any() else value
        near = value <= bound + max(objective.gap, objective.relative_gap * abs(value)) + EXACT * max(1.0, abs(value))
        if done and not near:
            model.clearSolver()
            continue
        if objective.integral and math.isfinite(bound):
            bound = math.ceil(bound - 1e-6)
        # Within a gap that was asked for a solver is done, and has proven no more than the bound.
        proven = done and not (objective.integral and objective.relative_gap and bound < value)
        return values, Stage(value, value if proven else min(bound, value), proven), done
    raise ValueError("HiGHS proves another value than that of what it returns")


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
    model.setOptionValue("threads", _THREADS)
    if model.passModel(lp) == highspy.HighsStatus.kError:
        raise ValueError("HiGHS refuses the program")
    return model


def _aim(model: highspy.Highs, objective: Objective, whole: Whole, seconds: float) -> None:
    columns, costs = len(whole), np.zeros(len(whole))
    for column, k in objective.terms:
        costs[column] = k
    model.changeColsCost(columns, np.arange(columns, dtype=np.int32), costs)
    model.setOptionValue("mip_abs_gap", objective.gap)
    model.setOptionValue("mip_rel_gap", objective.relative_gap)
    model.setOptionValue("mip_max_nodes", _ENDLESS if objective.nodes is None else objective.nodes)
    for heuristic in _SEARCHES:
        model.setOptionValue(heuristic, objective.nodes is None)
    # With whole numbers HiGHS 1.16 counts from where a run begins, without them from where the model's first run began.
    model.setOptionValue("time_limit", seconds if whole.any() else model.getRunTime() + seconds)


def _hold(model: highspy.Highs, objective: Objective, value: float) -> None:
    """Keeps the value of an objective from now on."""
    _add(model, objective, -highspy.kHighsInf, value + objective.room(value))


def _add(model: highspy.Highs, objective: Objective, least: float, most: float) -> None:
    columns = np.array([column for column, _ in objective.terms], dtype=np.int32)
    factors = np.array([k for _, k in objective.terms], dtype=np.float64)
    model.addRow(least, most, len(columns), columns, factors)


def _bounds(model: highspy.Highs) -> tuple[Values, Values]:
    lp = model.getLp()
    return np.array(lp.col_lower_), np.array(lp.col_upper_)


def _limit(model: highspy.Highs, lower: Values, upper: Values) -> None:
    model.changeColsBounds(len(lower), np.arange(len(lower), dtype=np.int32), lower, upper)


def _start(values: Values) -> Terms:
    return tuple(enumerate(values.tolist()))


def _solution(model: highspy.Highs, whole: Whole) -> Values:
    values = np.array(model.getSolution().col_value)
    values[whole] = np.round(values[whole])
    return values
