"""Counts of a controller since its start, for its metrics."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.state import GATEWAY


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the controller started.

    Attributes:
        generations: Outcome -> number of generations that a change has ended with.
        restarts: Name of a worker, or `gateway` -> its restarts.
    """

    generations: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)

    def copy(self) -> "Totals":
        """Returns the present counts."""
        return Totals(self.generations.copy(), self.restarts.copy())

    def count(self, outcomes: Iterable[str], actions: Iterable[a.Action]) -> None:
        """Counts outcomes of generations, and actions that have been issued."""
        self.generations.update(outcomes)
        for action in actions:
            match action:
                case a.RestartWorker(worker):
                    self.restarts[worker.name] += 1
                case a.RestartGateway():
                    self.restarts[GATEWAY] += 1
