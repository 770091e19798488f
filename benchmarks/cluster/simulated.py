"""A day on 100 nodes in cells, of which one node is lost each hour, simulated: share of requests late or refused.

The simulation is fluid: between two events, requests arrive at the rate of the trace's second, and each cell answers as
many as its plan carries. In each hour the cells are planned for its busiest second. A node that is lost answers
nothing. Until that is noticed, a request with any call to it is a violation. Then the weight of its cell falls with the
capacity that is left, the cell is planned again on its other nodes, and changes in the steps of the planner, with their
durations. When the node is back, the cell changes back to its first plan.
"""

import asyncio
import math
import random
from dataclasses import dataclass, replace

import numpy as np

from benchmarks import a100, problems
from benchmarks.controller.simulated import FILES, TRACES
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.simulator.accounting import Array
from jigsaw_triton.evaluation.simulator.operation import SOLVE_S
from jigsaw_triton.evaluation.traces import read_trace
from jigsaw_triton.planner.capacity import Service
from jigsaw_triton.planner.cells.model import Cell, Partition
from jigsaw_triton.planner.cells.partition import Cells
from jigsaw_triton.planner.cells.subproblem import subproblem
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, make_largest_plan, make_plan
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.planner.transition.transition import transition

NODES = 100
GPUS_A_NODE = 8
GRAPH = "traffic"
HOUR_S = 3600
LOST_S = 900.0
"""Second of each hour at which a node is lost."""

NOTICED_S = 5.0
"""Seconds until the loss of a node is noticed, and its workers get no more calls."""

AWAY_S = 1800.0
"""Seconds until a lost node is back."""

OPTIONS = Options(time_limit_s=30.0, gap=0.005, standby="off")
SEED = 1602
GOAL = 0.005


