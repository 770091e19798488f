"""Order in a graph of dependencies: topological order, cycles, number of paths."""

import heapq
from collections.abc import Mapping, Set


def topological_order(dependencies: Mapping[str, Set[str]]) -> tuple[str, ...]:
    """The nodes, each after what it depends on, and by name where that leaves a choice.

    Args:
        dependencies: Node -> nodes that come before it; those that are no key count as done.

    Returns:
        Without the nodes that lie on a cycle or behind one.
    """
    waiting = {node: {d for d in before if d in dependencies} for node, before in dependencies.items()}
    ready = [node for node, before in waiting.items() if not before]
    heapq.heapify(ready)
    followers: dict[str, list[str]] = {node: [] for node in waiting}
    for node, before in waiting.items():
        for dependency in before:
            followers[dependency].append(node)
    order = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for follower in followers[node]:
            waiting[follower].discard(node)
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    return tuple(order)


def cycles(dependencies: Mapping[str, Set[str]]) -> tuple[tuple[str, ...], ...]:
    """Cycles that share no node, in the direction of the data: each node feeds the next, the last feeds the first.

    Every cycle of the graph shares a node with one of them. Each begins with its first node by name.
    """
    found: list[tuple[str, ...]] = []
    rest = {node: set(before) for node, before in dependencies.items()}
    while True:
        ordered = topological_order(rest)
        rest = {node: before for node, before in rest.items() if node not in ordered}
        if not rest:
            return tuple(found)
        walk = [min(rest)]
        while walk[-1] not in walk[:-1]:
            walk.append(min(d for d in rest[walk[-1]] if d in rest))
        cycle = walk[walk.index(walk[-1]) + 1 :][::-1]
        first = cycle.index(min(cycle))
        found.append((*cycle[first:], *cycle[:first]))
        rest = {node: before for node, before in rest.items() if node not in cycle}


def count_paths(dependencies: Mapping[str, Set[str]]) -> int:
    """Number of paths from a node without dependencies to one that nothing depends on, of a graph without cycles."""
    ways: dict[str, int] = {}
    ends = set(dependencies)
    for node in topological_order(dependencies):
        before = dependencies[node]
        ends -= before
        ways[node] = sum(ways[d] for d in before) if before else 1
    return sum(ways[node] for node in ends)
