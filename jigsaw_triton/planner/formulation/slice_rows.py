"""Columns and rows of slices in the program: shared slices, cuts of GPUs, and running replicas that stay."""

from collections import Counter
from collections.abc import Mapping, Sequence

from jigsaw_triton.planner.candidates.configurations import Configuration, Replica
from jigsaw_triton.planner.candidates.pools import Pool, pool_of, weights
from jigsaw_triton.planner.formulation.supply import Supply, SupplyUnit
from jigsaw_triton.planner.solver.program import Draft


def pool_rows(
    draft: Draft, count: Mapping[Configuration, int], supplies: Sequence[Supply], *, unlimited: bool
) -> dict[Pool, int]:
    """Adds the number of slices of each pool.

    The configurations of a pool fit its slices by each measure of size, and each slice has a task at most once.
    """
    found: dict[Pool, list[Configuration]] = {}
    for c in count:
        if c.shares:
            found.setdefault(pool_of(c), []).append(c)
    by_board = {s.board.name: s for s in supplies}
    pools: dict[Pool, int] = {}
    for pool, inside in found.items():
        n = pools[pool] = draft.integer(None if unlimited else by_board[pool.board].most(pool.slice))
        for measure in sorted(set(zip(*(weights(c) for c in inside), strict=True))):
            if any(measure):
                draft.at_most(0, [(n, -1.0), *((count[c], m) for c, m in zip(inside, measure, strict=True) if m)])
        tasks: dict[tuple[str, str], list[int]] = {}
        for c in inside:
            tasks.setdefault((c.graph, c.task), []).append(count[c])
        for columns in tasks.values():
            draft.at_most(0, [(n, -1.0), *((column, 1.0) for column in columns)])
    return pools


def layout_rows(
    draft: Draft, taken: Sequence[tuple[str, SupplyUnit, int]], supplies: Sequence[Supply], *, unlimited: bool
) -> dict[int, int]:
    """Adds the numbers of GPUs by group and multiset, which together supply the slices in use.

    Returns the cost of a GPU by column.

    Args:
        draft: Program to add to.
        taken: (model of GPU, kind of slice or running replica, column of the number in use).
        supplies: Supply of each model of GPU.
        unlimited: True if there are unlimited GPUs.
    """
    layouts: dict[int, int] = {}
    for supply in supplies:
        z: list[tuple[int, Counter[SupplyUnit]]] = []
        if unlimited:
            z = [(draft.integer(None), m) for m in supply.whole]
        for group in () if unlimited else supply.groups:
            cuts = [(draft.integer(group.gpus), m) for m in group.multisets]
            draft.at_most(group.gpus, [(column, 1) for column, _ in cuts])
            z += cuts
        layouts |= dict.fromkeys((column for column, _ in z), supply.board.compute_slices * supply.board.slice_cost)
        used: dict[SupplyUnit, list[tuple[int, float]]] = {}
        for board, kind, column in taken:
            if board == supply.board.name:
                unit, number = supply.takes(kind)
                used.setdefault(unit, []).append((column, number))
        for unit, terms in used.items():
            draft.at_most(0, [*terms, *((column, -m[unit]) for column, m in z if m[unit])])
    return layouts


def kept_rows(draft: Draft, count: Mapping[Configuration, int], running: Mapping[Replica, int]) -> dict[Replica, int]:
    """Adds, for each running replica, the number of them that stay in use."""
    columns: dict[Replica, list[int]] = {}
    for c, column in count.items():
        columns.setdefault(c.replica, []).append(column)
    kept = {}
    for replica, alike in columns.items():
        if n := running.get(replica, 0):
            kept[replica] = draft.integer(n)
            draft.at_most(0, [(kept[replica], 1), *((column, -1) for column in alike)])
    return kept
