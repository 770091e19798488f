"""Variants that must not serve together, as linear constraints (`planner.domain.accuracy`)."""

from collections.abc import Mapping

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.accuracy import Use, excluded
from jigsaw_triton.planner.solver.program import Draft
from jigsaw_triton.runtime.chains import members


def _uses(c: Configuration) -> tuple[Use, ...]:
    """Returns the tasks and variants of a configuration: several for that of a fused chain."""
    return tuple(zip(members(c.task), members(c.variant), strict=True))


def in_use(draft: Draft, count: Mapping[Configuration, tuple[int, float]]) -> dict[Use, int]:
    """Adds a binary column for each variant, which is 1 if one of its configurations is in use.

    Args:
        draft: Program to add to.
        count: Configuration -> column of its count, and the largest count.
    """
    columns: dict[Use, int] = {}
    for c, (column, most) in count.items():
        for use in _uses(c):
            if use not in columns:
                columns[use] = draft.integer(1)
            draft.at_most(0, [(column, 1.0), (columns[use], -most)])
    return columns


def exclude(draft: Draft, graph: TaskGraph, count: Mapping[Configuration, tuple[int, float]]) -> dict[Use, int]:
    """Forbids the pairs of variants that do not keep the accuracy SLO together.

    Args:
        draft: Program to add to.
        graph: Prepared graph.
        count: Configuration -> column of its count, and the largest count.

    Returns:
        Columns of the variants in such pairs, which are 1 if the variant is in use.
    """
    pairs = excluded(graph)
    apart = {use for pair in pairs for use in pair}
    concerned = {c: found for c, found in count.items() if apart & set(_uses(c))}
    columns = in_use(draft, concerned)
    for one, other in pairs:
        if one in columns and other in columns:
            draft.at_most(1, [(columns[one], 1.0), (columns[other], 1.0)])
    return columns
