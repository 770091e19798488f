"""From what runs to what is wanted: stages of actions, in an order that keeps requests flowing.

Make before break: workers whose place is free come up first. Where a new instance needs the place of an old worker,
the old one leaves the routes of the running generation, is drained and retired, and the new one takes over there, one
place after another, always the one that leaves the most of every task in service. Only then do the fronts flip to the
new generation, and what is left of the old one goes.

Where a worker that must make room does a chain in one call, the running generation first goes over to calling task by
task: what calls a chain at once could go on nowhere but on workers that do the same chain.
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
    """Actions that may be carried out side by side; the next stage waits for all of them.

    Attributes:
        title: For the event log.
        actions: At least one.
        commits: Whether the new generation serves once this stage is done, so that there is no way back.
    """

    title: str
    actions: tuple[a.Action, ...]
    commits: bool = False


def stages_to(actual: Actual, running: Generation | None, target: Generation) -> tuple[Stage, ...]:
    """The way from what runs to `target`.

    Args:
        actual: What runs now.
        running: The generation that serves, if any.
        target: To serve next.

    Returns:
        Stages without actions are left out.
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
        stages.append(Stage("let the new workers finish what the old generation began", (a.SetRoutes(routes),)))
    stages.extend(_retire_old(actual, running, bundle, frozenset(routes)))
    return tuple(stage for stage in stages if stage.actions or stage.commits)


def _after(actual: Actual, stages: Iterable[Stage]) -> Actual:
    """What runs once these stages are done."""
    for stage in stages:
        for action in stage.actions:
            actual = actual.after(action)
    return actual


def stages_down(actual: Actual) -> tuple[Stage, ...]:
    """The way from what runs to nothing."""
    gateway: tuple[a.Action, ...] = (a.StopGateway(),) if actual.gateway else ()
    stages = (
        Stage("stop the gateway", gateway),
        Stage("stop the workers and destroy their MIG instances", tuple(a.Retire(w) for w in actual.workers.values())),
    )
    return tuple(stage for stage in stages if stage.actions)


def _make(actual: Actual, running: Generation | None, target: Generation) -> list[Stage]:
    """Brings up every worker and worker model of the target."""
    bundle = target.bundle
    pipelines, _ = lingering(actual, running)
    first: list[a.Action] = [*_unload(pipelines)] if actual.gateway else [a.StartGateway(target.wanted)]
    first += _loads(actual, bundle)
    missing = [w for w in bundle.workers.values() if w.name not in actual.workers]
    free = [w for w in missing if not _blockers(w, actual)]
    first += [a.BringUp(w) for w in free]
    stages = [Stage("start what has room", tuple(first))]
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
            Stage("take workers that must make room out of the routes", (a.SetRoutes(changed),) if changed else ()),
            Stage("let their last batches end", tuple(a.Drain(w.name, _names(w.models)) for w in leaving.values())),
            Stage("stop them and destroy their MIG instances", tuple(a.Retire(w) for w in leaving.values())),
            Stage("start workers in their place", tuple(a.BringUp(w) for w in ready)),
        ]
        actual = _after(actual, step)
        joined = {d: r for d, r in interim_routes(actual, running, target).items() if r != actual.routes.get(d)}
        if joined:
            step.append(Stage("give the new workers their share", (a.SetRoutes(joined),)))
            actual = actual.after(a.SetRoutes(joined))
        stages += [stage for stage in step if stage.actions]
        pending = [w for w in pending if w not in ready]
    return stages


def _take_apart(actual: Actual, running: Generation | None, pending: Iterable[Worker]) -> list[Stage]:
    """Has the running graphs call task by task whose chains are on workers that must make room for these."""
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
        Stage("route each task of a chain on its own", (a.LoadGateway(models, routes),) if models or routes else ()),
        Stage("call them one by one", tuple(a.Flip(name, apart.front) for name, (_, apart) in parting.items())),
        Stage("end the pipelines that call chains", _unload(pipelines)),
        Stage("end the routes of chains", _unload(tasks)),
    )
    return [stage for stage in stages if stage.actions]


def _loads(actual: Actual, bundle: Bundle) -> list[a.Action]:
    """New models for workers that stay."""
    loads: list[a.Action] = []
    for name, worker in bundle.workers.items():
        if name in actual.workers:
            loaded = {m.name for m in actual.workers[name].models}
            models = tuple(m for m in worker.models if m.name not in loaded)
            if models:
                loads.append(a.LoadModels(name, models))
    return loads


