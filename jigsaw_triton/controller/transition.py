"""Transitions from the running generation to a new one: stages of actions in an order that keeps requests flowing.

The order is make before break. Workers whose place is free start first. If a new MIG instance needs the place of an old
worker, the old one is removed from the routes of the running generation, drained and retired, and the new one starts in
its place. This happens for one place after another, in the order that keeps the most capacity of every task in service.
Then the fronts switch to the new generation, and the rest of the old one is removed.

If a worker that must make room executes a chain in one call, the fronts of the running generation first switch to
calling its tasks one by one, since only a worker with the same chain could take over calls of the chain.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph, Place, Worker, WorkerModel
from jigsaw_triton.controller import actions as a
from jigsaw_triton.controller.actual import Actual
from jigsaw_triton.controller.generation import Generation
from jigsaw_triton.controller.interim_routes import handover, interim_routes
from jigsaw_triton.gpus.catalog import CATALOG


@dataclass(frozen=True, slots=True)
class Stage:
    """Actions that may be carried out concurrently. The next stage waits for all of them.

    Attributes:
        title: Description for the event log.
        actions: Actions of the stage. Only a stage that commits may have none.
        commits: True if the new generation serves after this stage, so that a rollback is no longer possible.
    """

    title: str
    actions: tuple[a.Action, ...]
    commits: bool = False


def stages_to(actual: Actual, running: Generation | None, target: Generation) -> tuple[Stage, ...]:
    """Returns the stages of the transition to a generation.

    Args:
        actual: Servers, models and routes that exist now.
        running: Generation that serves; None if none does.
        target: Generation to serve next.

    Returns:
        Stages in order, without those that have nothing to do.
    """
    bundle = target.bundle
    stages = _make(actual, running, target)
    actual = _after(actual, stages)
    stages.append(_load_gateway(actual, running, target))
    actual = _after(actual, stages[-1:])
    fronts = tuple(
        a.Flip(name, graph.front) for name, graph in bundle.graphs.items() if actual.fronts.get(name) != graph.front
    )
    stages.append(Stage("switch the fronts to the new generation", fronts, commits=True))
    routes = {d: r for d, r in handover(actual, running, target).items() if d not in task_names(bundle)}
    if fronts and routes:
        stages.append(Stage("hand queued requests of the old generation to the new workers", (a.SetRoutes(routes),)))
    stages.extend(_retire_old(actual, running, bundle, frozenset(routes)))
    return tuple(stage for stage in stages if stage.actions or stage.commits)


def _after(actual: Actual, stages: Iterable[Stage]) -> Actual:
    """Returns the servers, models and routes that exist after these stages."""
    for stage in stages:
        for action in stage.actions:
            actual = actual.after(action)
    return actual


def stages_down(actual: Actual) -> tuple[Stage, ...]:
    """Returns the stages that stop everything."""
    gateway: tuple[a.Action, ...] = (a.StopGateway(),) if actual.gateway else ()
    stages = (
        Stage("stop the gateway", gateway),
        Stage("stop the workers and destroy their MIG instances", tuple(a.Retire(w) for w in actual.workers.values())),
    )
    return tuple(stage for stage in stages if stage.actions)


def _make(actual: Actual, running: Generation | None, target: Generation) -> list[Stage]:
    """Returns the stages that start all workers and worker models of the target."""
    bundle = target.bundle
    pipelines, _ = lingering(actual, running)
    first: list[a.Action] = [*_unload(pipelines)] if actual.gateway else [a.StartGateway(target.wanted)]
    first += _loads(actual, bundle)
    missing = [w for w in bundle.workers.values() if w.name not in actual.workers]
    free = [w for w in missing if not _blockers(w, actual)]
    first += [a.BringUp(w) for w in free]
    stages = [Stage("start servers and load models where there is room", tuple(first))]
    for action in first:
        actual = actual.after(action)
    pending = [w for w in missing if w not in free]
    stages += _take_apart(actual, running, pending)
    actual = _after(actual, stages[1:])
    while pending:
        candidates = [(_cost(actual, running, target, w), w) for w in pending]
        _, chosen = min(candidates, key=lambda c: (c[0], c[1].name))
        leaving = _blockers(chosen, actual)
        ready = [w for w in pending if _blockers(w, actual).keys() <= leaving.keys()]
        routes = interim_routes(actual, running, target, leaving.keys())
        changed = {d: r for d, r in routes.items() if r != actual.routes.get(d)}
        step = [
            Stage("remove workers that must make room from the routes", (a.SetRoutes(changed),) if changed else ()),
            Stage("drain these workers", tuple(a.Drain(w.name, _names(w.models)) for w in leaving.values())),
            Stage("stop these workers and destroy their MIG instances", tuple(a.Retire(w) for w in leaving.values())),
            Stage("start the new workers in their place", tuple(a.BringUp(w) for w in ready)),
        ]
        actual = _after(actual, step)
        joined = {d: r for d, r in interim_routes(actual, running, target).items() if r != actual.routes.get(d)}
        if joined:
            step.append(Stage("add the new workers to the routes", (a.SetRoutes(joined),)))
            actual = actual.after(a.SetRoutes(joined))
        stages += [stage for stage in step if stage.actions]
        pending = [w for w in pending if w not in ready]
    return stages


def _take_apart(actual: Actual, running: Generation | None, pending: Iterable[Worker]) -> list[Stage]:
    """Returns the stages after which running graphs call tasks one by one if their chains' workers must make room."""
    leaving = {name: worker for new in pending for name, worker in _blockers(new, actual).items()}
    chained = {model.graph for worker in leaving.values() for model in worker.models if model.members}
    parting = {
        name: (graph, graph.apart)
        for name, graph in (running.bundle.graphs if running is not None else {}).items()
        if name in chained and graph.apart is not None and actual.fronts.get(name) == graph.front
    }
    models = tuple(m for _, apart in parting.values() for m in apart.models if m.name not in actual.models)
    routes = {t.name: t.route for _, apart in parting.values() for t in apart.tasks if t.name not in actual.routes}
    stay = {name for _, apart in parting.values() for name in _gateway_names(apart)}
    gone = [
        name
        for graph, _ in parting.values()
        for name in _gateway_names(graph)
        if name in (actual.models.keys() | actual.routes.keys()) - stay
    ]
    pipelines, tasks = _by_kind(actual, gone)
    stages = (
        Stage(
            "add routes for the single tasks of chains", (a.LoadGateway(models, routes),) if models or routes else ()
        ),
        Stage(
            "switch the fronts to calling these tasks one by one",
            tuple(a.Flip(name, apart.front) for name, (_, apart) in parting.items()),
        ),
        Stage("unload the pipelines that call chains", _unload(pipelines)),
        Stage("remove the routes of chains", _unload(tasks)),
    )
    return [stage for stage in stages if stage.actions]


