"""Standby variants: when they take over from the usual ones, when they give back, and the routes meanwhile. Pure.

Some slices hold a lighter variant beside the one that serves (`planner/standby.py`). If the arrivals of a graph exceed
what its usual variants carry, one change of its routes replaces them by their standby variants, until a new plan or a
lower load. The models stay loaded, and requests stay bound to the same generation. Each batch goes to the variant that
is on the route when it is formed, so batches of one request may be answered by both. During a change, standby variants
answer no requests of a generation that lacks them.

A transition goes on with whichever variants serve (`in_service`): the routes lead to them until the new plan serves. If
they switch while new workers start, its remaining stages are computed again.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.compiler.bundle import CompiledGraph, RouteEntry, TaskFront, Worker
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.settings import Settings

Route = tuple[RouteEntry, ...]

BURST_DEVIATIONS = 5.0
"""Standard deviations of a Poisson count by which arrivals must exceed the capacity. In a simulation of arrivals at 95%
of the capacity, from 20 to 1000 requests a second, noise exceeded this at most once an hour."""

SHORTEST_S, LONGEST_S = 0.15, 4.0
"""Seconds of the windows of arrivals in which a burst is looked for. The counts of very short windows are far from a
normal distribution, so noise would look like a burst. A small excess shows only in a long window, and after the longest
one the controller plans again."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Arrivals of a graph between two readings of the gateway's counters.

    Attributes:
        at_s: Time of the second reading.
        seconds: Seconds between the two.
        requests: Number of requests that arrived.
    """

    at_s: float
    seconds: float
    requests: float


@dataclass(frozen=True, slots=True)
class RecentArrivals:
    """Recent arrivals of a graph that has standby variants.

    Attributes:
        usual_rps: Capacity of its usual variants, in requests a second.
        readings: Readings since the last switch, of the last `Settings.standby_hold_s`, oldest first.
    """

    usual_rps: float
    readings: tuple[Reading, ...] = ()

    def with_reading(self, reading: Reading, settings: Settings) -> "RecentArrivals":
        """Returns a copy with one more reading and without those that are too old."""
        kept = tuple(r for r in self.readings if r.at_s > reading.at_s - settings.standby_hold_s)
        return replace(self, readings=(*kept, reading))

    @property
    def rps(self) -> float:
        """Arrival rate of the last reading."""
        return self.readings[-1].requests / self.readings[-1].seconds if self.readings else 0.0

    def bursts(self) -> bool:
        """Returns True if more requests have arrived lately than the usual variants carry and noise explains."""
        seconds = requests = 0.0
        for reading in reversed(self.readings):
            seconds, requests = seconds + reading.seconds, requests + reading.requests
            carried = self.usual_rps * seconds
            if seconds >= SHORTEST_S and requests > carried + BURST_DEVIATIONS * math.sqrt(carried):
                return True
            if seconds >= LONGEST_S:
                break
        return False

    def is_calm(self, settings: Settings) -> bool:
        """Returns True if the usual variants would have carried all requests of the last `standby_hold_s`."""
        seconds = sum(reading.seconds for reading in self.readings)
        requests = sum(reading.requests for reading in self.readings)
        return seconds >= 0.9 * settings.standby_hold_s and requests <= self.usual_rps * seconds


def to_serve(serving: frozenset[str], arrivals: Mapping[str, RecentArrivals], settings: Settings) -> frozenset[str]:
    """Returns the graphs that standby variants should serve from now on.

    Args:
        serving: Graphs that they serve now.
        arrivals: Graph -> its recent arrivals; graphs without standby variants are absent.
        settings: Settings, with the time to hold.
    """
    burst = {name for name, recent in arrivals.items() if name not in serving and recent.bursts()}
    held = {name for name, recent in arrivals.items() if name in serving and not recent.is_calm(settings)}
    return frozenset(burst | held)


def routes_to_set(
    actual: Actual, running: Generation, serving: Collection[str], target: Generation | None = None
) -> dict[str, Route]:
    """Returns the routes of the running generation that lead to the wrong variants, as they should be.

    Args:
        actual: Servers, models and routes that exist now.
        running: Generation that serves.
        serving: Graphs that standby variants should serve.
        target: Generation to which a change leads, whose requests only its own variants may answer; None for none.
    """
    found = {}
    for name, graph in running.bundle.graphs.items():
        for task in graph.every_task.values():
            if task.standby and task.name in actual.routes:
                route = _with_variants(actual.routes[task.name], task, actual, standby=name in serving, beside=target)
                if route != actual.routes[task.name]:
                    found[task.name] = route
    return found


def in_service(generation: Generation, actual: Actual, serving: Collection[str]) -> Generation:
    """Returns a generation in which standby variants have the places of the usual ones, where they are loaded.

    Args:
        generation: Generation as compiled.
        actual: Servers and models that exist now.
        serving: Graphs that standby variants serve.
    """
    if not serving:
        return generation
    made = generation.bundle
    graphs = {name: _graph(graph, actual) if name in serving else graph for name, graph in made.graphs.items()}
    workers = {name: _worker(worker, actual, serving) for name, worker in made.workers.items()}
    return replace(generation, bundle=replace(made, workers=workers, graphs=graphs))


def idle(worker: Worker, running: Generation | None) -> frozenset[str]:
    """Returns the names of a worker's models that stand by, while others have their places on the routes.

    Args:
        worker: Worker with its loaded models.
        running: Generation in service; None if there is none.
    """
    known = running.bundle.workers.get(worker.name) if running is not None else None
    loaded = {model.name for model in worker.models}
    if known is None or not all(model.name in loaded for model in known.models):
        return frozenset()
    return frozenset(model.name for model in known.standby)


def _graph(graph: CompiledGraph, actual: Actual) -> CompiledGraph:
    tasks = tuple(_task(task, actual) for task in graph.tasks)
    return replace(graph, tasks=tasks, apart=_graph(graph.apart, actual) if graph.apart is not None else None)


def _task(task: TaskFront, actual: Actual) -> TaskFront:
    route = _with_variants(task.route, task, actual, standby=True)
    served = {(entry.worker, entry.model) for entry in route}
    # The usual variants stay among those that may answer, since other workers may have only them.
    spare = (entry for entry in (*task.route, *task.standby) if (entry.worker, entry.model) not in served)
    return replace(task, route=route, standby=tuple(spare))


def _worker(worker: Worker, actual: Actual, serving: Collection[str]) -> Worker:
    if not worker.standby or worker.standby[0].graph not in serving:
        return worker
    if not all(_is_loaded(actual, worker.name, model.name) for model in worker.standby):
        return worker
    return replace(worker, models=worker.standby, standby=worker.models)


def _with_variants(
    route: Route, task: TaskFront, actual: Actual, *, standby: bool, beside: Generation | None = None
) -> Route:
    """Returns a route over the standby variants of its workers, or the usual ones, where these are loaded.

    Args:
        route: Present route.
        task: Task as compiled.
        actual: Servers and models that exist now.
        standby: True for standby variants, False for the usual ones.
        beside: Generation that may lack the variants of the task's own one; None for none.
    """
    usual = {entry.worker: entry for entry in task.route}
    other = {entry.worker: entry for entry in task.standby}

    def wanted(entry: RouteEntry) -> RouteEntry:
        one, two = usual.get(entry.worker), other.get(entry.worker)
        if one is None or entry.model not in {one.model, two.model if two is not None else ""}:
            return entry
        chosen = two if standby and two is not None else one
        # A change may have unloaded the chosen variant to make room, or may not have loaded it yet.
        return chosen if _is_loaded(actual, entry.worker, chosen.model) else entry

    found: dict[tuple[str, str], RouteEntry] = {}
    staying: list[RouteEntry] = []
    for entry in route:
        chosen = wanted(entry)
        lacks = beside is not None and chosen is not entry and not _gives(beside, actual, chosen)
        without = {beside.bundle.generation} if beside is not None and lacks else set[int]()
        if without & {*entry.generations} and chosen.model != entry.model:
            staying.append(_bound(entry, entry, without))
        if not entry.generations or {*entry.generations} - without:
            kept = _bound(chosen, entry, {*entry.generations} - without)
            at = entry.worker, chosen.model
            found[at] = _joined(found[at], kept) if at in found else kept
    # Requests of the other generation still need the replaced variants if they have no others or a share of their own.
    answered = {number for entry in found.values() for number in entry.generations}
    entries = (*found.values(), *(e for e in staying if e.weights or not answered.issuperset(e.generations)))
    if {(e.worker, e.model) for e in entries} & {(e.worker, e.model) for e in task.standby}:
        # The plan's shares hold for the usual variants only.
        return tuple(replace(entry, share=0.0) for entry in entries)
    return entries


def _gives(generation: Generation, actual: Actual, entry: RouteEntry) -> bool:
    """Returns True if a generation has a model with the same answers as an entry's."""
    model = next(m for m in actual.workers[entry.worker].models if m.name == entry.model)
    workers = generation.bundle.workers.values()
    return any(m.answers == model.answers for worker in workers for m in (*worker.models, *worker.standby))


def _bound(entry: RouteEntry, like: RouteEntry, numbers: Collection[int]) -> RouteEntry:
    """Returns an entry for those of the generations of another entry."""
    weights = dict(zip(like.generations, like.weights, strict=False))
    generations = tuple(number for number in like.generations if number in numbers)
    bound = tuple(weights[number] for number in generations if number in weights)
    return replace(entry, generations=generations, weights=bound, closed=like.closed)


def _joined(one: RouteEntry, other: RouteEntry) -> RouteEntry:
    """Returns an entry for the generations of two entries with the same model."""
    weights = dict(zip((*one.generations, *other.generations), (*one.weights, *other.weights), strict=False))
    numbers = tuple(sorted({*one.generations, *other.generations}))
    return replace(one, generations=numbers, weights=tuple(weights[n] for n in numbers if n in weights))


def _is_loaded(actual: Actual, worker: str, model: str) -> bool:
    found = actual.workers.get(worker)
    return found is not None and any(loaded.name == model for loaded in found.models)
