"""Weights of cells: which cells serve a graph, and which share of its demand each of them gets.

A graph is in all cells or in one. In each cell where a graph is, the replicas of each task are rounded up: half a
replica a task is lost on average. For a large graph, that is little; a small one, divided among many cells, would take
several times its slices. Graphs in all cells then level the cells: they get what the others leave.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.gateway import GatewayLimits
from jigsaw_triton.planner.cells.gateway import GatewayUse, gateway_use
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem

SPREAD_PRICE = 0.04
"""Largest estimated price of a graph in all cells, as a share of its slices. A convention."""

ONE_CELL_SHARE = 0.5
"""Largest share of a cell for a graph that is in one cell. A convention: larger graphs would leave cells uneven."""

Weights = Mapping[str, float]
"""Name of a graph in a cell -> share of the graph's demand. Graphs that the cell does not serve are absent."""


@dataclass(frozen=True, slots=True)
class GraphSize:
    """Size of a graph in the plan of one pool.

    Attributes:
        slices: Compute slices of its replicas.
        rounding: Compute slices that are lost on average in each cell where the graph is: half a replica of each task.
        use: Load that it alone puts on a gateway.
    """

    slices: float
    rounding: float
    use: GatewayUse


def graph_sizes(plan: Plan, problem: Problem) -> dict[str, GraphSize]:
    """Returns the size of each graph. A shared slice counts in equal parts for its models.

    Args:
        plan: Plan of one pool.
        problem: Problem that it solves.
    """
    graphs = {workload.graph.name: workload.graph for workload in problem.workloads}
    known = {board.name: board for board in problem.boards}
    slices: dict[tuple[str, str], list[float]] = {}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            size = known[gpu.model].profiles[placed.placement.slice].compute_slices / len(placed.models)
            for model in placed.models:
                slices.setdefault((model.graph, model.task), []).append(size)
    found = {}
    for name, planned in plan.graphs.items():
        replicas = [slices[name, task] for task in planned.tasks]
        found[name] = GraphSize(
            slices=sum(map(sum, replicas)),
            rounding=sum(sum(sizes) / len(sizes) for sizes in replicas) / 2,
            use=gateway_use(graphs, replace(plan, graphs={name: planned}), problem.cluster.processes),
        )
    return found


def spread_graphs(sizes: Mapping[str, GraphSize], cells: int, limits: GatewayLimits) -> tuple[str, ...]:
    """Returns the names of the graphs that are in all cells; each of the others is in one.

    The largest graph is in all cells, so no cell is empty.

    Args:
        sizes: Size of each graph.
        cells: Number of cells.
        limits: Limits of a gateway.
    """
    most = ONE_CELL_SHARE * sum(size.slices for size in sizes.values()) / cells
    largest = max(sizes, key=lambda name: (sizes[name].slices, name))

    def is_spread(name: str) -> bool:
        size = sizes[name]
        cheap = size.rounding * cells <= SPREAD_PRICE * size.slices
        return cheap or name == largest or size.slices > most or size.use.load(limits) > ONE_CELL_SHARE

    return tuple(name for name in sizes if is_spread(name))


def settled(
    sizes: Mapping[str, GraphSize], spread: Collection[str], cell_slices: Sequence[int]
) -> tuple[tuple[Weights, ...], tuple[float, ...]]:
    """Gives each graph that is in one cell to the cell with the most room left, the largest graph first.

    Args:
        sizes: Size of each graph.
        spread: Names of the graphs that are in all cells.
        cell_slices: Compute slices of each cell.

    Returns:
        Weights of these graphs in each cell, and the slices of the pool's plan that are left for the others there.
    """
    total = sum(size.slices for size in sizes.values())
    room = [total * slices / sum(cell_slices) for slices in cell_slices]
    weights: list[dict[str, float]] = [{} for _ in cell_slices]
    for name in sorted(sizes.keys() - set(spread), key=lambda name: (-sizes[name].slices, name)):
        cell = max(range(len(room)), key=lambda cell: (room[cell], -cell))
        weights[cell][name] = 1.0
        room[cell] -= sizes[name].slices
    return tuple(weights), tuple(max(0.0, left) for left in room)


def levelled(
    given: Sequence[Weights], room: Sequence[float], sizes: Mapping[str, GraphSize], spread: Sequence[str]
) -> tuple[Weights, ...]:
    """Adds the graphs that are in all cells, in proportion to the room that is left.

    A cell with other graphs gets none of them if their rounding would cost more than the room is worth.

    Args:
        given: Weights of the other graphs in each cell.
        room: Room that is left in each cell, in any unit.
        sizes: Size of each graph.
        spread: Names of the graphs that are in all cells.
    """
    slices, rounding = (sum(getattr(sizes[name], key) for name in spread) for key in ("slices", "rounding"))
    least = rounding / slices * sum(room)
    kept = [0.0 if weights and left < least else left for weights, left in zip(given, room, strict=True)]
    kept = kept if any(kept) else [left if left == max(room) else 0.0 for left in room]
    total = math.fsum(kept)
    return tuple(
        {**weights, **(dict.fromkeys(spread, left / total) if left > 0 else {})}
        for weights, left in zip(given, kept, strict=True)
    )