def _loads(actual: Actual, bundle: Bundle) -> list[a.Action]:
    """Returns the actions that load new models on workers that stay."""
    loads: list[a.Action] = []
    for name, worker in bundle.workers.items():
        if name in actual.workers:
            loaded = {m.name for m in actual.workers[name].models}
            models = tuple(m for m in worker.models if m.name not in loaded)
            if models:
                loads.append(a.LoadModels(name, models))
    return loads


def _load_gateway(actual: Actual, running: Generation | None, target: Generation) -> Stage:
    """Returns the stage that sets the target's routes, loads the models behind its fronts, and removes stale routes.

    Stale routes are those of generations before the running one.
    """
    models = []
    routes = {}
    for graph in target.bundle.graphs.values():
        routes.update({task.name: task.route for task in graph.tasks if task.name not in actual.routes})
        models += [model for model in graph.models if model.name not in actual.models]
    # The new workers serve the running generation at once, because loading takes a while under overload.
    shared = interim_routes(actual, running, target) if models or routes else {}
    # A task that has a route already may still have one of an interrupted change.
    own = {task.name: task.route for graph in target.bundle.graphs.values() for task in graph.tasks}
    changed = {
        name: route
        for name, route in {**shared, **own}.items()
        if name in actual.routes and actual.routes[name] != route
    }
    ended = tuple(name for name in lingering(actual, running)[1] if name not in task_names(target.bundle))
    actions: list[a.Action] = [*_unload(ended)]
    if models or routes:
        actions.append(a.LoadGateway(tuple(models), routes))
    if changed:
        actions.append(a.SetRoutes(changed))
    return Stage("set the new routes", tuple(actions))


