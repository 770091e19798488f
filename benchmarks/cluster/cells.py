"""Price of cells: compute slices of the chosen cells over those of one pool, on 100 nodes of eight A100-80GB."""

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

from benchmarks import problems
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.api.planning import plan_cells
from jigsaw_triton.planner.cells.model import Partition
from jigsaw_triton.planner.domain.problem import Options, Problem, with_demand_scaled

NODES = 100
GPUS_A_NODE = 8
OPTIONS = Options(time_limit_s=20.0)
SEED = 1600

LARGE_SLICES = 2700.0
"""Compute slices that graphs of eight tasks take in one pool, roughly."""

SMALL_SLICES = 90.0
"""Compute slices that a small graph takes."""

GOALS = {"3_tasks": 0.01, "8_tasks": 0.04}
"""Name of a figure -> goal for the price of cells."""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Divides the cluster for graphs of three and of eight tasks, and for a small graph beside a large one."""
    return await asyncio.to_thread(lambda: list(_measure(progress, effort)))


def _measure(progress: Progress, effort: Effort) -> Iterator[Figure]:
    for name, instances in _instances(max(12, effort.count(NODES * GPUS_A_NODE)), effort.rounds).items():
        found = {label: _divided(f"{name}, {label}", problem, progress) for label, problem in instances.items()}
        prices = [partition.price for partition in found.values()]
        cells = [len(partition.cells) for partition in found.values()]
        slices = [partition.slices_used for partition in found.values()]
        note = (
            f"largest of {len(found)} instances, {spread(prices)}; {min(cells)} to {max(cells)} cells, "
            f"{min(slices)} to {max(slices)} slices; baseline: slices of one pool for the same demand"
        )
        worst = max(found.values(), key=lambda partition: partition.price)
        yield figure(
            f"cluster.cells.{name}", worst.price, "share", note, at_most=GOALS.get(name), baseline=worst.pool_slices
        )


def _divided(label: str, problem: Problem, progress: Progress) -> Partition:
    found = plan_cells(problem, options=OPTIONS)
    progress(
        f"cells: {label}: {len(found.cells)} cells, {found.slices_used} slices, one pool takes "
        f"{found.pool_slices}, price {found.price:.2%}"
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
            three[f"made-up {n}"], eight_tasks(SEED + n, gpus, tree=True, slices=SMALL_SLICES)
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
