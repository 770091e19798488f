"""Stages of a change as they are added, with a record of what exists after them. Pure."""

from collections.abc import Collection, Iterable, Mapping

from jigsaw_triton.compiler.bundle import WorkerModel
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.interim_routes import Routes, closing
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.gpus.model import GpuId


class StageList:
    """Stages of a change.

    Args:
        actual: Servers, models and routes that exist at first.
        lost: GPUs whose workers answer nothing.

    Attributes:
        actual: Servers, models and routes that exist after the stages so far.
    """

    def __init__(self, actual: Actual, lost: Collection[GpuId] = ()) -> None:
        self.actual = actual
        self._lost = lost
        self._stages: list[Stage] = []
        self._first: tuple[a.Action, ...] = ()
        self._step = (0, 0)

    def all(self) -> tuple[Stage, ...]:
        """Returns the stages so far."""
        return tuple(self._stages)

    @property
    def answering(self) -> Actual:
        """Servers, models and routes after the stages so far, without workers on lost GPUs."""
        return self.actual.without_gpus(self._lost) if self._lost else self.actual

    def begin_with(self, actions: Iterable[a.Action]) -> None:
        """Sets actions that the next stage carries out beside its own."""
        self._first = tuple(actions)

    def at_step(self, number: int = 0, steps: int = 0) -> None:
        """Sets the planner's step to which the next stages belong; see `Stage`."""
        self._step = (number, steps)

    def add(self, title: str, actions: Iterable[a.Action], *, commits: bool = False, watches: bool = False) -> None:
        """Adds a stage, unless it has nothing to do; see `Stage`."""
        actions = (*self._first, *actions)
        self._first = ()
        if actions or commits:
            self._stages.append(Stage(title, actions, commits, watches, *self._step))
        for action in actions:
            self.actual = self.actual.after(action)

    def route(self, title: str, wanted: Routes) -> None:
        """Adds stages that set routes. Requests that are bound to a generation that leaves the routes end first."""
        closed, ending = closing(self.answering, wanted)
        if ending:
            self._set_routes("send new requests to the other generation", closed)
            self.add("wait for the requests of the generation that leaves", [a.Settle(graph, g) for graph, g in ending])
        self._set_routes(title, wanted)

    def unload(self, title: str, models: Mapping[str, tuple[WorkerModel, ...]]) -> None:
        """Adds stages that unload models that no route leads to any more, once their last batches have ended.

        Args:
            title: Description of the models.
            models: Name of a worker -> its models to unload.
        """
        self.add(f"drain {title}", drains(models))
        self.add(f"unload {title}", unloads(models))

    def _set_routes(self, title: str, wanted: Routes) -> None:
        changed = {name: route for name, route in wanted.items() if route != self.actual.routes.get(name)}
        self.add(title, (a.SetRoutes(changed),) if changed else ())


def drains(models: Mapping[str, tuple[WorkerModel, ...]]) -> list[a.Drain]:
    """Returns the actions that wait for the batches of models, by worker."""
    return [a.Drain(worker, tuple(model.name for model in gone)) for worker, gone in models.items()]


def unloads(models: Mapping[str, tuple[WorkerModel, ...]]) -> list[a.UnloadModels]:
    """Returns the actions that unload models, by worker: a chain is unloaded before the models that it calls."""
    return [a.UnloadModels(worker, tuple(model.name for model in reversed(gone))) for worker, gone in models.items()]
