"""Longest paths through a task graph, computed without enumerating its paths."""

from collections.abc import Collection, Mapping

from jigsaw_triton.graph.model import TaskGraph


def longest_through(graph: TaskGraph, weight: Mapping[str, float]) -> dict[str, float]:
    """Returns, for each task, the largest sum of task weights along any path through it.

    Args:
        graph: Graph whose tasks are in topological order.
        weight: Task -> weight.
    """
    upto, after = _upto(graph, weight), longest_after(graph, weight)
    return {name: upto[name] + after[name] for name in graph.tasks}


def longest_after(graph: TaskGraph, weight: Mapping[str, float]) -> dict[str, float]:
    """Returns, for each task, the largest sum of task weights along any path that begins after it.

    Args:
        graph: Graph whose tasks are in topological order.
        weight: Task -> weight.
    """
    after = {name: 0.0 for name in graph.tasks}
    for task in reversed(tuple(graph.tasks.values())):
        for dependency in graph.before(task):
            after[dependency] = max(after[dependency], weight[task.name] + after[task.name])
    return after


def longest_path(graph: TaskGraph, weight: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the path with the largest sum of task weights; of equal paths, the first by name."""
    upto = _upto(graph, weight)
    inner = {d for task in graph.tasks.values() for d in graph.before(task)}
    path = [max(sorted(upto.keys() - inner), key=lambda name: upto[name])]
    while before := sorted(graph.before(graph.tasks[path[0]])):
        path.insert(0, max(before, key=lambda name: upto[name]))
    return tuple(path)


def _upto(graph: TaskGraph, weight: Mapping[str, float]) -> dict[str, float]:
    upto: dict[str, float] = {}
    for task in graph.tasks.values():
        upto[task.name] = weight[task.name] + max((upto[d] for d in graph.before(task)), default=0.0)
    return upto


def count_paths(graph: TaskGraph, through: Collection[str] = ()) -> int:
    """Counts the paths from a task without dependencies to a task on which nothing depends.

    Args:
        graph: Graph whose tasks are in topological order.
        through: Tasks that all counted paths have.
    """
    upto: dict[str, int] = {}
    first = 1
    for name, task in graph.tasks.items():
        before = graph.before(task)
        paths = sum(upto[d] for d in before) if before else first
        if name in through:
            # Paths without this task are not counted any more.
            upto, first = dict.fromkeys(upto, 0), 0
        upto[name] = paths
    inner = {d for task in graph.tasks.values() for d in graph.before(task)}
    return sum(upto[name] for name in graph.tasks.keys() - inner)
