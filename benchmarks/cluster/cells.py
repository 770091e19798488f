"""Price of cells: compute slices of cells over those of one pool, on 100 nodes of eight A100-80GB.

Two numbers of cells are priced: the one that the planner chooses, and that of cells of eight nodes.
"""

import asyncio
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks import problems
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.gpus.gateway import GatewayLimits
from jigsaw_triton.planner.cells.model import Partition
from jigsaw_triton.planner.cells.partition import Cells
from jigsaw_triton.planner.domain.problem import Options, Problem, with_demand_scaled
from jigsaw_triton.planner.solver.solver import lasting_solvers

NODES = 100
GPUS_A_NODE = 8
NODES_A_CELL = 8
OPTIONS = Options(time_limit_s=60.0, gap=0.001, standby="off")
UNLIMITED = GatewayLimits(processors=10**6, workers=10**6)
SEED = 1600

LARGE_SLICES = 3600.0
"""Compute slices that graphs of eight tasks take in one pool at most, roughly."""

SMALL_SLICES = 90.0
"""Compute slices that a small graph takes."""

GOALS = {"3_tasks": 0.01, "8_tasks": 0.04}
"""Name of a figure -> goal for the price of cells."""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Divides the cluster for graphs of three and of eight tasks, and for a small graph beside a large one."""
    return await asyncio.to_thread(lambda: list(_measure(progress, effort)))


def _measure(progress: Progress, effort: Effort) -> Iterator[Figure]:
    for name, instances in _instances(max(32, effort.count(NODES * GPUS_A_NODE)), effort.rounds).items():
        both = [_divided(f"{name}, {label}", problem, progress) for label, problem in instances.items()]
        yield _price(name, [chosen for chosen, _ in both], GOALS.get(name))
        yield _price(f"{name}.8_nodes", [fixed for _, fixed in both], None)


def _price(name: str, found: Sequence[Partition], goal: float | None) -> Figure:
    prices = [partition.price for partition in found]
    cells = [len(partition.cells) for partition in found]
    slices = [partition.slices_used for partition in found]
    proven = sum(cell.plan.solver.gap == 0 for partition in found for cell in partition.cells)
    note = (
        f"largest of {len(found)} instances, {spread(prices)}; {min(cells)} to {max(cells)} cells, {min(slices)} to "
        f"{max(slices)} slices, proven for {proven} of {sum(cells)} cells; baseline: slices of one pool for the same "
        "demand"
    )
    worst = max(found, key=lambda partition: partition.price)
    return figure(f"cluster.cells.{name}", worst.price, "share", note, at_most=goal, baseline=worst.pool_slices)


def _divided(label: str, problem: Problem, progress: Progress) -> tuple[Partition, Partition]:
    """Returns the chosen cells, and cells of about eight nodes, whatever these ask of their gateways."""
    nodes = len({gpu.id.node for gpu in problem.cluster.gpus})
    unlimited = replace(problem, cluster=replace(problem.cluster, gateway_limits=UNLIMITED))
    with lasting_solvers() as solvers:
        found = (
            Cells(problem, OPTIONS, solvers=solvers).choose(),
            Cells(unlimited, OPTIONS, solvers=solvers).divide(math.ceil(nodes / NODES_A_CELL)),
        )
    for partition in found:
        progress(
            f"cells: {label}: {len(partition.cells)} cells, {partition.slices_used} slices, one pool takes "
            f"{partition.pool_slices}, price {partition.price:.2%}"
        )
    return found


def _instances(gpus: int, rounds: int) -> Mapping[str, Mapping[str, Problem]]:
    three = {name: problems.a100_problem(name, gpus) for name in problems.a100_names()}
    three |= {f"made-up {n}": problems.fan_out_problem(random.Random(SEED + n), gpus) for n in range(rounds)}
    large = gpus * 7 / 5600 * LARGE_SLICES
    eight = {
        f"{'tree' if tree else 'chain'} {n}": eight_tasks(SEED + n, gpus, tree=tree, slices=large)
        for n in range(rounds)
        for tree in (False, True)
    }
    mixed = {
        f"made-up {n} and a small tree": _together(
            three[f"made-up {n}"], eight_tasks(SEED + n, gpus, tree=True, slices=gpus * 7 / 5600 * SMALL_SLICES)
        )
        for n in range(rounds)
    }
    return {"3_tasks": three, "8_tasks": eight, "small_graph": mixed}


def eight_tasks(seed: int, gpus: int, *, tree: bool, slices: float) -> Problem:
    """Returns a made-up graph of eight tasks that takes roughly this number of compute slices."""
    found = problems.chain_or_tree(random.Random(seed), 8, tree=tree, gpus=gpus)
    return with_demand_scaled(found, {w.graph.name for w in found.workloads}, slices / SMALL_SLICES)


def _together(problem: Problem, other: Problem) -> Problem:
    return replace(
        problem,
        workloads=(*problem.workloads, *other.workloads),
        profiles={**problem.profiles, **other.profiles},
    )
