"""Changes of the plan in a run, for people."""

from collections.abc import Iterator, Sequence

from jigsaw_triton.evaluation.simulator.accounting import Change
from jigsaw_triton.report.numbers import clock

_LISTED = 10
"""Largest number of changes that are listed."""


def lines(changes: Sequence[Change]) -> Iterator[str]:
    """Yields a line for each of the first changes, and one for the rest."""
    for change in changes[:_LISTED]:
        outcome = f"failed: {change.failure}" if change.failure else f"{change.slices} slices"
        yield f"{clock(change.at_s)}  {outcome}, in {change.seconds:.1f} s: {change.reason}"
    if len(changes) > _LISTED:
        yield f"and {len(changes) - _LISTED} more changes; `-o json` lists all"
