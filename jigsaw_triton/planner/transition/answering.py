"""Capacity of a graph during a change, when each request is answered by one of two generations. Pure.

Replicas belong to the running generation, to the target, or to both if both have the same model. A request uses the
replicas of one generation at all tasks. So if the generations answer `a` and `b` requests a second, each task needs

    a <= running + both,  b <= target + both,  a + b <= running + target + both.

The largest a + b is therefore the sum of the generations' own capacities, or the least capacity of a task's replicas
together if that is less. It is reached if the requests are divided accordingly. If only one task has replicas that not
both generations have, the first replica that is free may take each request: what it leaves open is open at no other
task.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.rates import most_calls
from jigsaw_triton.planner.domain.throughput import ByVariant, graph_throughput_rps, of_all_tasks, throughput_by_task

RUNNING, TARGET = 0.0, 1.0
"""Shares of the requests that lead to the running generation alone, and to the target alone."""


@dataclass(frozen=True, slots=True)
class Answering:
    """Capacity of a graph, and which generation answers its requests.

    Attributes:
        capacity_rps: Capacity in requests a second.
        share: Share of the requests that are bound to the target when they arrive; None if the first replica that is
            free decides.
        mixed: True if neither generation has replicas for every task, so that both answer parts of each request.
    """

    capacity_rps: float
    share: float | None = RUNNING
    mixed: bool = False


NOTHING = Answering(0.0)
"""Answering of a graph that no front serves yet."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Calls a second of a graph's replicas in service, by task and variant.

    Attributes:
        running: Calls of replicas that only the running generation has.
        target: Calls of replicas that only the target has.
        both: Calls of replicas that both generations have.
    """

    running: ByVariant
    target: ByVariant
    both: ByVariant

    @property
    def of_running(self) -> ByVariant:
        """Calls of the replicas that may answer requests of the running generation."""
        return _sum(self.running, self.both)

    @property
    def of_target(self) -> ByVariant:
        """Calls of the replicas that may answer requests of the target."""
        return _sum(self.target, self.both)

    @property
    def every(self) -> ByVariant:
        """Calls of all replicas."""
        return _sum(self.of_running, self.target)


Mixes = Sequence[ByVariant]
"""Ways of a plan to divide the calls of each task among its variants, besides that of any idle replica."""


def answering(graph: TaskGraph, replicas: Replicas, running: Mixes, target: Mixes) -> Answering:
    """Returns the answering with the largest capacity, of those in which one generation answers each request.

    If neither generation has replicas for every task, those of the target serve the tasks that the running one lacks.

    Args:
        graph: Graph.
        replicas: Replicas in service.
        running: Mixes of the running plan.
        target: Mixes of the target.
    """
    old, new = replicas.of_running, replicas.of_target
    present = [task for task in graph.tasks if _complete(old, [task]) or _complete(new, [task])]
    complete = [_complete(usable, present) for usable in (old, new)]
    if not any(complete):
        return replace(apart(graph, replicas), share=None, mixed=True)
    ways = []
    if complete[0]:
        ways.append(alone(graph, replicas, running))
    if complete[1]:
        ways.append(Answering(_capacity(graph, new, target), TARGET))
    if all(complete):
        joined = _joined(graph, replicas)
        ways.insert(0 if joined.share is None else len(ways), joined)
    # `max` takes the first of equally good ways. More replicas then share the same requests, and requests are bound to
    # a generation only where that is necessary.
    return max(ways, key=lambda way: round(way.capacity_rps, 6))


def alone(graph: TaskGraph, replicas: Replicas, running: Mixes) -> Answering:
    """Returns the answering of a graph whose requests are all answered by the running generation.

    Args:
        graph: Graph.
        replicas: Replicas in service.
        running: Mixes of the running plan.
    """
    return Answering(_capacity(graph, replicas.of_running, running), RUNNING)


def apart(graph: TaskGraph, replicas: Replicas, running: Mixes = ()) -> Answering:
    """Returns the answering of a graph each of whose tasks uses the replicas of one generation.

    It is the running one, except for tasks for which it has none.

    Args:
        graph: Graph.
        replicas: Replicas in service.
        running: Mixes of the running plan.
    """
    usable = {
        task: own if sum(own.values()) > 0 else replicas.target.get(task, {})
        for task, own in replicas.of_running.items()
    }
    return Answering(_capacity(graph, usable, running), RUNNING)


def lacking(graph: TaskGraph, replicas: Replicas, rate_rps: float) -> float:
    """Returns how far the tasks are from carrying a rate, as the sum of their shortfalls in the best answering."""
    old, new = replicas.of_running, replicas.of_target
    own = [throughput_by_task(graph, usable, usable) for usable in (old, new)]
    together = _at_least(graph, replicas.every)
    least = [of_all_tasks(carried) for carried in own]
    joined = {
        task: min(all_rps, max(own[0][task] + least[1], own[1][task] + least[0])) for task, all_rps in together.items()
    }
    ways = [*own, joined] if all(least) else own
    return min(sum(max(0.0, rate_rps - carried) for carried in way.values()) for way in ways)


def _joined(graph: TaskGraph, replicas: Replicas) -> Answering:
    """Returns the answering in which both generations answer requests."""
    if replicas.of_running == replicas.of_target == replicas.both:
        return Answering(graph_throughput_rps(graph, replicas.both, replicas.both), None)
    old, new = (_at_least(graph, usable) for usable in (replicas.of_running, replicas.of_target))
    own_rps = min(old.values()), min(new.values())
    capacity_rps = min(sum(own_rps), *_at_least(graph, replicas.every).values())
    if not math.isfinite(capacity_rps):
        return NOTHING
    if _fits_any(graph, replicas.running, old, capacity_rps) and _fits_any(graph, replicas.target, new, capacity_rps):
        return Answering(capacity_rps, None)
    return Answering(capacity_rps, own_rps[1] / sum(own_rps))


def _at_least(graph: TaskGraph, usable: ByVariant) -> dict[str, float]:
    """Returns the requests a second that each task carries, whichever usable variants yield the rows for its calls.

    Which variants a generation uses depends on those that the other one leaves to it.
    """
    choices = {task: [v for v, n in variants.items() if n > 0] or [*variants] for task, variants in usable.items()}
    most = most_calls(graph, choices)
    return {task: sum(usable[task].values()) / n if n > 0 else math.inf for task, n in most.items()}


def _fits_any(graph: TaskGraph, only: ByVariant, carried: Mapping[str, float], rate_rps: float) -> bool:
    """Returns True if a generation carries a rate at every task where the choice was made at another one.

    Args:
        graph: Graph.
        only: Calls of the replicas that only this generation has.
        carried: Requests a second that the generation carries at each task.
        rate_rps: Rate of all requests.
    """
    deciding = {task for task in graph.tasks if sum(only[task].values()) > 0}
    return all(rate_rps <= carried[task] * (1 + 1e-9) or deciding <= {task} for task in graph.tasks)


def _complete(usable: ByVariant, tasks: Iterable[str]) -> bool:
    return all(sum(usable[task].values()) > 0 for task in tasks)


def _capacity(graph: TaskGraph, usable: ByVariant, mixes: Mixes) -> float:
    return max(graph_throughput_rps(graph, usable, mix) for mix in (usable, *mixes))


def _sum(one: ByVariant, other: ByVariant) -> ByVariant:
    return {task: {v: n + other[task][v] for v, n in variants.items()} for task, variants in one.items()}
