"""Pairs of variants that were measured together, as linear constraints (`planner.domain.accuracy`).

Some must not serve together. The others lose more together than their variants' losses add up to.
"""

from collections.abc import Mapping

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.accuracy import Use, excluded, optimistic, pair_tables
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR
from jigsaw_triton.planner.solver.program import Draft
from jigsaw_triton.runtime.chains import members


def _uses(c: Configuration) -> tuple[Use, ...]:
    """Returns the tasks and variants of a configuration: several for that of a fused chain."""
    return tuple(zip(members(c.task), members(c.variant), strict=True))


def in_use(
    draft: Draft, count: Mapping[Configuration, tuple[int, float]], known: Mapping[Use, int] | None = None
) -> dict[Use, int]:
    """Adds a binary column for each variant, which is 1 if one of its configurations is in use.

    Args:
        draft: Program to add to.
        count: Configuration -> column of its count, and the largest count.
        known: Columns of variants that have one.

    Returns:
        Columns of all variants, the known ones included.
    """
    columns = dict(known or {})
    for c, (column, most) in count.items():
        for use in (use for use in _uses(c) if use not in (known or {})):
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


def measured_excess(
    draft: Draft, graph: TaskGraph, count: Mapping[Configuration, tuple[int, float]], known: Mapping[Use, int]
) -> list[int]:
    """Adds what pairs of variants in use lose beyond the sum of the variants' own losses: the most of each table.

    Args:
        draft: Program to add to.
        graph: Prepared graph.
        count: Configuration -> column of its count, and the largest count.
        known: Columns of `exclude`.

    Returns:
        Columns of real variables, to be minimised.
    """
    found = []
    apart = set(excluded(graph))
    for table in pair_tables(graph):
        pairs = {((table.tasks[0], one), (table.tasks[1], other)): lost for (one, other), lost in table.loss.items()}
        own = {
            (task, v): lost
            for task, losses in zip(table.tasks, optimistic(table), strict=True)
            for v, lost in losses.items()
        }
        beyond = {(u, v): lost - own[u] - own[v] for (u, v), lost in pairs.items() if (u, v) not in apart}
        beyond = {pair: more for pair, more in beyond.items() if more > FLOAT_ERROR}
        if not beyond:
            continue
        uses = {use for pair in beyond for use in pair}
        columns = in_use(draft, {c: counted for c, counted in count.items() if uses & set(_uses(c))}, known)
        most = draft.real()
        for (u, v), more in beyond.items():
            if u in columns and v in columns:
                draft.at_least(-more, [(most, 1.0), (columns[u], -more), (columns[v], -more)])
        found.append(most)
    return found
