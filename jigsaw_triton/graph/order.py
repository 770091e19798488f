"""Algorithms on a graph of dependencies: topological order, cycles, number of paths."""

from collections.abc import Mapping, Set
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx as nx


def topological_order(dependencies: Mapping[str, Set[str]]) -> tuple[str, ...]:
    """Returns the nodes in topological order, sorted by name where that order leaves a choice.

    Args:
        dependencies: Node -> nodes that it depends on. Nodes that are not keys are ignored.

    Returns:
        All nodes except those that lie on a cycle or depend on one.
    """
    missing = {node: len(before & dependencies.keys()) for node, before in dependencies.items()}
    dependents: dict[str, list[str]] = {node: [] for node in dependencies}
    for node, before in dependencies.items():
        for other in before & dependencies.keys():
            dependents[other].append(node)
    ready = sorted(node for node, count in missing.items() if not count)
    order: list[str] = []
    while ready:
        order.append(node := heappop(ready))
        for dependent in dependents[node]:
            missing[dependent] -= 1
            if not missing[dependent]:
                heappush(ready, dependent)
    return tuple(order)


def cycles(dependencies: Mapping[str, Set[str]]) -> tuple[tuple[str, ...], ...]:
    """Returns a maximal set of disjoint cycles, in the direction of the data: each node feeds the next.

    Every cycle of the graph shares a node with one of them. Each begins with the node whose name sorts first.
    """
    if len(topological_order(dependencies)) == len(dependencies):
        return ()
    # This import takes a tenth of a second, which each command would wait for.
    import networkx as nx

    graph = _digraph(dependencies)
    found: list[tuple[str, ...]] = []
    while True:
        try:
            cycle = [node for node, _ in nx.find_cycle(graph)]
        except nx.NetworkXNoCycle:
            return tuple(sorted(found))
        first = cycle.index(min(cycle))
        found.append((*cycle[first:], *cycle[:first]))
        graph.remove_nodes_from(cycle)


def count_paths(dependencies: Mapping[str, Set[str]]) -> int:
    """Returns the number of paths from a source (no dependencies) to a sink (no dependents) of an acyclic graph."""
    ways: dict[str, int] = {}
    ends = set(dependencies)
    for node in topological_order(dependencies):
        before = dependencies[node]
        ends -= before
        ways[node] = sum(ways[d] for d in before) if before else 1
    return sum(ways[node] for node in ends)


def _digraph(dependencies: Mapping[str, Set[str]]) -> "nx.DiGraph[str]":
    """Builds a graph with an edge from each node to those that depend on it, in the order of their names."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(sorted(dependencies))
    graph.add_edges_from(
        (d, node) for node in sorted(dependencies) for d in sorted(dependencies[node]) if d in dependencies
    )
    return graph
