"""Algorithms on a graph of dependencies: topological order, cycles, number of paths."""

import heapq
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter


def topological_order(dependencies: Mapping[str, Set[str]]) -> tuple[str, ...]:
    """Returns the nodes in topological order, sorted by name where that order leaves a choice.

    Args:
        dependencies: Node -> nodes that it depends on. Nodes that are not keys are ignored.

    Returns:
        All nodes except those that lie on a cycle or depend on one.
    """
    sorter = _sorter(dependencies, dependencies)
    with suppress(CycleError):
        sorter.prepare()
    found, ready = [], list(sorter.get_ready())
    heapq.heapify(ready)
    while ready:
        found.append(heapq.heappop(ready))
        sorter.done(found[-1])
        for node in sorter.get_ready():
            heapq.heappush(ready, node)
    return tuple(found)


def cycles(dependencies: Mapping[str, Set[str]]) -> tuple[tuple[str, ...], ...]:
    """Returns a maximal set of disjoint cycles, in the direction of the data: each node feeds the next.

    Every cycle of the graph shares a node with one of them. Each begins with the node whose name sorts first.
    """
    found: list[tuple[str, ...]] = []
    remaining = set(dependencies)
    while True:
        try:
            _sorter(dependencies, remaining).prepare()
        except CycleError as error:
            cycle: list[str] = error.args[1][:-1]
            first = cycle.index(min(cycle))
            found.append((*cycle[first:], *cycle[:first]))
            remaining -= set(cycle)
        else:
            return tuple(sorted(found))


def count_paths(dependencies: Mapping[str, Set[str]]) -> int:
    """Returns the number of paths from a source (no dependencies) to a sink (no dependents) of an acyclic graph."""
    ways: dict[str, int] = {}
    ends = set(dependencies)
    for node in topological_order(dependencies):
        before = dependencies[node]
        ends -= before
        ways[node] = sum(ways[d] for d in before) if before else 1
    return sum(ways[node] for node in ends)


def _sorter(dependencies: Mapping[str, Set[str]], nodes: Iterable[str]) -> TopologicalSorter[str]:
    """Returns a sorter of some of the nodes, in which their order depends on their names alone."""
    kept = set(nodes)
    return TopologicalSorter({node: sorted(kept & dependencies[node]) for node in sorted(kept)})