def _retire_old(actual: Actual, running: Generation | None, bundle: Bundle, handed_over: frozenset[str]) -> list[Stage]:
    """Returns the stages that remove the old generation.

    They remove fronts, then pipelines and routes to old workers, then these workers and the old models of workers that
    stay. Routes that were handed over no longer lead to old workers. They and their pipelines stay for a while; see
    `lingering`.
    """
    fronts = tuple(n for n in actual.fronts if n not in bundle.graphs)
    stay = task_names(bundle) | _handed_over(running, handed_over)
    existing = dict.fromkeys((*actual.models, *actual.routes))
    pipelines, tasks = _by_kind(actual, (name for name in existing if name not in stay))
    leaving = [w for n, w in actual.workers.items() if n not in bundle.workers]
    drains = [a.Drain(w.name, _names(w.models)) for w in leaving]
    unloads = []
    for name, worker in bundle.workers.items():
        keep = {m.name for m in worker.models}
        gone = [m for m in actual.workers[name].models if m.name not in keep]
        if gone:
            drains.append(a.Drain(name, _names(gone)))
            # A chain must be unloaded before the models that it calls.
            unloads.append(a.UnloadModels(name, tuple(m.name for m in reversed(gone))))
    return [
        Stage("unload graphs that are no longer deployed", _unload(fronts)),
        Stage("unload the old pipelines", _unload(pipelines)),
        Stage("remove the old routes", _unload(tasks)),
        Stage("drain workers and models that are no longer needed", tuple(drains)),
        Stage("stop these workers and unload these models", (*unloads, *(a.Retire(w) for w in leaving))),
    ]


def lingering(actual: Actual, running: Generation | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the pipelines and the routes of earlier generations that still exist. Pipelines must be removed first.

    They still answer the requests in their queues. Removing one waits for these requests, which can take long after a
    rise of the load. A change that waited for them would delay the next change.
    """
    forms = [form for graph in running.bundle.graphs.values() for form in graph.forms] if running is not None else []
    wanted = {name for form in forms for name in _gateway_names(form)}
    existing = dict.fromkeys((*actual.models, *actual.routes))
    return _by_kind(actual, (name for name in existing if name not in wanted))


def task_names(bundle: Bundle) -> frozenset[str]:
    """Returns the names of all tasks and pipelines of a bundle at the gateway."""
    return frozenset(name for graph in bundle.graphs.values() for name in _gateway_names(graph))


def _gateway_names(graph: CompiledGraph) -> tuple[str, ...]:
    """Returns the names of the routes and models behind the front of one form of a graph."""
    return tuple(dict.fromkeys((*(task.name for task in graph.tasks), *(model.name for model in graph.models))))


def _handed_over(running: Generation | None, tasks: frozenset[str]) -> frozenset[str]:
    """Returns the gateway names of the running graphs' forms whose tasks have all been handed over."""
    forms = [form for graph in running.bundle.graphs.values() for form in graph.forms] if running is not None else []
    handed = (form for form in forms if all(task.name in tasks for task in form.tasks))
    return frozenset(name for form in handed for name in _gateway_names(form))


def _by_kind(actual: Actual, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divides names into pipelines and tasks. Only tasks have routes."""
    listed = list(names)
    return tuple(n for n in listed if n not in actual.routes), tuple(n for n in listed if n in actual.routes)


def _unload(names: tuple[str, ...]) -> tuple[a.Action, ...]:
    return (a.UnloadGateway(names),) if names else ()


def _cost(actual: Actual, running: Generation | None, target: Generation, worker: Worker) -> tuple[int, int, int]:
    """Returns the cost of making room for a worker: tasks without any worker, lost batch slots, workers to retire."""
    leaving = _blockers(worker, actual)
    routes = interim_routes(actual, running, target, leaving.keys())
    uncovered = sum(not route for route in routes.values())
    before = sum(e.slots for r in interim_routes(actual, running, target).values() for e in r)
    lost = before - sum(e.slots for r in routes.values() for e in r)
    return uncovered, lost, len(leaving)


def _blockers(worker: Worker, actual: Actual) -> dict[str, Worker]:
    """Returns the workers that occupy the place of `worker`, by name."""
    others = sorted(actual.workers.values(), key=lambda w: w.name)
    return {o.name: o for o in others if not o.shares_with(worker) and _overlap(o.place, worker.place)}


def _overlap(one: Place | None, other: Place | None) -> bool:
    if one is None or other is None or one.gpu != other.gpu:
        return False
    start, end = _interval(one)
    first, last = _interval(other)
    return start < last and first < end


def _interval(place: Place) -> tuple[int, int]:
    profile = CATALOG[place.board].profiles[place.placement.slice]
    return place.placement.start, place.placement.start + profile.memory_slices


def _names(models: Iterable[WorkerModel]) -> tuple[str, ...]:
    return tuple(model.name for model in models)
