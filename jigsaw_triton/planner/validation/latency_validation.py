"""Validation of the latencies of a graph's part of a plan: its tasks' budgets, queues and shared slices."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from jigsaw_triton.graph.chain import followers, runs
from jigsaw_triton.graph.model import Task
from jigsaw_triton.planner.domain.plan import PlacedModel, TaskPlan
from jigsaw_triton.planner.domain.problem import LOADS, MAX_SERVERS, REPLICA_RANGES
from jigsaw_triton.planner.latency.queueing import Case, latencies_ms
from jigsaw_triton.planner.validation.graph_part import TOLERANCE, GraphPart, busy, close, profiled, worst
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileRow


def latency_violations(part: GraphPart) -> Iterator[str]:
    """Yields a description of each violation of a budget or of the latency along paths."""
    needed = {name: _needed_ms(part, name, alone_ms) for name, alone_ms in _alone_ms(part).items()}
    for name, task in part.promised.tasks.items():
        # Written so that NaN exceeds any budget.
        if not needed[name] <= task.budget_ms * (1 + TOLERANCE):
            yield f"{name}: {needed[name]} ms exceed its budget of {task.budget_ms} ms"
    limit = part.graph.tasks_ms
    for what, per_task in (("latencies", needed), ("budgets", _budgets(part.promised.tasks))):
        total = worst(part.graph, per_task)
        if total > limit * (1 + TOLERANCE):
            yield f"the {what} along a path add up to {total} ms, over {limit} ms"
    # The replicas may have a lower load than the one at which the plan predicts their latency.
    said, counted = part.promised.latency_ms, worst(part.graph, needed) + part.graph.steps_ms
    slo_ms = part.graph.slo.latency_ms
    less_busy = part.options.latency_model == "queue" and counted <= said <= slo_ms * (1 + TOLERANCE)
    if not less_busy and not close(said, counted):
        yield f"the plan says {said} ms, counted {counted} ms"


def _needed_ms(part: GraphPart, name: str, alone_ms: float) -> float:
    """Returns the latency of a task: that of its slowest segment, or by the slice's cycle if it shares one."""
    sharing = _sharing_ms(part, name)
    if sharing is None:
        return alone_ms
    return sharing[0] if sharing[1] > 1 else min(alone_ms, sharing[0])


def _sharing_ms(part: GraphPart, name: str) -> tuple[float, int] | None:
    """Returns the latency of a task in a shared slice, and the number of models there; None if it shares none."""
    if not part.options.share:
        return None
    slices = [
        (gpu.model, placed)
        for gpu in part.plan.gpus
        for placed in gpu.layout
        if any((m.graph, m.task) == (part.graph.name, name) for m in placed.models)
    ]
    if len(slices) != 1:
        return None
    ((board, placed),) = slices
    (own,) = (m for m in placed.models if (m.graph, m.task) == (part.graph.name, name))
    rows = [
        profiled(part.tables[m.graph], board, placed.placement.slice, m)
        for m in placed.models
        if m.graph in part.tables
    ]
    row = profiled(part.table, board, placed.placement.slice, own)
    if row is None or own.instances != 1 or busy(part.rates()[name], row) > part.most_shared_load * (1 + TOLERANCE):
        return None
    cycle_ms = sum(r.latency_p95_ms for r in rows if r is not None)
    together = _called_with(part, own, placed.models)
    their_rows = [profiled(part.table, board, placed.placement.slice, m) for m in placed.models if m in together]
    cycle_ms -= sum(r.latency_p95_ms for r in their_rows if r is not None)
    times = _latency_ms(row, _rows_at_once(part, part.graph.tasks[name])) / row.latency_p95_ms
    return times * cycle_ms, len(placed.models)


def _called_with(part: GraphPart, own: PlacedModel, models: Sequence[PlacedModel]) -> list[PlacedModel]:
    """Returns the other models of a slice that are in a chain with `own`: a worker calls them together."""
    by_task = {m.task: m for m in models if m.graph == part.graph.name}
    after = {
        before: task
        for before, task in followers(part.graph).items()
        if {before, task} <= by_task.keys()
        and (part.graph.tasks[task].for_each is None or by_task[before].batch == by_task[task].batch)
    }
    chain = next((tasks for tasks in runs(after) if own.task in tasks), ())
    return [by_task[task] for task in chain if task != own.task]


