"""Time to plan 20 graphs on 1,000 nodes of eight A100-80GB into cells, from the problem to the text of the plan."""

import asyncio
import os
import random
import time

from benchmarks import problems
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.api.planning import plan_cells
from jigsaw_triton.planner.cells.model import partition_to_text
from jigsaw_triton.planner.domain.problem import Options, with_demand_scaled

NODES = 1000
GPUS_A_NODE = 8
GRAPHS = 20
DEMAND_FACTOR = 165.0
"""Factor on the demands of `problems.many_graphs`, with which they take about two thirds of the slices."""

SEED = 1601
GOAL_S = 60.0


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Plans once. A smoke run has a hundredth of the nodes and of the demand, and three graphs."""
    return [await asyncio.to_thread(_measure, progress, effort)]


def _measure(progress: Progress, effort: Effort) -> Figure:
    nodes, graphs = max(4, effort.count(NODES)), max(3, effort.count(GRAPHS))
    made = problems.many_graphs(random.Random(SEED), graphs, nodes * GPUS_A_NODE)
    names = {workload.graph.name for workload in made.workloads}
    problem = with_demand_scaled(made, names, DEMAND_FACTOR * nodes / NODES)
    began, worked = time.monotonic(), sum(os.times()[:4])
    found = plan_cells(problem, options=Options())
    planned_s, text = time.monotonic() - began, partition_to_text(found)
    seconds = time.monotonic() - began
    proven = sum(cell.plan.solver.status == "optimal" for cell in found.cells)
    note = (
        f"{graphs} graphs of three tasks; {len(found.cells)} cells, of which {proven} are proven optimal; "
        f"{found.slices_used} of {found.slices_total} slices, price over one pool {found.price:.2%}; of the time "
        f"{seconds - planned_s:.1f} s for {len(text) / 1e6:.1f} MB of JSON; processor time, the solver's "
        f"included, {sum(os.times()[:4]) - worked:.0f} s"
    )
    progress(f"planning: {seconds:.1f} s; {note}")
    return figure("cluster.plan_s", seconds, "s", note, at_most=GOAL_S)
