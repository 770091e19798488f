"""Routes during a change: which workers serve the running fronts, and requests of which generation they serve.

Each entry of a route names the generations whose requests it may serve. A request is bound to one of them when its
first batch goes to a worker that not all of them share, and all its rows and tasks are then answered by that generation
(`native/core/generation.h`). So the workers of both generations can serve at once, and whichever is free takes the next
request. If that choice would leave another task of the request without capacity, entries have weights instead, which
bind a request when it arrives. A generation is on the routes only while it has workers for every task of the graph.
Models with the same content belong to both generations, wherever they are. After a failed change, this
includes models of the generation that failed.

Ensembles and BLS pipelines execute a request as several fronts, which do not know of each other. Their routes lead to
the workers of one generation only.

A worker on a lost GPU answers nothing. The functions here get a record without such workers, so that a generation that
has no other worker for a task counts as incomplete: its requests end before other models take the place of those that
are left.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from jigsaw_triton.compiler.bundle import RouteEntry
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.counterparts import binds
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.serving import Route, Served, Serving, by_graph, serving_tasks
from jigsaw_triton.planner.transition.answering import RUNNING, TARGET
from jigsaw_triton.planner.transition.interim import Moment

Routes = dict[str, Route]


def interim_routes(
    actual: Actual, running: Generation | None, target: Generation, moment: Moment, leaving: Collection[Served] = ()
) -> Routes:
    """Returns routes for the running fronts over the running generation's workers and over those of the target.

    The planner says which generation answers the requests of each graph. A generation that lacks a worker for a task
    answers none. If both do, workers of the target replace those that the running generation lacks.

    Args:
        actual: Servers and models that exist now.
        running: Generation that serves; None if none does.
        target: Generation whose workers may help.
        moment: Moment of the change, as the planner sees it.
        leaving: Models to leave out.
    """
    if running is None:
        return {}
    routes: Routes = {}
    old, new = running.bundle.generation, target.bundle.generation
    hidden = set(_double(actual, running, target, taken=moment.taken))
    serving = by_graph(serving_tasks(actual, running, target, {*leaving, *hidden}))
    untaken = by_graph(serving_tasks(actual, running, target, leaving)) if moment.taken and hidden else serving
    for graph, tasks in serving.items():
        if not all(task.coming for task in tasks):
            # The target cannot serve this graph yet, so the running generation keeps its slices.
            tasks = untaken[graph]
        share = moment.shares.get(graph, RUNNING)
        complete = all(task.own for task in tasks), all(task.coming for task in tasks)
        if not binds(running, target, graph):
            routes |= {task.front.name: task.own or task.coming for task in tasks}
        elif not complete[1] or (complete[0] and share == RUNNING):
            routes |= {task.front.name: _tagged(task.own or task.coming, (old,)) for task in tasks}
        elif not complete[0] or share == TARGET:
            routes |= {task.front.name: _tagged(task.coming, (new,)) for task in tasks}
        else:
            weights = {old: 1.0 - share, new: share} if share is not None else {}
            # The shares of variants hold within a plan, not between two.
            routes |= {task.front.name: _any_share(_both(task, old, new, weights)) for task in tasks}
    return routes


def _double(actual: Actual, running: Generation, target: Generation, *, taken: bool) -> Iterator[Served]:
    """Yields the models that must not serve on workers that have loaded the models of both generations.

    They are those of the running generation if the target takes these workers over, and otherwise the target's.
    """
    for name, worker in target.bundle.workers.items():
        before, existing = running.bundle.workers.get(name), actual.workers.get(name)
        if before is worker or before is None or existing is None:
            continue
        loaded = {model.name for model in existing.models}
        old, new = ({model.name for model in made.models} & loaded for made in (before, worker))
        if old - new and new - old:
            yield from ((name, model) for model in (old - new if taken else new - old))


def canary_routes(actual: Actual, running: Generation, target: Generation, share: float) -> Routes:
    """Returns routes for the running fronts over the workers of both generations, each with its share of the requests.

    Each generation answers with the workers of its own plan and divides its requests among variants as planned, so that
    the canary shows how the target will serve.

    Args:
        actual: Servers and models that exist now, those of both generations.
        running: Generation that serves.
        target: Generation that gets the share.
        share: Share of the requests.
    """
    weights = {running.bundle.generation: 1.0 - share, target.bundle.generation: share}
    routes: Routes = {}
    for graph, tasks in by_graph(serving_tasks(actual, running, target, same=False)).items():
        if graph not in target.bundle.graphs:
            continue
        routes |= {
            task.front.name: _both(task, running.bundle.generation, target.bundle.generation, weights) for task in tasks
        }
    return routes


def handover(actual: Actual, running: Generation | None, target: Generation) -> Routes:
    """Returns routes for the running fronts over the target's workers alone, for each graph that these can serve.

    The new generation's capacity then serves the requests in the old generation's queues.
    """
    if running is None or running.bundle is target.bundle:
        return {}
    others = (worker for name, worker in actual.workers.items() if name not in target.bundle.workers)
    leaving = {(worker.name, model.name) for worker in others for model in worker.models}
    routes: Routes = {}
    for graph, tasks in by_graph(serving_tasks(actual, running, target, leaving, same=False)).items():
        if binds(running, target, graph) and all(task.coming for task in tasks):
            routes |= {task.front.name: _tagged(task.coming, (target.bundle.generation,)) for task in tasks}
    return routes


def closing(actual: Actual, wanted: Mapping[str, Route]) -> tuple[Routes, tuple[tuple[str, int], ...]]:
    """Returns the routes to set before others, so that requests bound to a generation that leaves the routes can end.

    A generation leaves the routes of a graph if it has no worker for one of its tasks any more. Its entries stay,
    closed for requests that another generation can serve.

    Args:
        actual: Servers, models and routes that exist now.
        wanted: Name of a route -> entries to set at last.

    Returns:
        The routes, and the (graph, generation) pairs whose requests must end before `wanted` is set. Both are empty if
        no generation leaves, or if none would remain, so that requests have nowhere else to go.
    """
    alive = {(w.name, m.name) for w in actual.workers.values() for m in w.models}
    by_graph: dict[str, list[str]] = {}
    for name in wanted:
        if name in actual.routes:
            by_graph.setdefault(graph_of(name), []).append(name)
    closed: Routes = {}
    ending: list[tuple[str, int]] = []
    for graph, names in by_graph.items():
        present = {g for name in names for e in actual.routes[name] for g in e.generations}
        after = {name: [e for e in wanted[name] if (e.worker, e.model) in alive] for name in names}
        complete = {g for g in present | _generations(wanted, names) if all(serves(after[n], g) for n in names)}
        leaving = sorted(present - complete)
        if not leaving or not complete:
            continue
        ending += [(graph, generation) for generation in leaving]
        for name in names:
            before = {(e.worker, e.model): e for e in actual.routes[name] if (e.worker, e.model) in alive}
            stays = {(e.worker, e.model) for e in wanted[name]}
            bound = {at: tuple(g for g in e.generations if g in leaving) for at, e in before.items()}
            closed[name] = (
                *(_also(entry, bound.get((entry.worker, entry.model), ())) for entry in wanted[name]),
                *(
                    replace(e, generations=bound[at], weights=(), closed=True)
                    for at, e in before.items()
                    if bound[at] and at not in stays
                ),
            )
    return closed, tuple(ending)


def _also(entry: RouteEntry, generations: tuple[int, ...]) -> RouteEntry:
    """Returns an entry that serves these generations, too."""
    if not entry.generations:
        return entry
    return replace(entry, generations=tuple(sorted({*entry.generations, *generations})), weights=())


def graph_of(route: str) -> str:
    """Returns the graph of a route: names of routes are `<graph>.<task>.g<generation>`."""
    return route.partition(".")[0]


def generation_of(route: str) -> int:
    """Returns the generation that added a route: names of routes are `<graph>.<task>.g<generation>`."""
    return int(route.rpartition(".g")[2])


def _generations(routes: Mapping[str, Route], names: Iterable[str]) -> set[int]:
    return {generation for name in names for entry in routes[name] for generation in entry.generations}


def opened(route: Iterable[RouteEntry]) -> set[Served]:
    """Returns the models to which a route leads new requests."""
    return {(entry.worker, entry.model) for entry in route if not entry.closed}


def serves(route: Iterable[RouteEntry], generation: int) -> bool:
    """Returns True if a route has an entry that may answer requests of a generation."""
    return any(not entry.generations or generation in entry.generations for entry in route)


def _both(task: Serving, old: int, new: int, weights: Mapping[int, float]) -> Route:
    """Returns a route over the workers of both generations. Models that both have serve the requests of both.

    Args:
        task: Task.
        old: Number of the running generation.
        new: Number of the target.
        weights: Share of the requests that are bound to each generation on arrival; empty if the first worker that is
            free decides.
    """
    own, coming = ({(e.worker, e.model): e for e in route} for route in (task.own, task.coming))
    route = []
    for at, entry in (own | coming | own).items():
        found = tuple(number for number, entries in ((old, own), (new, coming)) if at in entries)
        bound = tuple(weights[number] for number in found) if weights else ()
        route.append(replace(entry, generations=found, weights=bound, closed=False))
    return tuple(route)


def _any_share(route: Route) -> Route:
    return tuple(replace(entry, share=0.0) for entry in route)


def _tagged(entries: Iterable[RouteEntry], generations: tuple[int, ...]) -> Route:
    return tuple(
        entry
        if (entry.generations, entry.weights, entry.closed) == (generations, (), False)
        else replace(entry, generations=generations, weights=(), closed=False)
        for entry in entries
    )