def _alone_ms(part: GraphPart) -> dict[str, float]:
    """Returns the latency of each task, that of its slowest segment, if its replicas share no slice."""
    if part.options.latency_model == "2p95":
        return {name: _two_p95_ms(part, name) for name in part.promised.tasks}
    queues = {name: list(_queues(part, name)) for name in part.promised.tasks}
    # One call computes all latencies, because a call takes as long as hundreds of cases.
    cases = [case for ranges in queues.values() for _, found in ranges for case in found]
    ms = iter(latencies_ms(cases, _quantile(part)))
    return {
        name: min(max((full_ms, *islice(ms, len(found)))) for full_ms, found in ranges)
        for name, ranges in queues.items()
    }


def _quantile(part: GraphPart) -> float:
    """Returns the quantile of each task's latency."""
    return 1 - (1 - part.graph.slo.percentile / 100) / len(part.graph.tasks)


def _two_p95_ms(part: GraphPart, name: str) -> float:
    rows = _rows_at_once(part, part.graph.tasks[name])
    segments = part.promised.tasks[name].segments
    return max((_latency_ms(row, rows) for s in segments for row, _ in part.rows(name, s)), default=0.0)


def _queues(part: GraphPart, name: str) -> Iterator[tuple[float, list[Case]]]:
    """Yields the time of a full batch and the queues of a task, for each range with its number of replicas.

    The queues are those of all segments at all loads up to theirs, and at both ends of the range.
    """
    rows = _rows_at_once(part, part.graph.tasks[name])
    segments = [(s, part.rows(name, s)) for s in part.promised.tasks[name].segments]
    rate, times = part.rates()[name], service_times(part.table)
    replicas = sum(segment.count for segment, _ in segments)
    for ends in REPLICA_RANGES:
        if not ends[0] <= replicas <= ends[1]:
            continue
        full_ms, cases = 0.0, list[Case]()
        for segment, found in segments:
            load = _load(segment.share * rate, found)
            for row, _ in found:
                time, key = times[row.key], row.key
                full_ms = max(full_ms, time.full_ms(_quantile(part)))
                full = row.throughput_rps * time.occupied_ms / (1000 * key.batch * key.instances)
                cases += [
                    Case(time, int(min(n * key.instances, MAX_SERVERS)), u * full, rows)
                    for n in ends
                    for u in LOADS
                    if u <= load
                ]
        yield full_ms, cases


def _rows_at_once(part: GraphPart, task: Task) -> float:
    """Returns the rows of one request, from the variants that yield most."""
    over = task.for_each
    if over is None:
        return 1.0
    if over.is_graph_input:
        return part.graph.inputs[over.name].rows
    if over.task in part.graph.steps:
        return part.graph.steps[over.task].yields.get(over.name, 1.0)
    source = part.graph.tasks[over.task]
    rows = _rows_at_once(part, source)
    if over.name in source.outputs and source.outputs[over.name].shape[0] == -1:
        rows *= max(variant.yields.get(over.name, 1.0) for variant in source.variants)
    return rows


def _load(rate_rps: float, found: Sequence[tuple[ProfileRow, int]]) -> float:
    """Returns the lowest of `LOADS` at which a segment's replicas carry this rate.

    If they are on several models of GPU, the plan does not say how the rate is divided; then the lowest load of all is
    assumed.
    """
    full = sum(count * row.throughput_rps for row, count in found)
    if len(found) > 1:
        return LOADS[0]
    return min((u for u in LOADS if rate_rps <= u * full * (1 + TOLERANCE)), default=LOADS[-1])


def _latency_ms(row: ProfileRow, rows: float) -> float:
    rounds = max(1, math.ceil(rows / (row.key.batch * row.key.instances) - 1e-9))
    return row.latency_p95_ms * (1 + rounds)


def _budgets(tasks: Mapping[str, TaskPlan]) -> dict[str, float]:
    return {name: task.budget_ms for name, task in tasks.items()}
