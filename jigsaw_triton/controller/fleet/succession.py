"""Succession of the controllers of a deployment: which of them commands the nodes, and which one gives way.

Controllers on one machine follow each other by the lock of their state folder. One on another machine has a copy of the
folder, so the nodes tell it from its predecessor: by the epoch that they obey, and by their fence (`fencing`).
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from jigsaw_triton.controller.fleet.wire import Json
from jigsaw_triton.controller.persistence.epoch import number_of
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import IDENTITY_FACT
from jigsaw_triton.errors import StateError

COMMANDED_S = 10.0
"""Seconds after its last command for which another controller counts as running. It commands every second."""

REPLACED_S = 60.0
"""Seconds after its last command for which a controller that has replaced this one counts as running. Its supervisor
starts the next one after 30 s at most."""

_FENCES_FACT = "fences"
"""Journal key of the fences that this controller and those before it in this journal have set, the last one last."""


class ReplacedError(StateError):
    """A controller on another machine has replaced this one, and workers refuse the gateway of this machine."""


@dataclass(frozen=True, slots=True)
class Succession:
    """Place of a controller among those of its deployment.

    Attributes:
        deployment: Identity of the deployment.
        epoch: Function that returns the epoch of this controller.
        fences: Function that returns the fences that this controller and those before it in its journal have set.
        surpass: Function that begins an epoch of this controller whose number is above that one.
        give_way: Callback for a node that says that a controller on another machine has replaced this one, which has
            commanded the node before.
    """

    deployment: str
    epoch: Callable[[], str]
    fences: Callable[[], Collection[str]]
    surpass: Callable[[int], Awaitable[None]]
    give_way: Callable[[ReplacedError], None]

    def is_fenced(self, described: Json) -> bool:
        """Returns True if a controller on another machine has replaced this one, given a node's last description.

        The numbers of epochs do not tell: each start of a controller that is cut off begins one.
        """
        fence = described.get("fence", "")
        ours = fence in self.fences() or described.get("epoch") == self.epoch()
        return bool(fence) and not ours and described.get("deployment") == self.deployment

    async def claim(self, node: str, described: Json, describe: Callable[[], Awaitable[Json]], *, first: bool) -> None:
        """Checks that this controller may command a node, and begins a later epoch than another one that has ended.

        The agent of a node obeys the controller with the highest epoch of the deployment. A controller with an old copy
        of the state folder begins an epoch that is over, and would be refused.

        Args:
            node: Name of the node, for messages.
            described: Last description of the node by its agent.
            describe: Function that asks the agent again.
            first: True if this controller has not commanded the node before. Its user, or the boot of its machine, has
                then started it after it was replaced, and it goes on if the other one has ended.

        Raises:
            ReplacedError: A controller on another machine has replaced this one.
            StateError: Another controller commands the node now.
        """
        fenced = self.is_fenced(described)
        if fenced and not (first and has_ended(described, REPLACED_S)):
            raise replaced(node, described)
        epoch, own = described.get("epoch", ""), self.epoch()
        if described.get("deployment") != self.deployment or epoch == own or number_of(epoch) < number_of(own):
            return
        if not has_ended(described):
            await asyncio.sleep(COMMANDED_S - described["commanded_s"])
            described = await describe()
        if not has_ended(described):
            raise StateError(
                f"another controller of this deployment, with a copy of its state folder, commands the node in epoch "
                f"{described['epoch']}",
                where=f"node {node}",
                hint="end the other controller, and start this one again",
            )
        await self.surpass(number_of(described["epoch"]))


def has_ended(described: Json, seconds: float | None = None) -> bool:
    """Returns True if no controller has commanded a node for some seconds, given its last description.

    Args:
        described: Description of the node.
        seconds: The seconds; None for COMMANDED_S.
    """
    return float(described.get("commanded_s", 0.0)) >= (COMMANDED_S if seconds is None else seconds)


def replaced(node: str, described: Json) -> ReplacedError:
    """Returns the error that a controller on another machine has replaced this one.

    Args:
        node: Name of the node that says so.
        described: Description of the node.
    """
    machine, at = described.get("fenced_by") or "another machine", described.get("fenced_at")
    since = f" since {at}" if at else ""
    return ReplacedError(
        f"the controller on {machine} has replaced this one{since}; workers refuse the gateway of this machine",
        where=f"node {node}",
    )


def identity_in(journal: Journal) -> str:
    """Returns the identity of the deployment, which lasts as long as its journal."""
    if not journal.fact(IDENTITY_FACT):
        journal.keep_fact(IDENTITY_FACT, secrets.token_hex(8))
    return journal.fact(IDENTITY_FACT)


def fences_in(journal: JournalReader) -> tuple[str, ...]:
    """Returns the fences that the controllers of a journal have set, the last one last."""
    return tuple(journal.fact(_FENCES_FACT).split())


def keep_fence(journal: Journal, fence: str) -> None:
    """Records a fence, before any node gets it."""
    journal.keep_fact(_FENCES_FACT, " ".join((*fences_in(journal), fence)))
