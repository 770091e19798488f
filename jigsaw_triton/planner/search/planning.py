"""From an allotment to a plan: budgets, routing shares and places, checked independently."""

from dataclasses import replace

from jigsaw_triton.planner.candidates.configurations import by_load
from jigsaw_triton.planner.domain.gateway_load import call_megabytes
from jigsaw_triton.planner.domain.plan import Plan, PlannedGpu, PlanSurvival, SolverReport
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.domain.processors import processor_limit
from jigsaw_triton.planner.domain.survival import together
from jigsaw_triton.planner.formulation.extraction import Counts, flows, graph_plan
from jigsaw_triton.planner.placement.greedy import everything_placed
from jigsaw_triton.planner.placement.placement import placement
from jigsaw_triton.planner.placement.spread import spread
from jigsaw_triton.planner.search.allotment import Allotment
from jigsaw_triton.planner.search.attempt import Attempt
from jigsaw_triton.planner.search.survivors import left_rps, lost_capacity, processor_loads, survival
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.program import Program
from jigsaw_triton.planner.solver.solver import SOLVER_TITLES, Solver, SolverFailure, solved
from jigsaw_triton.planner.validation.validate import violations

_LEAST_S = 5.0
"""Seconds that flows and placement get even after the deadline. A convention: a solution exists, and if the solver does
not find it on a busy machine, the other solver repeats the whole search."""


def plan_of(attempt: Attempt, allotment: Allotment, time: Deadline, unprotected: Allotment | None = None) -> Plan:
    """Returns the plan of an allotment.

    Args:
        attempt: Attempt with failure domains apart, if plans must survive the loss of one.
        allotment: Allotment of the attempt.
        time: Deadline of the whole search.
        unprotected: Best allotment that need not survive a loss, if it is known.

    Raises:
        UnplacedError: The paper's greedy placement found no place for a slice.
        SolverFailure: The plan is invalid.
    """
    problem, options, counts = (attempt.whole or attempt).problem, attempt.options, allotment.counts
    rates = _rates(attempt, problem, counts, time)
    gpus = together(_placed(attempt, allotment, time))
    loads, even = by_load(counts, attempt.configurations), "T" not in options.features
    spare = problem.survive > 0
    plan = Plan(
        graphs={
            w.graph.name: graph_plan(w, counts, rates, loads=loads, even=even, spare=spare) for w in problem.workloads
        },
        gpus=gpus,
        slices_used=allotment.slices,
        slices_total=problem.cluster.compute_slices,
        gpus_used=len(gpus),
        features=options.features,
        formulation=options.formulation,
        latency_model=options.latency_model,
        solver=SolverReport(
            name=SOLVER_TITLES[attempt.solver.name],
            status=allotment.outcome.status,
            seconds=round(time.spent_s, 3),
            gap=allotment.outcome.stages[0].gap,
        ),
        cost=problem.cost_of(gpus),
    )
    wrong = list(violations(plan, problem, options))
    if spare and not wrong:
        plan = replace(plan, survival=_with_price(survival(plan, problem, options), plan, allotment, unprotected))
        wrong += lost_capacity(plan, problem, options)
    if wrong:
        raise SolverFailure(f"{SOLVER_TITLES[attempt.solver.name]} returned an invalid plan: {'; '.join(wrong)}")
    return plan


def spread_over_nodes(plan: Plan, attempt: Attempt, time: Deadline) -> Plan:
    """Returns the plan with its slices on other nodes, if processors of a node do not carry it, or what a loss leaves.

    It may then have more slices. It stays as it is if a loss would leave less than it must otherwise.
    """
    problem, options = attempt.problem, attempt.options
    if not any(load.exceeded for load in processor_loads(plan, problem)):
        return plan
    made = spread(plan, problem, lambda one: min(load.scale() for load in processor_loads(one, problem)), time)
    if any((*violations(made, problem, options), *lost_capacity(made, problem, options))):
        return plan
    if plan.survival is not None:
        more = plan.survival.more_slices
        more = more + made.slices_used - plan.slices_used if more is not None else None
        kept = replace(plan.survival, left_rps=left_rps(made, problem, options), more_slices=more)
        made = replace(made, survival=kept)
    return unproven(made, gap_by(plan, made, attempt)) if made.slices_used > plan.slices_used else made


def gap_by(plan: Plan, other: Plan, attempt: Attempt) -> float:
    """Returns the relative gap of another plan to the bound of one; 1 if the objective is not the cost."""
    if attempt.options.objective != "slices" or attempt.options.change_price:
        return 1.0
    costs = attempt.problem.board_costs
    return 1 - costs.units(plan) * (1 - plan.solver.gap) / costs.units(other)


def unproven(plan: Plan, gap: float) -> Plan:
    """Returns the plan as one that may not be optimal."""
    return replace(plan, solver=replace(plan.solver, status="feasible", gap=max(gap, plan.solver.gap)))


def _with_price(
    found: PlanSurvival | None, plan: Plan, allotment: Allotment, unprotected: Allotment | None
) -> PlanSurvival | None:
    """Returns a survival with what it takes beyond the best allotment that need not survive a loss."""
    if found is None or unprotected is None:
        return found
    unit = plan.cost.used / allotment.cost if plan.cost is not None else None
    return replace(
        found,
        more_slices=allotment.slices - unprotected.slices,
        more_cost=None if unit is None else (allotment.cost - unprotected.cost) * unit,
    )


def _rates(attempt: Attempt, problem: Problem, counts: Counts, time: Deadline) -> dict[tuple[str, str, str], float]:
    """Returns the calls of each variant for a request: within what the processors carry, if that is possible."""
    limit = processor_limit(problem)
    if limit is not None:
        flow = flows(problem.workloads, counts, limit, problem.survive)
        outcome = solved(attempt.solver, flow.program, max(_LEAST_S, time.left_s))
        if outcome.stages:
            return flow.calls(outcome.values)
    flow = flows(problem.workloads, counts, survive=problem.survive)
    return flow.calls(_values(attempt.solver, flow.program, time))


def _placed(attempt: Attempt, allotment: Allotment, time: Deadline) -> tuple[PlannedGpu, ...]:
    cluster = attempt.problem.cluster
    if attempt.options.ideal_packing:
        return everything_placed(cluster, allotment.counts)
    megabytes = {
        (w.graph.name, task.name, variant.name): call_megabytes(w.graph, task.name, variant.name)
        for w in attempt.problem.workloads
        for task in w.graph.tasks.values()
        for variant in task.variants
    }
    where = placement(cluster, allotment.alone, allotment.gpus, attempt.problem.running, allotment.shared, megabytes)
    return where.placed(_values(attempt.solver, where.program, time))


def _values(solver: Solver, program: Program, time: Deadline) -> tuple[float, ...]:
    """Returns the solution of a program that is known to have one."""
    outcome = solved(solver, program, max(_LEAST_S, time.left_s))
    if not outcome.stages:
        raise SolverFailure(f"{SOLVER_TITLES[solver.name]} reported {outcome.status} for a program that has a solution")
    return outcome.values
