"""Requirements: single values that a plan has to meet, and problems with another value in their place."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from jigsaw_triton.gpus.model import Gpu, GpuId, Survive
from jigsaw_triton.planner.domain.problem import Problem

What = Literal["gpus", "survive", "latency_ms", "accuracy", "demand_rps"]

_SPARE_NODE = "~"
"""Prefix of nodes that hold hypothetical GPUs; no user's node has such a name."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One value that a plan has to meet.

    Attributes:
        subject: Name of the graph; for `gpus`, name of the model of GPU; for `survive`, kind of failure domain.
        what: Kind of value: the number of GPUs, the share that a loss must leave, a value of the SLO, or the demand.
    """

    subject: str
    what: What

    def __str__(self) -> str:
        return f"{self.subject}.{self.what}"


def requirements(problem: Problem) -> tuple[Requirement, ...]:
    """Returns all requirements of a problem: the GPUs by model, the loss to survive, then graph by graph."""
    found = [Requirement(board.name, "gpus") for board in problem.boards]
    if problem.cluster.survive is not None:
        found.append(Requirement(problem.cluster.survive.loss_of, "survive"))
    for workload in problem.workloads:
        name = workload.graph.name
        found += [Requirement(name, "latency_ms"), Requirement(name, "accuracy"), Requirement(name, "demand_rps")]
    return tuple(found)


def value_of(problem: Problem, requirement: Requirement) -> float:
    """Returns the value of a requirement in the problem."""
    if requirement.what == "gpus":
        return Counter(gpu.board.name for gpu in problem.cluster.gpus)[requirement.subject]
    if requirement.what == "survive":
        return problem.survive
    (workload,) = (w for w in problem.workloads if w.graph.name == requirement.subject)
    if requirement.what == "demand_rps":
        return workload.demand_rps
    slo = workload.graph.slo
    return slo.latency_ms if requirement.what == "latency_ms" else slo.accuracy


def varied(problem: Problem, requirement: Requirement, value: float) -> Problem:
    """Returns the problem with another value of a requirement."""
    if requirement.what == "gpus":
        return _with_gpus(problem, requirement.subject, round(value))
    if requirement.what == "survive":
        survive = Survive(requirement.subject, value) if value > 0 else None
        return replace(problem, cluster=replace(problem.cluster, survive=survive))
    workloads = []
    for workload in problem.workloads:
        graph = workload.graph
        if graph.name != requirement.subject:
            workloads.append(workload)
        elif requirement.what == "demand_rps":
            workloads.append(replace(workload, demand_rps=value))
        else:
            slo = (
                replace(graph.slo, latency_ms=value)
                if requirement.what == "latency_ms"
                else replace(graph.slo, accuracy=value)
            )
            workloads.append(replace(workload, graph=replace(graph, slo=slo)))
    return replace(problem, workloads=tuple(workloads))


def _with_gpus(problem: Problem, board: str, count: int) -> Problem:
    """Returns the problem with this many GPUs of a model.

    GPUs with the least free compute slices are removed first; additional ones are on hypothetical nodes, which are as
    large as the largest node: plans that survive the loss of a node would have no use for one of all additional GPUs.
    """
    cluster = problem.cluster
    own = sorted((gpu for gpu in cluster.gpus if gpu.board.name == board), key=lambda gpu: -gpu.compute_slices)
    others = [gpu for gpu in cluster.gpus if gpu.board.name != board]
    # Slices of a processor share the processors of their node, which another node would add.
    shares = cluster.processors is not None and own[0].board.arch == "cpu"
    node = own[0].id.node if shares else _SPARE_NODE + board
    size = math.inf if shares else max(Counter(gpu.id.node for gpu in own).values())
    known = {gpu.id for gpu in cluster.gpus}
    places = (place for place in _places(node, size) if place not in known)
    more = [Gpu(place, own[0].board, cost=own[0].cost) for place in itertools.islice(places, max(0, count - len(own)))]
    return replace(problem, cluster=replace(cluster, gpus=(*others, *own[:count], *more)))


def _places(node: str, size: float) -> Iterator[GpuId]:
    """Yields places for GPUs, without end: those of a node, and of further nodes with as many GPUs."""
    for number in itertools.count():
        more, index = divmod(number, size)
        yield GpuId(f"{node}.{more:g}" if more else node, int(index))
