"""Curves of plans: the requests that the servers of a plan answer on time, by load.

A planner's own capacity says little about another planner's plans: the paper's counts on replicas that are always busy.
`Measured` makes comparable curves for all of them. It simulates the servers of a plan event by event at several steady
loads.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from jigsaw_triton.evaluation.simulator.accounting import Curve, all_on_time
from jigsaw_triton.evaluation.simulator.arrivals import poisson
from jigsaw_triton.evaluation.simulator.simulate import simulate, stations
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import Plan, PlannedGpu
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.domain.processors import processor_load
from jigsaw_triton.planner.domain.throughput import graph_throughput_rps
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable

MakeCurve = Callable[[TaskGraph, Sequence[PlannedGpu], ProfileTable, float], Curve]
"""Function of a graph, the GPUs of a plan, the profiles, and the plan's capacity, that returns the plan's curve."""

LOADS = (0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1)
"""Loads at which plans are simulated, as shares of the profiled throughput of all replicas."""

REQUESTS = 6000
"""Fewest requests simulated at each load: a share of late requests of 0.1% is known within 0.04 points."""

_SLOS = 30.0
"""Fewest latency SLOs for which each load lasts, because a short overload is answered on time. A convention."""

_WARM_UP = 0.1
"""Share of the requests at the beginning that are not counted, because queues start empty."""


def planned(graph: TaskGraph, gpus: Sequence[PlannedGpu], profiles: ProfileTable, capacity_rps: float) -> Curve:
    """Returns the curve that the planner assumes: all requests are on time up to the plan's capacity."""
    return all_on_time(capacity_rps)


def within_processors(
    curves: Mapping[str, Curve], plan: Plan, problem: Problem, *, standby: bool = False
) -> dict[str, Curve]:
    """Returns the curve of each graph, limited to what the processors carry that the slices of the plan share.

    Args:
        curves: Graph -> curve of the servers, each of which has the machine to itself.
        plan: Plan of the servers.
        problem: Problem that it was made for.
        standby: True if standby variants serve.
    """
    load = processor_load(plan, problem, standby=standby)
    return {name: curve if load is None else curve.limited(load.carried_rps[name]) for name, curve in curves.items()}


class Measured:
    """Maker of curves that simulates the servers of a plan event by event, with early drops; see `simulate.simulate`.

    Curves are remembered by the replicas of the plan, wherever they are placed. A load is simulated when a curve is
    first asked about it, since most plans serve for a short time, at one or two of the loads.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._known: dict[tuple[str, frozenset[tuple[ProfileKey, int]]], Curve] = {}

    def __call__(
        self, graph: TaskGraph, gpus: Sequence[PlannedGpu], profiles: ProfileTable, capacity_rps: float
    ) -> Curve:
        """Returns the curve of a plan."""
        replicas = Counter(
            ProfileKey(gpu.model, m.task, m.variant, placed.placement.slice, m.instances, m.batch)
            for gpu in gpus
            for placed in gpu.layout
            for m in placed.models
            if m.graph == graph.name
        )
        key = (graph.name, frozenset(replicas.items()))
        if key not in self._known:
            self._known[key] = self._measured(graph, gpus, profiles, replicas)
        return self._known[key]

    def _measured(
        self, graph: TaskGraph, gpus: Sequence[PlannedGpu], profiles: ProfileTable, replicas: Counter[ProfileKey]
    ) -> Curve:
        usable: dict[str, dict[str, float]] = {name: {} for name in graph.tasks}
        for key, count in replicas.items():
            row = profiles.get(key)
            if row is not None:
                of_task = usable[key.task]
                of_task[key.variant] = of_task.get(key.variant, 0.0) + count * row.throughput_rps
        full_rps = graph_throughput_rps(graph, usable, usable)
        servers = stations(graph.name, gpus, profiles)
        if full_rps <= 0 or servers.keys() < graph.tasks.keys():
            return all_on_time(0.0)
        loads_rps = (0.0, *(load * full_rps for load in LOADS))

        @cache
        def answered_rps(number: int) -> float:
            rng = np.random.default_rng((self._seed, number - 1))
            requests = max(REQUESTS, math.ceil(_SLOS * graph.slo.latency_ms / 1000 * loads_rps[number]))
            arrivals_s = poisson(loads_rps[number], requests, rng)
            found = simulate(graph, servers, arrivals_s, seed=self._seed, drops=True)
            counted = found.latency_ms[int(_WARM_UP * requests) :]
            return loads_rps[number] * float((counted <= graph.slo.latency_ms).mean())

        @cache
        def on_time_rps(number: int) -> float:
            # A gateway that refuses the excess answers at least as many requests as at any lower load. The lower load
            # itself is the most that could be answered there.
            found_rps = 0.0
            while loads_rps[number] > found_rps:
                found_rps = max(found_rps, answered_rps(number))
                number -= 1
            return found_rps

        return Curve(loads_rps, on_time_rps)
