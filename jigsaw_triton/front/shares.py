"""Shares of a graph's requests that cells get. Pure functions without side effects."""

from collections.abc import Mapping

MOST_WEIGHT = 256
"""Largest weight of a server in HAProxy."""

LEAST_RPS = 1e-6
"""Requests per second that count as none."""

_EXACT = 1e-9


def shares(planned: Mapping[str, float], capacity_rps: Mapping[str, float], load_rps: float) -> dict[str, float]:
    """Returns the share of a graph's requests that each cell gets: as planned, unless a cell cannot carry that.

    A controller makes the capacity of its cell follow the load, so shares in proportion to capacities would follow
    themselves: the cell that gives back capacity first would get less load, and give back more. Therefore capacities
    only limit the planned shares. What a cell cannot carry goes to the others in proportion to their planned shares,
    as far as they carry it. If all cells together do not carry the load, each gets it in proportion to its capacity.

    Args:
        planned: Cell -> planned share.
        capacity_rps: Cell -> requests per second that it says it carries. Other cells keep their planned share.
        load_rps: Requests per second that arrive at these cells together.

    Returns:
        Cell -> share. They add up to the sum of the planned ones.
    """
    known = {cell: share for cell, share in planned.items() if cell in capacity_rps}
    total, carried = sum(known.values()), sum(capacity_rps[cell] for cell in known)
    if load_rps < LEAST_RPS or not carried:
        return dict(planned)
    if carried <= load_rps:
        return dict(planned) | {cell: total * capacity_rps[cell] / carried for cell in known}
    found: dict[str, float] = {}
    free = dict(known)
    left_rps = load_rps
    while free:
        scale = left_rps / sum(free.values())
        full = {cell for cell, share in free.items() if share * scale > capacity_rps[cell] * (1 + _EXACT)}
        if not full:
            found |= {cell: total * share * scale / load_rps for cell, share in free.items()}
            break
        for cell in full:
            found[cell] = total * capacity_rps[cell] / load_rps
            left_rps -= capacity_rps[cell]
            del free[cell]
    return dict(planned) | found


def weights(by_cell: Mapping[str, float]) -> dict[str, int]:
    """Returns HAProxy's weights for shares: 256 for the largest, and at least 1."""
    largest = max(by_cell.values(), default=0.0)
    if largest <= 0:
        return dict.fromkeys(by_cell, 1)
    return {cell: max(1, round(MOST_WEIGHT * share / largest)) for cell, share in by_cell.items()}
