"""Routes during a change: which workers serve the running fronts, and requests of which generation they serve.

Each entry of a route names the generations whose requests it may serve. A request is bound to one of them when its
first batch goes to a worker that not all of them share, and all its rows and tasks are then answered by that generation
(`native/core/generation.h`). So the workers of both generations can serve at once, and whichever is free takes the next
request. A generation is on the routes only while it has workers for every task of the graph.

Ensembles and BLS pipelines execute a request as several fronts, which do not know of each other. Their routes lead to
the workers of one generation only.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.compiler.bundle import Bundle, RouteEntry, TaskFront, Worker
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.graph.chain import Chain, as_task
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.runtime.chains import members

Route = tuple[RouteEntry, ...]
Routes = dict[str, Route]

Served = tuple[str, str]
"""(Worker, model)."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A task of a front that serves.

    Attributes:
        graph: Name of the graph.
        front: Task with its compiled route.
        own: Entries of its own generation that can serve, and those of the target with the same models.
        coming: Entries of the target that can serve; empty if the front cannot call the target's models.
    """

    graph: str
    front: TaskFront
    own: Route
    coming: Route


def interim_routes(
    actual: Actual, running: Generation | None, target: Generation, leaving: Collection[Served] = ()
) -> Routes:
    """Returns routes for the running fronts over the running generation's workers and over those of the target.

    As soon as the target has a worker for every task of a graph, it serves requests beside the running generation, and
    takes over the slices that have models of both, unless the running generation could then not serve and carries more.
    If neither has workers for every task, workers of the target replace those that the running generation lacks.

    Args:
        actual: Servers and models that exist now.
        running: Generation that serves; None if none does.
        target: Generation whose workers may help.
        leaving: Models to leave out.
    """
    if running is None:
        return {}
    routes: Routes = {}
    for graph, tasks in _by_graph(_serving(actual, running, target, leaving)).items():
        if not _binds(running, target, graph):
            routes |= {task.front.name: task.own or task.coming for task in tasks}
        elif all(task.coming for task in tasks):
            routes |= _both(tasks, running.bundle.generation, target.bundle.generation)
        else:
            old = (running.bundle.generation,)
            routes |= {task.front.name: _tagged(task.own or task.coming, old) for task in tasks}
    return routes


def canary_routes(actual: Actual, running: Generation, target: Generation, share: float) -> Routes:
    """Returns routes for the running fronts over the workers of both generations, each with its share of the requests.

    Args:
        actual: Servers and models that exist now, those of both generations.
        running: Generation that serves.
        target: Generation that gets the share.
        share: Share of the requests.
    """
    weights = {running.bundle.generation: 1.0 - share, target.bundle.generation: share}
    routes: Routes = {}
    for graph, tasks in _by_graph(_serving(actual, running, target)).items():
        if graph not in target.bundle.graphs:
            continue
        for task in tasks:
            own, coming = ({(e.worker, e.model): e for e in route} for route in (task.own, task.coming))
            routes[task.front.name] = tuple(
                replace(entry, generations=found, weights=tuple(weights[generation] for generation in found))
                for at, entry in (own | coming | own).items()
                if (found := tuple(g for g, entries in zip(weights, (own, coming), strict=True) if at in entries))
            )
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
    for graph, tasks in _by_graph(_serving(actual, running, target, leaving)).items():
        if _binds(running, target, graph) and all(task.coming for task in tasks):
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
        complete = {g for g in present | _generations(wanted, names) if all(_serves(wanted[n], g) for n in names)}
        leaving = sorted(present - complete)
        if not leaving or not complete:
            continue
        ending += [(graph, generation) for generation in leaving]
        for name in names:
            before = {(e.worker, e.model): e for e in actual.routes[name] if (e.worker, e.model) in alive}
            after = {(e.worker, e.model) for e in wanted[name]}
            bound = {at: tuple(g for g in e.generations if g in leaving) for at, e in before.items()}
            closed[name] = (
                *(_also(entry, bound.get((entry.worker, entry.model), ())) for entry in wanted[name]),
                *(
                    replace(e, generations=bound[at], weights=(), closed=True)
                    for at, e in before.items()
                    if bound[at] and at not in after
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


def _serves(route: Route, generation: int) -> bool:
    return any(not entry.generations or generation in entry.generations for entry in route)


def _both(tasks: Collection[Serving], old: int, new: int) -> Routes:
    """Returns routes over the workers of both generations. Models that both have serve the requests of both.

    A slice that has models of both serves the new generation. If the old one then lacks workers for a task, so that
    only one of them can serve, it is the one that carries more.
    """
    routes: Routes = {}
    for task in tasks:
        shared = {(e.worker, e.model) for e in task.own} & {(e.worker, e.model) for e in task.coming}
        taken_over = {e.worker for e in task.coming if (e.worker, e.model) not in shared}
        routes[task.front.name] = (
            *_tagged((e for e in task.own if (e.worker, e.model) in shared), (old, new)),
            *_tagged((e for e in task.own if (e.worker, e.model) not in shared and e.worker not in taken_over), (old,)),
            *_tagged((e for e in task.coming if (e.worker, e.model) not in shared), (new,)),
        )
    if all(_serves(route, old) for route in routes.values()):
        # Shares hold within a plan, not between two.
        return {name: tuple(replace(e, share=0.0) if e.share else e for e in route) for name, route in routes.items()}
    if all(task.own for task in tasks) and _carries_more((task.own, task.coming) for task in tasks):
        return {task.front.name: _tagged(task.own, (old,)) for task in tasks}
    only_new = {name: tuple(e for e in route if new in e.generations) for name, route in routes.items()}
    return {name: _tagged(route, (new,)) for name, route in only_new.items()}


def _carries_more(routes: Iterable[tuple[Route, Route]]) -> bool:
    """Returns True if a graph loses more by the second routes of its tasks than by the first ones.

    Args:
        routes: Two ways to serve each task, neither of which is empty.
    """
    ratios = [_items_per_s(first) / _items_per_s(second) for first, second in routes]
    return min(ratios) > 1 / max(ratios)


def _items_per_s(route: Route) -> float:
    """Returns the items a second that a route's models carry by their profiles, as if a batch took 1 s without one."""

    def per_ms(entry: RouteEntry) -> float:
        times = {int(size): ms for size, ms in entry.service_ms.items()} or {entry.batch: 1000.0}
        return entry.slots * max(size / ms for size, ms in times.items())

    return 1000.0 * sum(map(per_ms, route))


