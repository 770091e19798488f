"""Stages of a change: groups of actions, one after the other."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.compiler.bundle import RouteEntry
from jigsaw_triton.controller.core import actions as a


@dataclass(frozen=True, slots=True)
class Stage:
    """Actions that may be carried out concurrently. The next stage waits for all of them.

    Attributes:
        title: Description for the event log.
        actions: Actions of the stage. Only a stage that commits may have none.
        commits: True if the new generation serves after this stage, so that a rollback is no longer possible.
        watches: True if the next stage waits for the verdict of the canary.
        step: Number of the planner's step to which the stage belongs, from 1; 0 for none.
        steps: Number of steps in the change.
    """

    title: str
    actions: tuple[a.Action, ...]
    commits: bool = False
    watches: bool = False
    step: int = 0
    steps: int = 0

    def cuts(self, routes: Mapping[str, Iterable[RouteEntry]]) -> bool:
        """Returns True if an action drains or ends a model, or ends a worker, to which one of these routes leads."""
        reached = {(entry.worker, entry.model) for route in routes.values() for entry in route}
        for action in self.actions:
            match action:
                case a.Drain(name, models) | a.UnloadModels(name, models):
                    ending = {(name, model) for model in models}
                case a.Retire(worker):
                    ending = {(name, model) for name, model in reached if name == worker.name}
                case _:
                    continue
            if ending & reached:
                return True
        return False

    def __str__(self) -> str:
        if self.step and self.steps > 1:
            return f"step {self.step} of {self.steps}: {self.title}"
        return self.title
