"""Records of a journal that people read."""

from dataclasses import dataclass
from typing import Literal

STOPPED, LEFT, REPLACED = "stopped", "left", "replaced"
"""Kinds of the last event of a deployment that has been taken down, of a controller that left its servers, and of one
that a controller on another machine has replaced."""

REPLACED_FACT = "replaced"
"""Journal key of the sentence that says which controller has replaced that of this journal; empty if none has."""

IDENTITY_FACT = "deployment"
"""Journal key of the identity by which agents know whose workers they have."""

WORKERS_FACT = "workers"
"""Journal key of the workers of an agent, as JSON."""

STANDBY_GATEWAY_FACT, CONTROLLER_EPOCH_FACT = "standby gateway", "controller epoch"
"""Journal keys of what the standby gateway of an agent is to serve, and of the last epoch of its controllers."""


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """A line of the event log.

    Attributes:
        id: Number of the event, which increases.
        at: Time in UTC, in ISO 8601 format.
        kind: Kind of the event, one word.
        text: Sentence that describes the event.
        code: Exit code for an error that ended a change; 0 for any other event.
    """

    id: int
    at: str
    kind: str
    text: str
    code: int


Outcome = Literal["serves", "replaced", "failed", "unchanged", "stopped"]
"""Outcome of a generation: it serves, served until another replaced it, failed and was undone, was what ran already, or
served until the deployment was taken down."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A generation in the history of a deployment.

    Attributes:
        number: Number of the generation.
        at: Time at which it was planned, in ISO 8601.
        by: `user`, or `load` if the measured load caused it.
        reason: Cause of the change.
        slices: Compute slices that its plan uses.
        slices_total: Compute slices of the cluster.
        outcome: Outcome; empty while the change to the generation is in progress. See `Outcome`.
    """

    number: int
    at: str
    by: str
    reason: str
    slices: int
    slices_total: int
    outcome: str
