"""Capacity of graphs at each moment of a change, and which generation then answers the requests of each graph. Pure.

The replicas at a moment are an array of calls a second, with three axes. The last is the variants' (`Service`). The
middle one is the generations: replicas of the running generation alone, of the target alone, and of both. The first
axis is for slices that have loaded the models of the target beside those that serve. Until the change ends, such a
slice can serve either generation, but not both at once. Either all of these slices keep their models, or the target
takes all of them over.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jigsaw_triton.planner.capacity import Array, Service
from jigsaw_triton.planner.domain.difference import Place
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.transition.answering import (
    NOTHING,
    RUNNING,
    TARGET,
    Answering,
    Replicas,
    alone,
    answering,
    apart,
    lacking,
)
from jigsaw_triton.planner.transition.generations import Generations

_KEPT, _TAKEN = 0, 1


@dataclass(frozen=True, slots=True)
class Moment:
    """Moment of a change.

    Attributes:
        capacities_rps: Capacity of each graph of the target, in requests a second.
        shares: Graph -> share of its requests that the target answers; None if the first replica that is free decides.
        taken: True if the target takes over the slices that have its models beside those of the running generation.
    """

    capacities_rps: Mapping[str, float]
    shares: Mapping[str, float | None]
    taken: bool


def at_last(capacities_rps: Mapping[str, float]) -> Moment:
    """Returns the moment from which on the target answers all requests."""
    return Moment(capacities_rps, dict.fromkeys(capacities_rps, TARGET), taken=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """Way to use slices that have models of both generations.

    Attributes:
        capacities_rps: Capacity of each graph, in requests a second.
        mixed: 1 for each graph of which neither generation has all tasks, and 0 for the others.
        answered: Answering of each graph.
    """

    capacities_rps: Array
    mixed: Array
    answered: tuple[Answering, ...]


class Interim:
    """Capacity of graphs between two generations.

    Args:
        service: Capacity of replicas by the plans of both generations.
        generations: Generations of the models.
        running: Running plan, with all models that exist; None if nothing runs.

    Attributes:
        service: Capacity of replicas.
        generations: Generations of the models.
        start: Replicas at the start.
    """

    def __init__(self, service: Service, generations: Generations, running: Plan | None) -> None:
        self.service, self.generations = service, generations
        self._runs = running.graphs.keys() if running is not None else frozenset[str]()
        self._known: dict[tuple[str, bytes], Answering] = {}
        self._names, self._held_rps = list(service.graphs), np.array(list(service.held_rps.values()))
        number = {name: i for i, name in enumerate(self._names)}
        self._number_at = np.array([number[name] for name in service.graph_at])
        nothing = _Way(np.zeros(len(number)), np.zeros(len(number)), (NOTHING,) * len(number))
        self._last = self.nothing, (nothing, nothing), True
        start = self.nothing[_KEPT]
        for gpu in running.gpus if running is not None else ():
            for placed in gpu.layout:
                place = (gpu.id, placed.placement)
                groups = [generations.of_existing(place, model) for model in placed.models]
                self._add(start, placed.models, gpu.model, placed.placement.slice, groups)
        self.start: Array = np.stack([start, start])

    @property
    def nothing(self) -> Array:
        """No replicas."""
        return np.zeros((2, 3, len(self.service.start)))

    def existing(self, place: Place, models: tuple[PlacedModel, ...], board: str) -> Array:
        """Returns the calls a second of models that exist in a slice, by generation."""
        groups = [self.generations.of_existing(place, model) for model in models]
        return self._add(self.nothing[_KEPT], models, board, place[1].slice, groups)

    def wanted(self, place: Place, models: tuple[PlacedModel, ...], board: str) -> Array:
        """Returns the calls a second of models of the target in a slice, by generation."""
        groups = [self.generations.of_wanted(place, model) for model in models]
        return self._add(self.nothing[_KEPT], models, board, place[1].slice, groups)

    def _add(
        self,
        rates: Array,
        models: tuple[PlacedModel, ...],
        board: str,
        kind: str,
        groups: Sequence[tuple[bool, bool]],
    ) -> Array:
        """Adds the calls a second of the models in a slice, except those of neither generation."""
        serving = {model: group for model, group in zip(models, groups, strict=True) if any(group)}
        for column, model, rate in self.service.calls(tuple(serving), board, kind):
            old, new = serving[model]
            rates[2 if old and new else 1 if new else 0, column] += rate
        return rates

    def at(self, state: Array) -> Moment:
        """Returns the moment with these replicas."""
        way, taken = self._best_way(state)
        named = dict(zip(self._names, way.answered, strict=True))
        return Moment(
            {name: answered.capacity_rps for name, answered in named.items()},
            {name: answered.share for name, answered in named.items()},
            taken,
        )

    def capacities(self, state: Array) -> Mapping[str, float]:
        """Returns the capacity of each graph, in requests a second."""
        return dict(zip(self._names, self._best_way(state)[0].capacities_rps.tolist(), strict=True))

    def _best_way(self, state: Array) -> tuple["_Way", bool]:
        """Returns the better of both ways to use slices with models of both generations; True if these are taken."""
        # A transition of a large cluster asks for thousands of moments, between which only few graphs change.
        last, ways, taken = self._last
        columns = np.flatnonzero(state != last) % state.shape[-1]
        if columns.size:
            changed = sorted(set(self._number_at[columns].tolist()))
            kept = self._changed(ways[_KEPT], changed, state[_KEPT])
            if np.array_equal(state[_KEPT], state[_TAKEN]):
                ways, taken = (kept, kept), not self.generations.separate
            else:
                ways = kept, self._changed(ways[_TAKEN], changed, state[_TAKEN])
                taken = self._is_taken(state, *ways)
            self._last = state, ways, taken
        return ways[_TAKEN if taken else _KEPT], taken

    def _changed(self, way: "_Way", numbers: Sequence[int], replicas: Array) -> "_Way":
        """Returns a way in which the replicas of some graphs are others."""
        capacities_rps, mixed, answered = way.capacities_rps.copy(), way.mixed.copy(), list(way.answered)
        for number in numbers:
            found = self._remembered(self._names[number], replicas)
            capacities_rps[number], mixed[number], answered[number] = found.capacity_rps, found.mixed, found
        return _Way(capacities_rps, mixed, tuple(answered))

    def _is_taken(self, state: Array, kept: "_Way", taken: "_Way") -> bool:
        reluctant = False
        if self.generations.separate or self.generations.reluctant:
            columns = np.flatnonzero((state[_KEPT] != state[_TAKEN]).any(axis=0)).tolist()
            graphs = {self.service.graph_at[column] for column in columns}
            if graphs & self.generations.separate:
                return False
            reluctant = bool(graphs & self.generations.reluctant)
        mixed = kept.mixed.sum(), taken.mixed.sum()
        if any(mixed):
            return bool(mixed[_TAKEN] < mixed[_KEPT])
        lack = self._lack_rps(kept), self._lack_rps(taken)
        return lack[_TAKEN] < lack[_KEPT] or (lack[_TAKEN] == lack[_KEPT] and not reluctant)

    def _lack_rps(self, way: "_Way") -> float:
        """Returns the sum of the graphs' shortfalls, in requests a second."""
        short = self._held_rps - way.capacities_rps
        return float(short[short > TOLERANCE * self._held_rps].sum())

    def _remembered(self, name: str, replicas: Array) -> Answering:
        part = replicas[:, self.service.columns[name]]
        key = (name, part.tobytes())
        if (known := self._known.get(key)) is None:
            known = self._known[key] = self._answering(name, part)
        return known

    def _answering(self, name: str, part: Array) -> Answering:
        if name not in self._runs:
            return NOTHING
        graph, replicas, mixes = self.service.graphs[name], self._replicas(name, part), self.service.mixes(name)
        if name in self.generations.separate:
            return apart(graph, replicas, mixes[0])
        if name in self.generations.reluctant:
            alone_rps = min(alone(graph, replicas, mixes[0]).capacity_rps, self.service.before_rps[name])
            if alone_rps >= self.service.held_rps[name] * (1 - TOLERANCE):
                return Answering(alone_rps, RUNNING)
        return answering(graph, replicas, *mixes)

    def _replicas(self, name: str, part: Array) -> Replicas:
        running, target, both = (self.service.by_variant(name, rates) for rates in part)
        return Replicas(running, target, both)

    def missing(self, capacities_rps: Mapping[str, float]) -> dict[str, float]:
        """Returns the shortfall of each graph that lacks capacity, in requests a second."""
        held_rps = self.service.held_rps
        short = {name: held - capacities_rps[name] for name, held in held_rps.items()}
        return {name: lack for name, lack in short.items() if lack > TOLERANCE * held_rps[name]}

    def missing_rps(self, state: Array) -> float:
        """Returns the sum of the graphs' shortfalls, in requests a second."""
        return self._lack_rps(self._best_way(state)[0])

    def distance(self, state: Array) -> float:
        """Returns the sum of the tasks' shortfalls, in requests a second of their graphs; 0 if nothing is missing.

        More capacity for a task that lacks some makes it smaller, even while another task limits the graph.
        """
        (way, taken), service = self._best_way(state), self.service
        if not self._lack_rps(way):
            return 0.0
        serving = state[_TAKEN if taken else _KEPT]
        return sum(
            lacking(
                service.graphs[name], self._replicas(name, serving[:, service.columns[name]]), service.held_rps[name]
            )
            for name in self.missing(dict(zip(self._names, way.capacities_rps.tolist(), strict=True)))
        )

    def slack(self, state: Array) -> float:
        """Returns the least ratio of a graph's capacity to the capacity that it should keep."""
        demanded = self._held_rps > 0
        ratios = self._best_way(state)[0].capacities_rps[demanded] / self._held_rps[demanded]
        return float(ratios.min(initial=math.inf))
