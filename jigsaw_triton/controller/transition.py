"""From what runs to what is wanted: stages of actions, in an order that keeps requests flowing.

Make before break: workers whose place is free come up first. Where a new instance needs the place of an old worker,
the old one leaves the routes of the running dispatchers, is drained and retired, and the new one takes over there, one
place after another, always the one that leaves the most of every task in service. Only then do the fronts flip to the
new generation, and what is left of the old one goes.
"""

from dataclasses import dataclass, replace

from jigsaw_triton.compiler.bundle import Bundle, Worker
from jigsaw_triton.controller import actions as a
from jigsaw_triton.controller.actual import Actual
from jigsaw_triton.controller.bridge import bridge, handover
from jigsaw_triton.controller.generation import Generation
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
    stages = [*_make(actual, running, target)]
    for stage in stages:
        for action in stage.actions:
            actual = actual.after(action)
    shared = {d: r for d, r in bridge(actual, running, target).items() if r != actual.routes.get(d)}
    load = _load_gateway(actual, bundle)
    # The new workers help at once: when load has outgrown the plan, loading dispatchers takes its time.
    stages.append(replace(load, actions=(*load.actions, a.SetRoutes(shared))) if shared and load.actions else load)
    fronts = tuple(
        a.Flip(name, graph.front) for name, graph in bundle.graphs.items() if actual.fronts.get(name) != graph.front
    )
    stages.append(Stage("switch the fronts to the new generation", fronts, commits=True))
    routes = {d: r for d, r in handover(actual, running, target).items() if d not in _dispatchers(bundle)}
    if fronts and routes:
        stages.append(Stage("let the new workers finish what the old generation began", (a.SetRoutes(routes),)))
    stages.extend(_retire_old(actual, bundle))
    return tuple(stage for stage in stages if stage.actions or stage.commits)


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
    first: list[a.Action] = [] if actual.gateway else [a.StartGateway(target.wanted)]
    first += _loads(actual, bundle)
    missing = [w for w in bundle.workers.values() if w.name not in actual.workers]
    free = [w for w in missing if not _blockers(w, actual)]
    first += [a.BringUp(w) for w in free]
    stages = [Stage("start what has room", tuple(first))]
    for action in first:
        actual = actual.after(action)
    pending = [w for w in missing if w not in free]
    while pending:
        candidates = [(_cost(actual, running, target, w), w) for w in pending]
        _, chosen = min(candidates, key=lambda c: (c[0], c[1].name))
        leaving = _blockers(chosen, actual)
        ready = [w for w in pending if _blockers(w, actual).keys() <= leaving.keys()]
        routes = bridge(actual, running, target, leaving.keys())
        changed = {d: r for d, r in routes.items() if r != actual.routes.get(d)}
        step = [
            Stage("take workers that must make room out of the routes", (a.SetRoutes(changed),) if changed else ()),
            Stage("let their last batches end", tuple(a.Drain(w.name, _slots(w)) for w in leaving.values())),
            Stage("stop them and destroy their MIG instances", tuple(a.Retire(w) for w in leaving.values())),
            Stage("start workers in their place", tuple(a.BringUp(w) for w in ready)),
        ]
        for stage in step:
            for action in stage.actions:
                actual = actual.after(action)
        joined = {d: r for d, r in bridge(actual, running, target).items() if r != actual.routes.get(d)}
        if joined:
            step.append(Stage("give the new workers their share", (a.SetRoutes(joined),)))
            actual = actual.after(a.SetRoutes(joined))
        stages += [stage for stage in step if stage.actions]
        pending = [w for w in pending if w not in ready]
    return stages


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


def _load_gateway(actual: Actual, bundle: Bundle) -> Stage:
    models = []
    routes = {}
    for graph in bundle.graphs.values():
        for dispatcher in graph.dispatchers:
            if dispatcher.name not in actual.models:
                models.append(dispatcher.folder)
                routes[dispatcher.name] = dispatcher.route
        if graph.pipeline is not None and graph.pipeline.name not in actual.models:
            models.append(graph.pipeline)
    # A dispatcher that serves already may still have the route of a change that was broken off.
    stale = {
        d.name: d.route
        for graph in bundle.graphs.values()
        for d in graph.dispatchers
        if d.name in actual.models and actual.routes.get(d.name) != d.route
    }
    actions: tuple[a.Action, ...] = (a.LoadGateway(tuple(models), routes),) if models else ()
    return Stage("load the new dispatchers", (*actions, *((a.SetRoutes(stale),) if stale else ())))


def _retire_old(actual: Actual, bundle: Bundle) -> list[Stage]:
    """What goes once nothing leads to it: fronts, pipelines, dispatchers, then workers and their old models."""
    fronts = tuple(n for n in actual.fronts if n not in bundle.graphs)
    wanted = _dispatchers(bundle)
    wanted |= {g.pipeline.name for g in bundle.graphs.values() if g.pipeline is not None}
    old = [name for name in actual.models if name not in wanted]
    pipelines = tuple(n for n in old if n not in actual.routes)
    dispatchers = tuple(n for n in old if n in actual.routes)
    leaving = tuple(w for n, w in actual.workers.items() if n not in bundle.workers)
    unloads = []
    for name, worker in bundle.workers.items():
        keep = {m.name for m in worker.models}
        gone = tuple(m.name for m in actual.workers[name].models if m.name not in keep)
        if gone:
            unloads.append(a.UnloadModels(name, gone))
    return [
        Stage("end graphs that are no longer wanted", (a.UnloadGateway(fronts),) if fronts else ()),
        Stage("end the old pipelines", (a.UnloadGateway(pipelines),) if pipelines else ()),
        Stage("end the old dispatchers", (a.UnloadGateway(dispatchers),) if dispatchers else ()),
        Stage(
            "let the last batches of workers no longer needed end", tuple(a.Drain(w.name, _slots(w)) for w in leaving)
        ),
        Stage("stop what is no longer needed", (*unloads, *(a.Retire(w) for w in leaving))),
    ]


def _dispatchers(bundle: Bundle) -> set[str]:
    return {d.name for graph in bundle.graphs.values() for d in graph.dispatchers}


def _cost(actual: Actual, running: Generation | None, target: Generation, worker: Worker) -> tuple[int, int, int]:
    """What making room for `worker` costs: tasks left without any worker, batch slots lost, workers that leave."""
    leaving = _blockers(worker, actual)
    routes = bridge(actual, running, target, leaving.keys())
    uncovered = sum(not route for route in routes.values())
    before = sum(e.slots for r in bridge(actual, running, target).values() for e in r)
    lost = before - sum(e.slots for r in routes.values() for e in r)
    return uncovered, lost, len(leaving)


def _blockers(worker: Worker, actual: Actual) -> dict[str, Worker]:
    """Workers that stand where `worker` is to be."""
    others = sorted(actual.workers.values(), key=lambda w: w.name)
    return {o.name: o for o in others if o.gpu == worker.gpu and _overlap(o, worker)}


def _overlap(one: Worker, other: Worker) -> bool:
    start, end = _interval(one)
    first, last = _interval(other)
    return start < last and first < end


def _interval(worker: Worker) -> tuple[int, int]:
    profile = CATALOG[worker.board].profiles[worker.placement.slice]
    return worker.placement.start, worker.placement.start + profile.memory_slices


def _slots(worker: Worker) -> dict[str, int]:
    return {m.name: m.instances for m in worker.models}
