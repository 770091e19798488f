"""Changes from what runs to a generation: the planner's steps as stages of actions.

The planner orders the steps (`planner/transition`), so that what `plan --diff` shows is what happens. Each step becomes
a few stages here. The order is make before break: new workers and models serve beside the old ones, requests go to
them, and only then the old ones leave. Where there is no room for that, the old ones leave the routes, their last
batches end, and the new ones take their place.

If a worker that must make room executes a chain in one call, the fronts of the running generation first switch to
calling its tasks one by one, since only a worker with the same chain could take over calls of the chain.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from jigsaw_triton.compiler.bundle import CompiledGraph, Worker, WorkerModel
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.counterparts import in_other_chains
from jigsaw_triton.controller.core.gateway_content import (
    by_kind,
    followed,
    followers,
    gateway_names,
    handed_over,
    lingering,
    missing,
    obstructive,
    parting,
    task_names,
    without_generation,
)
from jigsaw_triton.controller.core.generation import Canary, Generation
from jigsaw_triton.controller.core.interim_routes import (
    Routes,
    canary_routes,
    handover,
    interim_routes,
    opened,
)
from jigsaw_triton.controller.core.order import by_place, displaced, ordered
from jigsaw_triton.controller.core.serving import Served
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.stage_list import StageList, drains, unloads
from jigsaw_triton.controller.core.stand_ins import stand_ins
from jigsaw_triton.controller.core.standby import idle, in_service
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.difference import Change
from jigsaw_triton.planner.transition.answering import RUNNING
from jigsaw_triton.planner.transition.interim import at_last
from jigsaw_triton.planner.transition.transition import Step


def stages_to(
    actual: Actual,
    running: Generation | None,
    target: Generation,
    canary: Canary | None = None,
    standby: Collection[str] = (),
    lost: Collection[GpuId] = (),
) -> tuple[Stage, ...]:
    """Returns the stages of the change to a generation.

    Args:
        actual: Servers, models and routes that exist now.
        running: Generation that serves; None if none does.
        target: Generation to serve next.
        canary: Canary before the generation serves, if there is room for both; see `canary_obstacle`. None for none.
        standby: Graphs that standby variants serve, before and after the change.
        lost: GPUs whose workers answer nothing.

    Returns:
        Stages in order, without those that have nothing to do.
    """
    goal = in_service(target, actual, standby)
    if running is not None:
        # A generation without lost GPUs is a copy with the same bundle.
        same = running.bundle is target.bundle
        running = replace(running, bundle=goal.bundle) if same else in_service(running, actual, standby)
    return _Change(actual, running, goal, canary, lost).stages()


class _Change:
    """Makes the stages of a change.

    Args:
        actual: Servers, models and routes that exist at first.
        running: Generation that serves; None if none does.
        target: Generation to serve next.
        canary: Canary before the generation serves; None for none.
        lost: GPUs whose workers answer nothing.
    """

    def __init__(
        self,
        actual: Actual,
        running: Generation | None,
        target: Generation,
        canary: Canary | None = None,
        lost: Collection[GpuId] = (),
    ) -> None:
        self._running, self._target, self._canary = running, target, canary
        self._lost = lost
        self._wanted = by_place(target.bundle.workers.values())
        self._followers = followers(actual, running)
        self._stages = StageList(actual, lost)
        self._switched = False
        self._moment = at_last({})

    def stages(self) -> tuple[Stage, ...]:
        """Returns the stages."""
        steps = ordered(self._actual, self._running, self._target, self._lost).steps
        self._stages.begin_with((*self._gateway(), *self._steps_workers()))
        if names := obstructive(self._actual, self._running, self._target):
            self._stages.add("prepare the gateway", ())
            self._stages.add("remove the routes of generations that do not serve", _unload(names))
        for number, step in enumerate(steps, 1):
            self._stages.at_step(number, len(steps))
            if number == 1:
                self._return_workers(step)
            self._take(step)
        self._stages.at_step()
        self._switch()
        self._end()
        return self._stages.all()

    @property
    def _actual(self) -> Actual:
        """Servers, models and routes that exist after the stages so far."""
        return self._stages.actual

    def _gateway(self) -> tuple[a.Action, ...]:
        pipelines, _ = lingering(self._actual, self._running)
        return _unload(pipelines) if self._actual.gateway else (a.StartGateway(self._target.wanted),)

    def _steps_workers(self) -> tuple[a.Action, ...]:
        """Returns the actions that start the workers of Python steps, which need no slice, and load their models."""
        workers = [w for w in self._target.bundle.workers.values() if w.place is None]
        missing = [a.BringUp(w) for w in workers if w.name not in self._actual.workers]
        return (*missing, *self._loads(workers))

    def _return_workers(self, first: Step) -> None:
        """Adds workers that exist to the routes, as after a change that was broken off, or once a lost GPU is back.

        If the first step takes workers out of service, it sets the routes anyway.
        """
        if self._canary is not None or first.kind == "geometry" or not first.beside:
            return
        self._moment = first.during
        routes = self._actual.routes
        if any(opened(route) - opened(routes[name]) for name, route in self._interim().items()):
            self._take_apart(self._joining())
            self._stages.route("return workers to the routes", self._interim())

    def _take(self, step: Step) -> None:
        if step.stand_in and self._canary is not None:
            # During a canary the running generation keeps all its workers, so that nothing has to stand in for it.
            return
        self._moment = step.during
        match step.kind:
            case "shares":
                self._switch()
            case "instances" | "variant":
                self._leave(self._displaced(step.changes))
                if step.beside:
                    self._make_room(self._staying(step.changes))
                    self._stages.add("load models beside those that serve", self._loads(self._staying(step.changes)))
                else:
                    self._replace_models(step)
                self._start(step)
                self._join(step)
            case "add":
                self._start(step)
                self._join(step)
            case "geometry":
                self._leave(self._workers_at(step.changes, "remove"))
                self._start(step)
                self._join(step)
            case "remove":
                if not step.stand_in:
                    self._switch()
                self._leave(self._workers_at(step.changes, "remove"))

    def _make_room(self, staying: Iterable[Worker]) -> None:
        """Unloads the models that stand by in slices whose other models change: the plan has no memory for all."""
        reached = {(entry.worker, entry.model) for route in self._actual.routes.values() for entry in route}
        spare: dict[str, tuple[WorkerModel, ...]] = {}
        for worker in staying:
            existing = self._actual.workers[worker.name]
            stay = {model.name for model in worker.models} | {m for w, m in reached if w == worker.name}
            names = idle(existing, self._running) - stay
            spare[worker.name] = tuple(model for model in existing.models if model.name in names)
        self._stages.unload(
            "standby variants, to make room", {name: models for name, models in spare.items() if models}
        )

    def _replace_models(self, step: Step) -> None:
        """Unloads the old models of slices that have no memory for both, and loads the new ones."""
        old: dict[str, tuple[WorkerModel, ...]] = {}
        for worker in self._staying(step.changes):
            kept = {model.name for model in worker.models}
            old[worker.name] = tuple(m for m in self._actual.workers[worker.name].models if m.name not in kept)
        gone = {name: models for name, models in old.items() if models}
        self._part(gone)
        self._stages.add("unload the old models, since the slices have no memory for both", unloads(gone))
        self._stages.add("load the new models in their place", self._loads(self._staying(step.changes)))

    def _displaced(self, changes: Iterable[Change]) -> list[Worker]:
        existing = by_place(self._actual.workers.values())
        places = [(change.gpu, change.placement) for change in changes]
        return [w for p in places for w in displaced(existing.get(p, ()), self._wanted.get(p, ()))]

    def _staying(self, changes: Iterable[Change]) -> list[Worker]:
        """Returns the target's workers whose servers stay on the changed slices."""
        found = [w for c in changes for w in self._wanted.get((c.gpu, c.placement), ())]
        return [worker for worker in found if worker.name in self._actual.workers]

    def _loads(self, workers: Iterable[Worker]) -> tuple[a.Action, ...]:
        """Returns the actions that load the models that these workers of the target lack."""
        loads = []
        for worker in workers:
            existing = self._actual.workers.get(worker.name)
            if existing is not None:
                loaded = {model.name for model in existing.models}
                models = tuple(model for model in worker.models if model.name not in loaded)
                if models:
                    loads.append(a.LoadModels(worker.name, models))
        return tuple(loads)

    def _start(self, step: Step) -> None:
        """Starts the workers on the slices that a step adds, or more processes on those that it changes."""
        workers = [w for change in step.changes if change.after for w in self._wanted_at(step, change)]
        missing = [worker for worker in workers if worker.name not in self._actual.workers]
        title = "start workers that stand in during the change" if step.stand_in else "start workers"
        self._stages.add(title, [a.BringUp(worker) for worker in missing])

    def _wanted_at(self, step: Step, change: Change) -> list[Worker]:
        if not step.stand_in:
            return self._wanted.get((change.gpu, change.placement), [])
        running = self._running.bundle.workers if self._running is not None else {}
        planned = (running, self._target.bundle.workers)
        return stand_ins(change, self._target.wanted.cluster, planned, self._actual.workers)

    def _workers_at(self, changes: Iterable[Change], kind: str) -> list[Worker]:
        existing = by_place(self._actual.workers.values())
        return [w for c in changes if c.kind == kind for w in existing.get((c.gpu, c.placement), ())]

    def _leave(self, workers: Iterable[Worker]) -> None:
        """Takes workers out of the routes, drains them and stops them."""
        workers = list(workers)
        self._part({worker.name: worker.models for worker in workers})
        self._stages.add("stop these workers and destroy their MIG instances", [a.Retire(worker) for worker in workers])

    def _part(self, leaving: dict[str, tuple[WorkerModel, ...]]) -> None:
        """Takes models out of the routes, and waits for the batches that they execute."""
        if leaving and not self._switched:
            chained = {model.graph for models in leaving.values() for model in models if model.members}
            self._take_apart(chained | self._joining())
            gone = {(worker, model.name) for worker, models in leaving.items() for model in models}
            self._stages.route("remove workers that leave from the routes", self._interim(gone))
        self._stages.add("drain these workers", drains(leaving))

    def _interim(self, leaving: Collection[Served] = ()) -> Routes:
        routes = interim_routes(self._stages.answering, self._running, self._target, self._moment, leaving)
        return followed(self._actual, self._running, routes, self._followers)

    def _joining(self) -> set[str]:
        """Returns the graphs for which the new generation answers requests although it lacks the running chains."""
        running = self._running
        if running is None:
            return set()
        joining = {name for name, share in self._moment.shares.items() if share != RUNNING}
        return {name for name in joining if in_other_chains(running, self._target, name)}

    def _join(self, step: Step) -> None:
        self._moment = step.after
        # A canary gets its share of the requests once all its workers run, and no request before.
        if self._canary is None:
            self._take_apart(self._joining())
            self._stages.route("add the new workers to the routes", self._interim())

    def _take_apart(self, chained: Iterable[str]) -> None:
        """Makes running graphs call tasks one by one, because workers of their chains must make room."""
        forms = parting(self._actual, self._running, chained)
        if self._running is None or not forms:
            return
        existing = self._actual.models.keys() | self._actual.routes.keys()
        stay = {name for _, apart in forms.values() for name in gateway_names(apart)}
        gone = [name for graph, _ in forms.values() for name in gateway_names(graph) if name in existing - stay]
        chains = {without_generation(name) for name in gone}
        gone += [name for name in lingering(self._actual, self._running)[1] if without_generation(name) in chains]
        pipelines, tasks = by_kind(self._actual, gone)
        self._stages.add(
            "add routes for the single tasks of chains", self._loads_gateway(apart for _, apart in forms.values())
        )
        self._stages.route("add the new workers to these routes", self._interim())
        flips = [a.Flip(n, apart.front, self._running.samples(n)) for n, (_, apart) in forms.items()]
        self._stages.add("switch the fronts to calling these tasks one by one", flips)
        self._stages.add("unload the pipelines that call chains", _unload(pipelines))
        self._stages.add("remove the routes of chains", _unload(tasks))

    def _switch(self) -> None:
        """Switches the fronts to the target, hands queued requests over, and removes what only the old fronts use."""
        if self._switched:
            return
        self._switched = True
        self._load_gateway()
        self._share()
        bundle = self._target.bundle
        flips = [
            a.Flip(name, graph.front, self._target.samples(name))
            for name, graph in bundle.graphs.items()
            if self._actual.fronts.get(name) != graph.front
        ]
        stays = self._running is not None and self._running.bundle is bundle
        generation = "the generation that serves" if stays else "the new generation"
        self._stages.add(f"switch the fronts to {generation}", flips, commits=True)
        routes = {
            d: r
            for d, r in handover(self._stages.answering, self._running, self._target).items()
            if d not in task_names(bundle)
        }
        if flips and routes:
            self._stages.route("hand queued requests of the old generation to the new workers", routes)
        else:
            routes = {}
        fronts = tuple(name for name in self._actual.fronts if name not in bundle.graphs)
        stay = task_names(bundle) | handed_over(self._running, frozenset(routes))
        existing = dict.fromkeys((*self._actual.models, *self._actual.routes))
        pipelines, tasks = by_kind(self._actual, (name for name in existing if name not in stay))
        self._stages.add("unload graphs that are no longer deployed", _unload(fronts))
        self._stages.add("unload the old pipelines", _unload(pipelines))
        self._stages.add("remove the old routes", _unload(tasks))

    def _share(self) -> None:
        """Gives the target the canary's share of the requests."""
        if self._canary is not None and self._running is not None:
            fronts = {name: graph.front for name, graph in self._target.bundle.graphs.items()}
            compared = [
                a.Compare(name, front, self._target.samples(name))
                for name, front in fronts.items()
                if name in self._running.bundle.graphs
            ]
            self._stages.add("compare the answers of both generations to one request", compared)
            routes = canary_routes(self._stages.answering, self._running, self._target, self._canary.share)
            title = f"answer {100 * self._canary.share:g}% of the requests with the new generation"
            self._stages.add(title, (a.SetRoutes(routes),), watches=True)

    def _load_gateway(self) -> None:
        """Sets the target's routes, loads the models behind its fronts, and removes stale routes.

        Stale routes are those of generations before the running one.
        """
        bundle = self._target.bundle
        ended = tuple(name for name in lingering(self._actual, self._running)[1] if name not in task_names(bundle))
        self._stages.add("set the new routes", (*_unload(ended), *self._loads_gateway(bundle.graphs.values())))
        # The route of a task may be left from an interrupted change, which may have taken chains apart.
        tasks = [task for graph in bundle.graphs.values() for task in graph.every_task.values()]
        own = {task.name: task.route for task in tasks if task.name in self._actual.routes}
        self._stages.route("restore the routes", own)

    def _loads_gateway(self, graphs: Iterable[CompiledGraph]) -> tuple[a.Action, ...]:
        """Returns the action that loads the models and sets the routes that the gateway lacks for these graphs."""
        models, routes = missing(self._actual, graphs)
        return (a.LoadGateway(models, routes),) if models or routes else ()

    def _end(self) -> None:
        """Ends what the target does not have, models and workers, and loads its standby variants."""
        replaced: dict[str, tuple[WorkerModel, ...]] = {}
        for name, worker in self._target.bundle.workers.items():
            keep = {model.name for model in (*worker.models, *worker.standby)}
            gone = tuple(model for model in self._actual.workers[name].models if model.name not in keep)
            if gone:
                replaced[name] = gone
        self._stages.unload("models that have been replaced", replaced)
        self._leave(w for name, w in self._actual.workers.items() if name not in self._target.bundle.workers)
        standby = [replace(worker, models=worker.standby) for worker in self._target.bundle.workers.values()]
        self._stages.add("load standby variants", self._loads(standby))


def _unload(names: tuple[str, ...]) -> tuple[a.Action, ...]:
    return (a.UnloadGateway(names),) if names else ()
