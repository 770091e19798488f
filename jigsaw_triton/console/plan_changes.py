"""Changes of the plan that a deployment has served, from its journal. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from jigsaw_triton.controller.persistence.records import JournalEvent, Revision

READY = "ready"
"""Kind of the event with which a change ends."""


@dataclass(frozen=True, slots=True)
class PlanChange:
    """A change to a generation that serves or has served.

    Attributes:
        t: Time at which the generation was planned, in seconds since 1970.
        after: The generation.
        before: Generation that served before; None if none did.
        seconds: Seconds until the generation served; None if that is unknown.
    """

    t: float
    after: Revision
    before: Revision | None
    seconds: float | None

    @property
    def summary(self) -> str:
        """Sentence about what has changed."""
        after, before = self.after, self.before
        cause = "by the load" if after.by == "load" else "by the user"
        if before is None:
            return f"generation {after.number} on {after.slices} slices, {cause}"
        return f"generation {before.number} to {after.number}, {before.slices} to {after.slices} slices, {cause}"


def plan_changes(revisions: Sequence[Revision], events: Sequence[JournalEvent]) -> Iterator[PlanChange]:
    """Yields the changes, oldest first.

    Args:
        revisions: Generations of the deployment, oldest first.
        events: Events of the kind `READY`, oldest first. Others are skipped.
    """
    ready = [seconds_of(event.at) for event in events if event.kind == READY]
    served: Revision | None = None
    for revision in revisions:
        if revision.outcome in ("", "failed", "unchanged"):
            continue
        t = seconds_of(revision.at)
        ended = next((at for at in ready if at >= t), None)
        yield PlanChange(t, revision, served, None if ended is None else round(ended - t, 3))
        served = None if revision.outcome == "stopped" else revision


def seconds_of(at: str) -> float:
    """Returns a time of the journal, in ISO 8601, as seconds since 1970."""
    return datetime.fromisoformat(at).timestamp()