def _load_gateway(actual: Actual, running: Generation | None, target: Generation) -> Stage:
    """Sets the target's routes, loads its models behind fronts, and ends routes older than the running generation."""
    models = []
    routes = {}
    for graph in target.bundle.graphs.values():
        routes.update({task.name: task.route for task in graph.tasks if task.name not in actual.routes})
        models += [model for model in graph.models if model.name not in actual.models]
    # The new workers help the running generation at once: when load has outgrown the plan, loading takes its time.
    shared = interim_routes(actual, running, target) if models or routes else {}
    # A task that is routed already may still have the route of a change that was broken off.
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
    """What goes: fronts, what leads to old workers, then these workers and the old models of those that stay.

    Routes that were handed over lead to old workers no more. They and their pipeline stay for a while, see `lingering`.
    """
    fronts = tuple(n for n in actual.fronts if n not in bundle.graphs)
    stay = task_names(bundle) | _handed_over(running, handed_over)
    there = dict.fromkeys((*actual.models, *actual.routes))
    pipelines, tasks = _by_kind(actual, (name for name in there if name not in stay))
    leaving = [w for n, w in actual.workers.items() if n not in bundle.workers]
    drains = [a.Drain(w.name, _names(w.models)) for w in leaving]
    unloads = []
    for name, worker in bundle.workers.items():
        keep = {m.name for m in worker.models}
        gone = [m for m in actual.workers[name].models if m.name not in keep]
        if gone:
            drains.append(a.Drain(name, _names(gone)))
            # A chain before what it calls.
            unloads.append(a.UnloadModels(name, tuple(m.name for m in reversed(gone))))
    return [
        Stage("end graphs that are no longer wanted", _unload(fronts)),
        Stage("end the old pipelines", _unload(pipelines)),
        Stage("end the old routes", _unload(tasks)),
        Stage("let the last batches for what is no longer needed end", tuple(drains)),
        Stage("stop what is no longer needed", (*unloads, *(a.Retire(w) for w in leaving))),
    ]


def lingering(actual: Actual, running: Generation | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Pipelines and routes of earlier generations that are still there; pipelines must go first.

    They answer what waits in their queues. To end one is to wait for that, and after a rise of the load it can take
    long: a change that waited would keep the next one waiting.
    """
    forms = [form for graph in running.bundle.graphs.values() for form in graph.forms] if running is not None else []
    wanted = {name for form in forms for name in _gateway_names(form)}
    there = dict.fromkeys((*actual.models, *actual.routes))
    return _by_kind(actual, (name for name in there if name not in wanted))


def task_names(bundle: Bundle) -> frozenset[str]:
    """Names of all tasks and pipelines of a bundle at the gateway."""
    return frozenset(name for graph in bundle.graphs.values() for name in _gateway_names(graph))


def _gateway_names(graph: CompiledGraph) -> tuple[str, ...]:
    """Names of the routes and models behind the front of one form of a graph."""
    return tuple(dict.fromkeys((*(task.name for task in graph.tasks), *(model.name for model in graph.models))))


def _handed_over(running: Generation | None, tasks: frozenset[str]) -> frozenset[str]:
    """What is at the gateway of the running graphs, in one of their forms, all of whose tasks are among these."""
    forms = [form for graph in running.bundle.graphs.values() for form in graph.forms] if running is not None else []
    handed = (form for form in forms if all(task.name in tasks for task in form.tasks))
    return frozenset(name for form in handed for name in _gateway_names(form))


def _by_kind(actual: Actual, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Pipelines, and tasks, which have routes."""
    listed = list(names)
    return tuple(n for n in listed if n not in actual.routes), tuple(n for n in listed if n in actual.routes)


def _unload(names: tuple[str, ...]) -> tuple[a.Action, ...]:
    return (a.UnloadGateway(names),) if names else ()


def _cost(actual: Actual, running: Generation | None, target: Generation, worker: Worker) -> tuple[int, int, int]:
    """What making room for `worker` costs: tasks left without any worker, batch slots lost, workers that leave."""
    leaving = _blockers(worker, actual)
    routes = interim_routes(actual, running, target, leaving.keys())
    uncovered = sum(not route for route in routes.values())
    before = sum(e.slots for r in interim_routes(actual, running, target).values() for e in r)
    lost = before - sum(e.slots for r in routes.values() for e in r)
    return uncovered, lost, len(leaving)


def _blockers(worker: Worker, actual: Actual) -> dict[str, Worker]:
    """Workers that stand where `worker` is to be."""
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
