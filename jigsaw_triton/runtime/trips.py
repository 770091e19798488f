"""A batch's way to a worker and back, as it is remembered: counted by `tally`, told by `trace`."""

from typing import Literal, NamedTuple

from jigsaw_triton.runtime.batches import Part
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.runtime.route import RouteEntry

Outcome = Literal["answered", "refused", "failed"]
"""refused: the worker answered with an error, or with what the task is not to give; failed: the worker did."""


class Trip(NamedTuple):
    """A part of a batch that was sent to a worker.

    Attributes:
        part: What was sent.
        entry: Where to.
        sent_s: When it began to be sent, on the dispatcher's clock.
        ended_s: When its answer was there, or the worker known to have failed.
        outcome: How it ended.
        sent_bytes: Of the request's body.
        received_bytes: Of the answer's.
        outputs: What was answered.
        number: Counted from 1 among the batch's trips, in the order in which they were sent.
    """

    part: Part
    entry: RouteEntry
    sent_s: float
    ended_s: float
    outcome: Outcome
    sent_bytes: int = 0
    received_bytes: int = 0
    outputs: Arrays | None = None
    number: int = 0
