"""Service times and deadlines of batches, from the profiles."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import fsum

from jigsaw_triton.compiler.bundle import Place, Worker, WorkerModel
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.runtime.chains import members

CALL_DEADLINE_P99S = 10.0
"""Ratio of a call's deadline to the profiled 99th percentile of its batch."""

MIN_CALL_DEADLINE_MS = 2_000.0
"""Minimum deadline of a call. A busy host sometimes delays a model's process for a second, and a server that misses a
deadline is replaced."""


def service_ms(plan: Plan, graph: TaskGraph, profiles: ProfileTable | None) -> dict[str, float]:
    """Returns the time of a batch of each task.

    It is the 95th percentile of the task's slowest replica, or half of the task's budget if no replica has a profile.

    Args:
        plan: Plan with the replicas.
        graph: Graph of the plan.
        profiles: Profiles of the graph.
    """
    slowest: dict[str, float] = {}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            for model in placed.models:
                if model.graph != graph.name or profiles is None:
                    continue
                kind = placed.placement.slice
                row = profiles.get(ProfileKey(gpu.model, model.task, model.variant, kind, model.instances, model.batch))
                if row is not None:
                    slowest[model.task] = max(slowest.get(model.task, 0.0), row.latency_p95_ms)
    budgets = plan.graphs[graph.name].tasks
    return {task: slowest.get(task, budgets[task].budget_ms / 2) for task in graph.tasks}


def rest_ms(graph: TaskGraph, services_ms: Mapping[str, float]) -> dict[str, float]:
    """Returns the time of the longest path that follows each task, Python steps included.

    Args:
        graph: Graph, in which each chain is one task.
        services_ms: Task -> milliseconds of a batch.
    """
    found: dict[str, float] = {}
    nodes = list(graph.in_order())
    own = {step.name: step.latency_ms for step in graph.steps.values()} | dict(services_ms)
    for node in reversed(nodes):
        followers = (other.name for other in nodes if node.name in other.dependencies())
        found[node.name] = max((own[name] + found[name] for name in followers), default=0.0)
    return {task: found[task] for task in graph.tasks}


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Times of the calls of a model on a worker.

    Attributes:
        service_ms: Batch size -> usual milliseconds of a batch.
        deadline_ms: Batch size -> milliseconds after which a call counts as hanging.
    """

    service_ms: Mapping[str, float]
    deadline_ms: Mapping[str, float]


def call_times(
    worker: Worker,
    model: WorkerModel,
    profiles: Mapping[str, ProfileTable],
    *,
    processes: int,
    one_by_one: bool,
) -> CallTimes:
    """Returns the times of a model's calls, from the profiles of all models in its slice.

    A shared slice executes one batch at a time, so each batch may wait for one batch of every instance of the other
    models. If one of them has no profile, there is no deadline, and the front uses its own.

    Args:
        worker: Worker that has the model.
        model: Model or chain of models.
        profiles: Profiles, by graph.
        processes: Number of servers that share the MIG instance.
        one_by_one: True if each item is a separate call. The worker then joins items to batches.
    """
    if worker.place is None:
        return CallTimes({}, {})
    place = worker.place
    chain = set(model.members) or {model.name}
    inside = [m for m in worker.models if m.name in chain and not m.members]
    others = [m for m in worker.models if m.name not in chain and not m.members]
    rows = [list(_rows(place, m, profiles, processes)) for m in inside]
    if not rows or not all(rows):
        return CallTimes({}, {})
    sizes = sorted(set.intersection(*({row.key.batch for row in model_rows} for model_rows in rows)))
    if not sizes:
        return CallTimes({}, {})
    all_rows = [row for model_rows in rows for row in model_rows]
    usual = {size: fsum(row.latency_p50_ms for row in all_rows if row.key.batch == size) for size in sizes}
    late = {size: fsum(row.latency_p99_ms for row in all_rows if row.key.batch == size) for size in sizes}
    executions = len(inside)
    if one_by_one:
        # An item may have to wait for the batch in progress and then be part of the next one.
        late = {1: 2 * max(late.values())}
        usual = {1: usual[sizes[0]]}
        executions *= 2
    service = {str(size): _rounded(ms) for size, ms in usual.items()}
    longest = [
        m.instances * max((r.latency_p99_ms for r in _rows(place, m, profiles, processes)), default=0.0) for m in others
    ]
    if not all(longest):
        return CallTimes(service, {})
    deadline = {
        str(size): _rounded(max(MIN_CALL_DEADLINE_MS, CALL_DEADLINE_P99S * (p99 + executions * sum(longest))))
        for size, p99 in late.items()
    }
    return CallTimes(service, deadline)


def _rounded(ms: float) -> float:
    """Rounds milliseconds to microseconds, but never to 0, which the backend rejects as a duration."""
    return max(0.001, round(ms, 3))


def _rows(
    place: Place, model: WorkerModel, profiles: Mapping[str, ProfileTable], processes: int
) -> Iterator[ProfileRow]:
    """Yields the profile rows of a model on its slice up to its batch size."""
    table = profiles.get(model.graph)
    if table is None or len(members(model.task)) > 1:
        return
    for row in table.rows(task=model.task, variant=model.variant, gpu=place.board):
        key = row.key
        same = key.slice == place.placement.slice and key.instances == model.instances * processes
        if same and key.batch <= model.batch:
            yield row
