"""A partition into cells as tables, totals, and a drawing of the GPUs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import fsum

from jigsaw_triton.api.machine import emulation
from jigsaw_triton.cli.io.output import View, drawing, figures, listed
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.plan import graphs_view, survival_view
from jigsaw_triton.gpus.board import Strip, draw_text
from jigsaw_triton.gpus.model import Cluster, Gpu
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.cells.model import Cell, Partition
from jigsaw_triton.planner.cells.partition import Alternative
from jigsaw_triton.planner.domain.picture import strips

_MOST_NAMES = 3
"""Number of names up to which all cells, nodes or weights of a row are listed."""


def partition_view(
    partition: Partition, graphs: Mapping[str, TaskGraph], cluster: Cluster, *, width: int
) -> Iterator[View]:
    """Yields the parts of the view, to be printed one below the other. Cells with equal plans are described once.

    Args:
        partition: The partition.
        graphs: Graphs, by name.
        cluster: Cluster that was divided.
        width: Number of columns for the drawing.
    """
    groups = _alike(partition.cells)
    for group in groups:
        yield f"{_names([cell.name for cell in group])}:"
        yield from graphs_view(group[0].plan, graphs)
        yield from survival_view(group[0].plan)
    yield _graphs(partition)
    yield ""
    yield _cells(groups, cluster)
    yield ""
    yield _totals(partition, cluster)
    yield ""
    yield drawing(draw_text(cell_strips(partition, cluster), width=width))
    if words := emulation(cluster):
        yield words


def cell_strips(partition: Partition, cluster: Cluster) -> list[Strip]:
    """Returns all GPUs of the cluster for a drawing, cell by cell."""
    everything = {name: plan for cell in partition.cells for name, plan in cell.plan.graphs.items()}
    nodes = {node: cell for cell in partition.cells for node in cell.nodes}
    gpus: dict[str, list[Gpu]] = {}
    for gpu in cluster.gpus:
        gpus.setdefault(nodes[gpu.id.node].name, []).append(gpu)
    return [
        strip
        for cell in partition.cells
        # Labels have the names of graphs if the cluster, not only the cell, serves several.
        for strip in strips(replace(cell.plan, graphs=everything), gpus[cell.name])
    ]


def alternatives_view(partition: Partition, alternatives: Sequence[Alternative]) -> Iterator[View]:
    """Yields the price of other numbers of cells than the chosen one."""
    chosen = (len(partition.cells), partition.slices_used, f"{partition.price:+z.1%}", "chosen")
    others = [
        (other.cells, other.slices, None if other.price is None else f"{other.price:+.1%}", other.reason)
        for other in alternatives
    ]
    rows = sorted([chosen, *others], key=lambda row: row[0])
    yield Table.of(("cells", "slices", "over one pool", "remark"), rows, title="price of other numbers of cells")


def _alike(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Groups cells with equal weights and equal plans but for the names of nodes."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        plan = cell.plan
        key = (tuple(cell.weights.items()), len(cell.nodes), plan.slices_total, plan.cost, repr(plan.graphs))
        groups.setdefault(key, []).append(cell)
    return list(groups.values())


def _graphs(partition: Partition) -> Table:
    names = sorted({name for cell in partition.cells for name in cell.weights})
    rows = []
    for name in names:
        cells = partition.cells_of(name)
        plans, weights = [cell.plan.graphs[name] for cell in cells], [cell.weights[name] for cell in cells]
        least, most = f"{min(weights):.1%}", f"{max(weights):.1%}"
        rows.append(
            (
                name,
                figures(fsum(plan.demand_rps for plan in plans)),
                figures(fsum(plan.capacity_rps for plan in plans)),
                len(cells),
                least if least == most else f"{least} to {most}",
            )
        )
    return Table.of(("graph", "demand", "capacity", "cells", "weight of a cell"), rows)


def _cells(groups: Sequence[Sequence[Cell]], cluster: Cluster) -> Table:
    limits = cluster.gateway_limits
    rows = [
        (
            _names([cell.name for cell in group]),
            len(group[0].nodes),
            _names(list(group[0].nodes)) if len(group) == 1 else "",
            len(group[0].plan.graphs),
            f"{group[0].plan.slices_used} of {group[0].plan.slices_total}",
            f"{group[0].gateway.processors:.1f} of {limits.processors}",
            f"{group[0].gateway.workers} of {limits.workers}",
        )
        for group in groups
    ]
    header = ("cells", "nodes", "names", "graphs", "slices", "gateway processors", "most workers of a task")
    return Table.of(header, rows)


def _totals(partition: Partition, cluster: Cluster) -> str:
    own, pool = partition.cost, partition.pool_cost
    bound = f", at least {partition.pool_bound}" if 0 < partition.pool_bound < partition.pool_slices else ""
    used, one_pool = f"{partition.slices_used} of {partition.slices_total} compute slices", f"{partition.pool_slices}"
    if own is not None and pool is not None:
        used += f", cost {own.used:.2f} of {own.words(own.total)},"
        one_pool += f" at a cost of {pool.used:.2f}"
        bound = f", at least {least:.2f}" if 0 < (least := partition.pool_cost_bound) < pool.used else ""
    return (
        f"{used} on {partition.gpus_used} of {len(cluster.gpus)} GPUs in {len(partition.cells)} cells; "
        f"one pool takes {one_pool}{bound}: cells cost {partition.price:+z.1%}"
    )


def _names(names: Sequence[str]) -> str:
    """Returns names in order; the first and the last one if there are many."""
    if len(names) <= _MOST_NAMES:
        return listed(list(names))
    return f"{names[0]} to {names[-1]} ({len(names)})"