@dataclass(frozen=True, slots=True)
class Loss:
    """Loss of a node and what follows, at times in seconds since the start of the hour.

    Attributes:
        cell: Index of the node's cell.
        failing: Share of the cell's requests with a call to the lost node.
        replanned_rps: Capacity of the cell's plan for the other nodes.
        capacities: Time from which the cell has a capacity, and this capacity in requests a second, in order.
    """

    cell: int
    failing: float
    replanned_rps: float
    capacities: tuple[tuple[float, float], ...]


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Simulates the day. A smoke run has eight nodes and two hours."""
    if not a100.TABLE.exists() or not TRACES.exists():
        progress("simulated: skipped: the A100 table and the traces are not beside the checkout")
        return []
    return [await asyncio.to_thread(_measure, progress, effort)]


def _measure(progress: Progress, effort: Effort) -> Figure:
    nodes, hours = max(8, effort.count(NODES)), max(2, effort.count(24))
    problem = problems.a100_problem(GRAPH, nodes * GPUS_A_NODE)
    trace = read_trace(TRACES / FILES["twitter_1s"])
    scale = problem.workloads[0].demand_rps / float(trace.rps.max())
    by_hour = scale * trace.rps[: hours * HOUR_S].reshape(hours, HOUR_S)
    rng = random.Random(SEED)
    missed, fixed, replanned = 0.0, 0.0, []
    with lasting_solvers() as solvers:
        cells = len(Cells(problem, OPTIONS, solvers=solvers).choose().cells)
        for hour, rps in enumerate(by_hour):
            demand = replace(problem.workloads[0], demand_rps=float(rps.max()))
            hourly = replace(problem, workloads=(demand,))
            partition = Cells(hourly, OPTIONS, solvers=solvers).divide(cells)
            index = rng.randrange(cells)
            cell = partition.cells[index]
            loss = _loss(hourly, cell, index, rng.choice(cell.nodes), solvers)
            replanned.append(loss.replanned_rps / cell.plan.graphs[GRAPH].capacity_rps)
            missed += missed_requests(partition, loss, rps)
            fixed += missed_requests(partition, _unnoticed(loss), rps)
            progress(f"simulated: hour {hour}: {partition.slices_used} slices, {missed:.0f} requests missed so far")
    note = (
        f"{GRAPH}, {cells} cells of {nodes} nodes, of which one is lost for {AWAY_S:g} s in each of {hours} hours; "
        f"planned again, its cell has {min(replanned):.2f} to {max(replanned):.2f} of its capacity; baseline: share if "
        "no cell is planned again"
    )
    sent = float(by_hour.sum())
    return figure("cluster.simulated", missed / sent, "share", note, at_most=GOAL, baseline=fixed / sent)


def _loss(problem: Problem, cell: Cell, index: int, node: str, solvers: SolverFactory) -> Loss:
    """Plans the cell without a node, and the changes there and back."""
    without = replace(cell.plan, gpus=tuple(gpu for gpu in cell.plan.gpus if gpu.id.node != node))
    rest = subproblem(problem, [name for name in cell.nodes if name != node], cell.weights, without)
    try:
        second = make_plan(rest, OPTIONS, solvers=solvers)
    except InfeasibleError:
        second = make_largest_plan(rest, OPTIONS, solvers=solvers)
    found = [(LOST_S + NOTICED_S, _carried_rps(rest, without))]
    found += _steps(rest, second, LOST_S + NOTICED_S + SOLVE_S)
    whole = subproblem(problem, cell.nodes, cell.weights, second)
    found += _steps(whole, cell.plan, LOST_S + AWAY_S)
    failing, replanned_rps = _failing(rest, cell.plan, without), second.graphs[GRAPH].capacity_rps
    return Loss(index, failing, replanned_rps, tuple(found))


def _steps(problem: Problem, plan: Plan, now_s: float) -> list[tuple[float, float]]:
    """Returns the capacity during and after each step of a change, and when it begins."""
    found = []
    for step in transition(problem, plan, OPTIONS).steps:
        found.append((now_s, step.during_rps[GRAPH]))
        now_s += step.seconds
        found.append((now_s, step.after_rps[GRAPH]))
    return [*found, (now_s, plan.graphs[GRAPH].capacity_rps)]


def _carried_rps(problem: Problem, plan: Plan) -> float:
    """Returns the capacity of the replicas of a plan."""
    service = Service(replace(problem.prepared(OPTIONS), running=None), plan, OPTIONS)
    return service.after_rps[GRAPH]


def _failing(problem: Problem, plan: Plan, without: Plan) -> float:
    """Returns the share of requests with a call to replicas that are missing in the second plan."""
    service = Service(replace(problem.prepared(OPTIONS), running=None), plan, OPTIONS)

    def rates(of: Plan) -> dict[str, float]:
        total = sum(
            (
                service.rates(placed.models, gpu.model, placed.placement.slice)
                for gpu in of.gpus
                for placed in gpu.layout
            ),
            start=np.zeros_like(service.start),
        )
        return {task: sum(rates.values()) for task, rates in service.by_variant(GRAPH, total).items()}

    before, after = rates(plan), rates(without)
    return 1 - math.prod(after[task] / before[task] for task in before)


def _unnoticed(loss: Loss) -> Loss:
    """Returns a loss after which the cell only loses the node's capacity until the node is back."""
    left, back = loss.capacities[0], loss.capacities[-1]
    return replace(loss, capacities=(left, (LOST_S + AWAY_S, back[1])))


def missed_requests(partition: Partition, loss: Loss, rps: Array) -> float:
    """Returns the number of requests in an hour that are late or refused.

    Args:
        partition: Cells, whose plans have a capacity each.
        loss: Loss of a node.
        rps: Requests in each second.
    """
    full = np.array([cell.plan.graphs[GRAPH].capacity_rps for cell in partition.cells])[:, None]
    events = [LOST_S, *(time for time, _ in loss.capacities)]
    times = np.unique([*range(len(rps) + 1), *(time for time in events if time < len(rps))])
    lengths, load = np.diff(times), rps[times[:-1].astype(int)]
    capacity = np.repeat(full, len(lengths), axis=1)
    starts = np.searchsorted(times[:-1], events)
    for start, (_, carried) in zip(starts[1:], loss.capacities, strict=True):
        capacity[loss.cell, start:] = carried
    weights = np.array([cell.weights[GRAPH] for cell in partition.cells])[:, None] * capacity / full
    offered = load * weights / weights.sum(axis=0)
    missed = np.zeros_like(offered)
    missed[loss.cell, starts[0] : starts[1]] = loss.failing * offered[loss.cell, starts[0] : starts[1]]
    missed += np.maximum(0.0, offered - missed - capacity)
    return float((missed.sum(axis=0) * lengths).sum())
