"""Tasks that serve during a change, with the entries of all models that can answer their requests."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.compiler.bundle import Bundle, RouteEntry, TaskFront, Worker, WorkerModel
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.counterparts import counterpart
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.standby import idle

Route = tuple[RouteEntry, ...]

Served = tuple[str, str]
"""(Worker, model)."""

Answers = tuple[str, str, str, str]
"""Key of the answers of a model; see `WorkerModel.answers`."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A task of a front that serves.

    Attributes:
        graph: Name of the graph.
        front: Task with its compiled route.
        own: Entries of its own generation that can serve, and those of all other models that give the same answers.
        coming: Entries of the target that can serve, and those of all other models that give the same answers; empty if
            the front cannot call the target's models.
    """

    graph: str
    front: TaskFront
    own: Route
    coming: Route


def by_graph(serving: Iterable[Serving]) -> dict[str, list[Serving]]:
    """Groups tasks by their graph."""
    found: dict[str, list[Serving]] = {}
    for task in serving:
        found.setdefault(task.graph, []).append(task)
    return found


def serving_tasks(
    actual: Actual, running: Generation, target: Generation, leaving: Collection[Served] = (), *, same: bool = True
) -> Iterator[Serving]:
    """Yields each task of the running generation that has a route.

    Args:
        actual: Servers, models and routes that exist now.
        running: Generation that serves.
        target: Generation whose workers may help.
        leaving: Models to leave out.
        same: True if a generation may also use the other workers whose models give the same answers.
    """
    models = _LiveModels(actual, running, target, leaving)
    for graph, compiled in running.bundle.graphs.items():
        for task in compiled.every_task.values():
            if task.name not in actual.routes:
                continue
            theirs = counterpart(running, target, graph, task.task)
            own = models.listed(task, running.bundle)
            coming = models.listed(theirs, target.bundle) if theirs is not None else ()
            if same:
                own, coming = (
                    models.widened(own, coming, task, running.bundle),
                    models.widened(coming, own, theirs, target.bundle) if theirs is not None else (),
                )
            yield Serving(graph, task, own, coming)


class _LiveModels:
    """The models that exist and do not leave.

    Args:
        actual: Servers, models and routes that exist now.
        running: Generation that serves.
        target: Generation whose workers may help.
        leaving: Models to leave out.
    """

    def __init__(self, actual: Actual, running: Generation, target: Generation, leaving: Collection[Served]) -> None:
        self._actual = actual
        self._alive = {
            worker.name: {m.name: m for m in worker.models if (worker.name, m.name) not in leaving}
            for worker in actual.workers.values()
        }
        self._alike = _by_answers(actual, running, self._alive)
        self._stand_ins = _stand_ins(actual, running.bundle, target.bundle)

    def listed(self, task: TaskFront, bundle: Bundle) -> Route:
        """Returns the entries of a task's compiled route that can serve, on their workers or on copies of these."""
        found = [e for e in task.route if e.model in self._alive.get(e.worker, ())]
        for name, original in self._stand_ins.items():
            if original.name in bundle.workers and bundle.workers[original.name].models == original.models:
                found += [
                    replace(e, worker=name)
                    for e in task.route
                    if e.worker == original.name and e.model in self._alive[name]
                ]
        return tuple(found)

    def widened(self, route: Route, others: Route, task: TaskFront, bundle: Bundle) -> Route:
        """Adds all other models that give the same answers, even those of a generation that failed.

        Args:
            route: Entries of the task that can serve.
            others: Entries of the other generation that can serve.
            task: The task.
            bundle: Bundle that was compiled with the task.
        """
        answers = {
            model.answers
            for entry in (*task.route, *task.standby)
            for worker in (bundle.workers.get(entry.worker),)
            for model in ((*worker.models, *worker.standby) if worker is not None else ())
            if model.name == entry.model
        }
        shares = {e.variant: e.share for e in task.route}
        present = {(e.worker, e.model): e for e in self._actual.routes.get(task.name, ())}
        left = (
            present.get((name, model.name)) or _unprofiled(self._actual.workers[name], model, task)
            for key in sorted(answers)
            for name, model in self._alike.get(key, ())
        )
        # If several models of a worker give the same answers, one of them gets requests.
        found = {(e.worker, self._alive[e.worker][e.model].answers): e for e in route}
        for entry in (*others, *left):
            made = self._alive[entry.worker][entry.model].answers
            if made in answers:
                found.setdefault((entry.worker, made), replace(entry, share=shares.get(entry.variant, 0.0)))
        return tuple(found.values())


def _by_answers(
    actual: Actual, running: Generation, alive: Mapping[str, Mapping[str, WorkerModel]]
) -> dict[Answers, list[tuple[str, WorkerModel]]]:
    """Returns the models that do not stand by, with the names of their workers, by what they answer."""
    found: dict[Answers, list[tuple[str, WorkerModel]]] = {}
    for name, models in alive.items():
        spare = idle(actual.workers[name], running)
        for model in models.values():
            if model.name not in spare:
                found.setdefault(model.answers, []).append((name, model))
    return found


def _unprofiled(worker: Worker, model: WorkerModel, task: TaskFront) -> RouteEntry:
    """Returns an entry for a model of a generation that failed, whose profiled times are not known any more."""
    slo_ms = max((entry.slo_ms for entry in task.route), default=0.0)
    return RouteEntry(
        worker.name,
        model.name,
        model.batch,
        model.instances,
        model.variant,
        tokens=model.tokens,
        pads=model.pads,
        slo_ms=slo_ms,
        remote=worker.remote,
        node=worker.node,
    )


def _stand_ins(actual: Actual, *bundles: Bundle) -> dict[str, Worker]:
    """Returns the workers that exist but are in no bundle, with the bundles' worker of which each is a copy."""
    known = {name for bundle in bundles for name in bundle.workers}
    found = {}
    for name, worker in actual.workers.items():
        original = _original_of(worker, bundles) if name not in known else None
        if original is not None:
            found[name] = original
    return found


def _original_of(worker: Worker, bundles: Iterable[Bundle]) -> Worker | None:
    """Returns a worker of the bundles with the same models on the same kind of slice; None if there is none."""
    return next((w for bundle in bundles for w in bundle.workers.values() if _alike(w, worker)), None)


def _alike(one: Worker, other: Worker) -> bool:
    if one.place is None or other.place is None:
        return False
    kinds = [(w.place.board, w.place.placement.slice, w.process) for w in (one, other) if w.place is not None]
    return one.models == other.models and kinds[0] == kinds[1]
