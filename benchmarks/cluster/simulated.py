"""A day on 100 nodes in cells, of which one node is lost each hour, simulated: share of requests late or refused.

The simulation is fluid: between two events, requests arrive at the rate of the trace's second, and each cell answers as
many as its plan carries. The cells are planned for the busiest second of the day. A node that is lost answers nothing.
Until that is noticed, a request with any call to it is a violation. Then the weight of its cell falls with the
capacity that is left, the cell is planned again on its other nodes, and changes in the steps of the planner, with their
durations. When the node is back, the cell changes back to its first plan.
"""

import asyncio
import math
import random
from collections.abc import Sequence
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
HOUR_S = 3600.0
NOTICED_S = 5.0
"""Seconds until the loss of a node is noticed, and its workers get no more calls."""

AWAY_S = 1800.0
"""Seconds until a lost node is back."""

OPTIONS = Options(time_limit_s=30.0, gap=0.005, standby="off")
SEED = 1602
GOAL = 0.005


@dataclass(frozen=True, slots=True)
class Loss:
    """Loss of a node and what follows, at times in seconds since the start of the trace.

    Attributes:
        cell: Index of the node's cell.
        at_s: Time of the loss.
        failing: Share of the cell's requests with a call to the lost node.
        replanned_rps: Capacity of the cell's plan for the other nodes.
        capacities: Time from which the cell has a capacity, and this capacity in requests a second, in order.
    """

    cell: int
    at_s: float
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
    rng = random.Random(SEED)
    with lasting_solvers() as solvers:
        partition = Cells(problem, OPTIONS, solvers=solvers).choose()
        progress(f"simulated: {len(partition.cells)} cells, price {partition.price:.2%}")
        losses = []
        for hour in range(hours):
            cell = rng.randrange(len(partition.cells))
            node = rng.choice(partition.cells[cell].nodes)
            losses.append(_loss(problem, partition.cells[cell], cell, node, (hour + 0.25) * HOUR_S, solvers))
            progress(f"simulated: hour {hour}: {node} of {partition.cells[cell].name} is lost")
    trace = read_trace(TRACES / FILES["twitter_1s"])
    rps = trace.rps[: round(hours * HOUR_S)] * (problem.workloads[0].demand_rps / float(trace.rps.max()))
    share = violation_share(partition, losses, rps)
    fixed = violation_share(partition, [_unnoticed(loss) for loss in losses], rps)
    replanned = [loss.replanned_rps / partition.cells[loss.cell].plan.graphs[GRAPH].capacity_rps for loss in losses]
    note = (
        f"{GRAPH}, {len(partition.cells)} cells of {nodes} nodes, of which one is lost for {AWAY_S:g} s in each of "
        f"{hours} hours; planned again, its cell carries {min(replanned):.2f} to {max(replanned):.2f} of before; "
        "baseline: share if no cell is planned again"
    )
    return figure("cluster.simulated", share, "share", note, at_most=GOAL, baseline=fixed)


def _loss(problem: Problem, cell: Cell, index: int, node: str, at_s: float, solvers: SolverFactory) -> Loss:
    """Plans the cell without a node, and the changes there and back."""
    without = replace(cell.plan, gpus=tuple(gpu for gpu in cell.plan.gpus if gpu.id.node != node))
    rest = subproblem(problem, [name for name in cell.nodes if name != node], cell.weights, without)
    try:
        second = make_plan(rest, OPTIONS, solvers=solvers)
    except InfeasibleError:
        second = make_largest_plan(rest, OPTIONS, solvers=solvers)
    found = [(at_s + NOTICED_S, _carried_rps(rest, without))]
    now_s = at_s + NOTICED_S + SOLVE_S
    found += _steps(rest, second, now_s)
    whole = subproblem(problem, cell.nodes, cell.weights, second)
    found += _steps(whole, cell.plan, at_s + AWAY_S)
    failing, replanned_rps = _failing(rest, cell.plan, without), second.graphs[GRAPH].capacity_rps
    return Loss(index, at_s, failing, replanned_rps, tuple(found))


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
    return replace(loss, capacities=(left, (loss.at_s + AWAY_S, back[1])))


def violation_share(partition: Partition, losses: Sequence[Loss], rps: Array) -> float:
    """Returns the share of requests that are late or refused.

    Args:
        partition: Cells, whose plans have a capacity each.
        losses: Losses of nodes.
        rps: Requests in each second.
    """
    full = [cell.plan.graphs[GRAPH].capacity_rps for cell in partition.cells]
    events = [time for loss in losses for time in (loss.at_s, *(at_s for at_s, _ in loss.capacities))]
    times = np.unique(np.array([*range(len(rps) + 1), *(time for time in events if time < len(rps))], dtype=np.float64))
    lengths, load = np.diff(times), rps[times[:-1].astype(int)]
    capacity = np.repeat(np.array(full)[:, None], len(lengths), axis=1)
    failing = np.zeros_like(capacity)
    for loss in losses:
        starts = np.searchsorted(times[:-1], [loss.at_s, *(at_s for at_s, _ in loss.capacities)])
        failing[loss.cell, starts[0] : starts[1]] = loss.failing
        for start, (_, carried) in zip(starts[1:], loss.capacities, strict=True):
            capacity[loss.cell, start:] = carried
    weights = np.array([cell.weights[GRAPH] for cell in partition.cells])[:, None] * capacity / np.array(full)[:, None]
    offered = load * weights / weights.sum(axis=0)
    missed = offered * failing
    missed += np.maximum(0.0, offered - missed - capacity)
    return float((missed.sum(axis=0) * lengths).sum() / (load * lengths).sum())