def _tagged(entries: Iterable[RouteEntry], generations: tuple[int, ...]) -> Route:
    return tuple(
        entry
        if (entry.generations, entry.weights, entry.closed) == (generations, (), False)
        else replace(entry, generations=generations, weights=(), closed=False)
        for entry in entries
    )


def _binds(running: Generation, target: Generation, graph: str) -> bool:
    """Returns True if requests of a graph can be bound to a generation: if one front executes the whole graph."""
    compiled = (generation.bundle.graphs.get(graph) for generation in (running, target))
    return all(found is None or found.target == "graph" for found in compiled)


def _by_graph(serving: Iterable[Serving]) -> dict[str, list[Serving]]:
    found: dict[str, list[Serving]] = {}
    for task in serving:
        found.setdefault(task.graph, []).append(task)
    return found


def _serving(
    actual: Actual, running: Generation, target: Generation, leaving: Collection[Served] = ()
) -> Iterator[Serving]:
    """Yields each task of the running generation that has a route."""
    alive = {
        worker.name: {m.name for m in worker.models if (worker.name, m.name) not in leaving}
        for worker in actual.workers.values()
    }
    extra = stand_ins(actual, running.bundle, target.bundle)

    def up(route: Iterable[RouteEntry], bundle: Bundle) -> Route:
        listed = tuple(route)
        found = [e for e in listed if e.model in alive.get(e.worker, ())]
        for name, original in extra.items():
            if original.name in bundle.workers and bundle.workers[original.name].models == original.models:
                found += [
                    replace(e, worker=name) for e in listed if e.worker == original.name and e.model in alive[name]
                ]
        return tuple(found)

    for graph, compiled in running.bundle.graphs.items():
        for task in compiled.every_task.values():
            if task.name in actual.routes:
                coming = up(_coming(running, target, graph, task.task), target.bundle)
                own = up(task.route, running.bundle)
                yield Serving(graph, task, (*own, *_more(own, coming, task)), coming)


def _more(own: Route, coming: Route, task: TaskFront) -> Route:
    """Returns the entries of the target that have the running generation's models on more workers."""
    shares = {entry.model: entry.share for entry in (*task.standby, *task.route)}
    known = {entry.worker for entry in own}
    same = (entry for entry in coming if entry.model in shares and entry.worker not in known)
    return tuple(replace(entry, share=shares[entry.model]) for entry in same)


def stand_ins(actual: Actual, *bundles: Bundle) -> dict[str, Worker]:
    """Returns the workers that exist but are in no bundle, with the bundles' worker of which each is a copy."""
    known = {name for bundle in bundles for name in bundle.workers}
    found = {}
    for name, worker in actual.workers.items():
        original = original_of(worker, bundles) if name not in known else None
        if original is not None:
            found[name] = original
    return found


def original_of(worker: Worker, bundles: Iterable[Bundle]) -> Worker | None:
    """Returns a worker of the bundles with the same models on the same kind of slice; None if there is none."""
    return next((w for bundle in bundles for w in bundle.workers.values() if _alike(w, worker)), None)


def _alike(one: Worker, other: Worker) -> bool:
    if one.place is None or other.place is None:
        return False
    kinds = [(w.place.board, w.place.placement.slice, w.process) for w in (one, other) if w.place is not None]
    return one.models == other.models and kinds[0] == kinds[1]


def _coming(running: Generation, target: Generation, name: str, task: str) -> Route:
    """Returns the target's route for a task; empty if the running graph cannot call its models."""
    if running.bundle is target.bundle:
        return ()
    old, new, compiled = running.wanted.graphs.get(name), target.wanted.graphs.get(name), target.bundle.graphs.get(name)
    if old is None or new is None or compiled is None or not _same_call(old, new, task):
        return ()
    return next((t.route for t in compiled.every_task.values() if t.task == task), ())


def _same_call(old: TaskGraph, new: TaskGraph, task: str) -> bool:
    """Returns True if a task or chain of the old graph can call models that were compiled for the new graph."""
    if task in old.steps or task in new.steps:
        return old.steps.get(task) == new.steps.get(task)
    if not old.tasks.keys() & new.tasks.keys() >= set(members(task)):
        return False
    before, after = _called(old, task), _called(new, task)
    return dict(before.outputs) == dict(after.outputs) and {n: old.input_type(before, n) for n in before.inputs} == {
        n: new.input_type(after, n) for n in after.inputs
    }


def _called(graph: TaskGraph, name: str) -> Task:
    """Returns a task, or a chain as one task with an arbitrary choice of variants."""
    names = members(name)
    if len(names) == 1:
        return graph.tasks[name]
    return as_task(graph, Chain(names, tuple(graph.tasks[task].variants[0].name for task in names)))
