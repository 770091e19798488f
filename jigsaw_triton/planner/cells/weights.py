"""Weights of cells: which cells serve a graph, and which share of its demand each of them gets.

A graph is in all cells if that costs little, or else in the fewest cells that carry it. In each cell where a graph is,
the replicas of each task are rounded up: half a replica a task is lost on average. For a large graph, that is little;
a small one, divided among many cells, would take several times its slices. Graphs in all cells then level the cells:
they get what the others leave.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import Board, GatewayLimits
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.cells.gateway import GatewayUse, gateway_use
from jigsaw_triton.planner.domain.plan import Plan

SPREAD_PRICE = 0.04
"""Largest estimated price of a graph in all cells, as a share of its slices. A convention."""

PIECE_SHARE = 0.5
"""Largest share of a cell for a graph that is not in all cells. A convention: larger pieces would leave cells uneven.
"""

Weights = Mapping[str, float]
"""Name of a graph in a cell -> share of the graph's demand. Graphs that the cell does not serve are absent."""


@dataclass(frozen=True, slots=True)
class GraphSize:
    """Size of a graph in the plan of one pool.

    Attributes:
        slices: Compute slices of its replicas.
        rounding: Compute slices that are lost on average in each cell where the graph is: half a replica of each task.
        use: What it alone asks of a gateway.
    """

    slices: float
    rounding: float
    use: GatewayUse


def graph_sizes(plan: Plan, graphs: Mapping[str, TaskGraph], boards: Sequence[Board]) -> dict[str, GraphSize]:
    """Returns the size of each graph. A shared slice counts in equal parts for its models.

    Args:
        plan: Plan of one pool.
        graphs: Graphs, by name.
        boards: Boards of the cluster.
    """
    known = {board.name: board for board in boards}
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
            use=gateway_use(graphs, replace(plan, graphs={name: planned})),
        )
    return found


def cells_of_graphs(sizes: Mapping[str, GraphSize], cells: int, limits: GatewayLimits) -> dict[str, int]:
    """Returns the number of cells that serve each graph.

    The largest graph is in all cells, so no cell is empty.

    Args:
        sizes: Size of each graph.
        cells: Number of cells.
        limits: What a gateway carries.
    """
    most = PIECE_SHARE * sum(size.slices for size in sizes.values()) / cells
    largest = max(sizes, key=lambda name: (sizes[name].slices, name))
    found = {}
    for name, size in sizes.items():
        spread = name == largest or size.rounding * cells <= SPREAD_PRICE * size.slices
        fewest = math.ceil(max(1.0, size.slices / most, size.use.load(limits)))
        found[name] = cells if spread else min(cells, fewest)
    return found


def pieces(
    sizes: Mapping[str, GraphSize], counts: Mapping[str, int], cell_slices: Sequence[int]
) -> tuple[tuple[Weights, ...], tuple[float, ...]]:
    """Gives graphs that are not in all cells to cells in equal pieces, the largest first, where most room is left.

    Args:
        sizes: Size of each graph.
        counts: Number of cells that serve each graph.
        cell_slices: Compute slices of each cell.

    Returns:
        Weights of these graphs in each cell, and the slices of the pool's plan that are left for the others there.
    """
    total = sum(size.slices for size in sizes.values())
    room = [total * slices / sum(cell_slices) for slices in cell_slices]
    weights: list[dict[str, float]] = [{} for _ in cell_slices]
    whole = [name for name, count in counts.items() if count < len(cell_slices)]
    for name in sorted(whole, key=lambda name: (-sizes[name].slices / counts[name], name)):
        for cell in sorted(range(len(room)), key=lambda cell: (-room[cell], cell))[: counts[name]]:
            weights[cell][name] = 1 / counts[name]
            room[cell] -= sizes[name].slices / counts[name]
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
