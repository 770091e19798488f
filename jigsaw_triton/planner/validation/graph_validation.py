"""Validation of one graph's part of a plan; `graph_part` says what it is recomputed from."""

import math
from collections import Counter
from collections.abc import Iterator

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.problem import LOADS
from jigsaw_triton.planner.validation.accuracy_validation import (
    accuracy_violations,
    least_accuracy,
    variant_violations,
)
from jigsaw_triton.planner.validation.graph_part import TOLERANCE, GraphPart, close
from jigsaw_triton.planner.validation.latency_validation import latency_violations


def graph_violations(part: GraphPart) -> Iterator[str]:
    """Yields a description of each violation."""
    if set(part.promised.tasks) != set(part.graph.tasks):
        yield f"the plan has the tasks {sorted(part.promised.tasks)}, not {sorted(part.graph.tasks)}"
        return
    if not close(part.promised.demand_rps, part.workload.demand_rps):
        yield f"the plan is for {part.promised.demand_rps} requests/s, not {part.workload.demand_rps}"
    if not part.workload.demand_rps * (1 - TOLERANCE) <= part.promised.capacity_rps < math.inf:
        demand_rps = part.workload.demand_rps
        yield f"its capacity {part.promised.capacity_rps} is not finite and at least the demand {demand_rps}"
    for name, task in part.promised.tasks.items():
        unknown = {s.variant for s in task.segments} - {v.name for v in part.graph.tasks[name].variants}
        if unknown or not task.segments:
            yield f"{name}: it has no segments, or segments of unknown variants {sorted(unknown)}"
            return
    yield from _count_violations(part)
    yield from _rate_violations(part)
    yield from latency_violations(part)
    yield from accuracy_violations(part)
    if "A" not in part.options.features:
        yield from variant_violations(part)
    if "T" not in part.options.features:
        yield from _even_violations(part)


def _count_violations(part: GraphPart) -> Iterator[str]:
    for name, task in part.promised.tasks.items():
        said = Counter[tuple[str, str, int, int]]()
        for s in task.segments:
            said[s.variant, s.slice, s.instances, s.batch] += s.count
        placed = Counter[tuple[str, str, int, int]]()
        for (_, *segment), count in part.placed_of(name).items():
            placed[tuple(segment)] += count  # type: ignore[index]  # mypy does not count the items of a starred name
        if len(task.segments) > len(said):
            yield f"{name}: a segment is listed more than once"
        if said != placed:
            yield f"{name}: its segments and its placements differ: {dict(said)}, {dict(placed)}"
        if not close(sum(s.share for s in task.segments), 1.0) or any(s.share < 0 for s in task.segments):
            yield f"{name}: its shares do not add up to 1"


def _rate_violations(part: GraphPart) -> Iterator[str]:
    utilisation = _most_utilisation(part)
    for name, rate in part.rates().items():
        task = part.promised.tasks[name]
        if not close(task.rate_rps, rate):
            yield f"{name}: the plan says {task.rate_rps} calls/s, counted {rate}"
        for segment in task.segments:
            carried = sum(count * row.throughput_rps * utilisation for row, count in part.rows(name, segment))
            if segment.share * rate > carried * (1 + TOLERANCE):
                yield f"{name}: {segment} has to carry {segment.share * rate} calls/s but can carry {carried}"


def _most_utilisation(part: GraphPart) -> float:
    if part.options.formulation == "paper":
        return 1.0
    return max(LOADS) if part.options.latency_model == "queue" else part.options.utilisation


def _even_violations(part: GraphPart) -> Iterator[str]:
    """Checks each task's even part of latency and accuracy: one n-th, for n tasks on its longest path."""
    for name, tasks in _tasks_through(part.graph).items():
        task, slo = part.promised.tasks[name], part.graph.slo
        if not close(task.budget_ms, part.graph.tasks_ms / tasks):
            yield f"{name}: a budget of {task.budget_ms} ms, not {part.graph.tasks_ms} ms over {tasks} tasks"
        least = least_accuracy(part, name)
        if least < slo.accuracy ** (1 / tasks) * (1 - TOLERANCE):
            yield f"{name}: an accuracy of {least}, below {slo.accuracy} over {tasks} tasks"


def _tasks_through(graph: TaskGraph) -> dict[str, int]:
    """Returns, for each task, the number of tasks on the longest path through it."""
    upto: dict[str, int] = {}
    after = dict.fromkeys(graph.tasks, 0)
    for name, task in graph.tasks.items():
        upto[name] = 1 + max((upto[d] for d in graph.before(task)), default=0)
    for name, task in reversed(tuple(graph.tasks.items())):
        for d in graph.before(task):
            after[d] = max(after[d], 1 + after[name])
    return {name: upto[name] + after[name] for name in graph.tasks}
