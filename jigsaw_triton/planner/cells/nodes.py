"""Nodes of a cluster, and how they are assigned to cells."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Layout
from jigsaw_triton.planner.domain.plan import PlacedSlice, Plan

Nodes = Mapping[str, tuple[Gpu, ...]]
"""Name of a node -> its GPUs, by index. Nodes are sorted by name."""

NodeKind = tuple[tuple[int, str, float, Layout, bool, str, tuple[PlacedSlice, ...]], ...]
"""GPUs of a node: index, board, cost per hour or 0, instances of others, true if it is uncut, failure domain, and what
runs on it. The failure domain is empty unless it is that of several nodes. Nodes of one kind are interchangeable."""

_BOARD, _DOMAIN = 1, 5
"""Indices of the board and of the failure domain of a GPU in a kind."""


def nodes_of(cluster: Cluster) -> Nodes:
    """Returns the nodes of a cluster."""
    found: dict[str, list[Gpu]] = {}
    for gpu in sorted(cluster.gpus, key=lambda gpu: gpu.id):
        found.setdefault(gpu.id.node, []).append(gpu)
    return {name: tuple(gpus) for name, gpus in found.items()}


def kinds_of(
    nodes: Nodes, running: Plan | None = None, domains: Mapping[GpuId, str] | None = None
) -> dict[str, NodeKind]:
    """Returns the kind of each node.

    Args:
        nodes: Nodes.
        running: Plan that runs on them. Nodes on which different slices run are not interchangeable.
        domains: GPU -> its failure domain, if that may have several nodes.
    """
    layouts = {gpu.id: gpu.layout for gpu in running.gpus} if running is not None else {}
    shared = domains or {}

    def kind(gpu: Gpu) -> tuple[int, str, float, Layout, bool, str, tuple[PlacedSlice, ...]]:
        known = (gpu.id.index, gpu.board.name, gpu.cost or 0.0, gpu.foreign, bool(gpu.uncut))
        return (*known, shared.get(gpu.id, ""), layouts.get(gpu.id, ()))

    return {name: tuple(map(kind, gpus)) for name, gpus in nodes.items()}


def assigned(hardware: Mapping[str, NodeKind], cells: int) -> tuple[tuple[str, ...], ...]:
    """Assigns nodes to cells, so that each cell gets nearly as many nodes of each kind as any other.

    Nodes of a kind whose names are neighbours come into one cell. The numbers of nodes of two cells differ by at most
    one. Among cells with as few nodes, the next one goes where the fewest are of its failure domain, and then where the
    fewest have its GPUs.

    Args:
        hardware: Name of a node -> its kind, of which what runs does not count.
        cells: Number of cells, at most that of the nodes.
    """
    groups: dict[NodeKind, list[str]] = {}
    for name, kind in hardware.items():
        groups.setdefault(kind, []).append(name)
    found: list[list[str]] = [[] for _ in range(cells)]
    # Numbers of nodes of each cell by failure domains, and by models of GPU.
    alike: list[Counter[object]] = [Counter() for _ in range(cells)]
    for kind, names in groups.items():
        domains, boards = frozenset(gpu[_DOMAIN] for gpu in kind), tuple(gpu[_BOARD] for gpu in kind)
        even, more = divmod(len(names), cells)
        order = sorted(range(cells), key=lambda cell: (len(found[cell]), alike[cell][domains], alike[cell][boards]))
        larger, start = set(order[:more]), 0
        for index, cell in enumerate(found):
            end = start + even + (index in larger)
            cell += names[start:end]
            alike[index].update({domains: end - start, boards: end - start})
            start = end
    return tuple(map(tuple, found))


def matched(nodes: Sequence[str], others: Sequence[str], kinds: Mapping[str, NodeKind]) -> dict[str, str]:
    """Returns a node of the others for each of these nodes, of the same kind. Both have as many of each kind."""
    return dict(zip(in_order(nodes, kinds), in_order(others, kinds), strict=True))


def in_order(nodes: Sequence[str], kinds: Mapping[str, NodeKind]) -> list[str]:
    """Returns nodes sorted by kind, and by name within a kind."""
    return sorted(nodes, key=lambda name: (repr(kinds[name]), name))


def moved(plan: Plan, names: Mapping[str, str]) -> Plan:
    """Returns the plan on other nodes.

    Args:
        plan: Plan.
        names: Name of each of its nodes -> name of a node of the same kind.
    """
    gpus = (replace(gpu, id=GpuId(names[gpu.id.node], gpu.id.index)) for gpu in plan.gpus)
    return replace(plan, gpus=tuple(sorted(gpus, key=lambda gpu: gpu.id)))
