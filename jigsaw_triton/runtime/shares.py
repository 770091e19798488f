"""Which variant is to take what comes next, where the accuracy promised hangs on how much each of them takes.

Every variant may be ahead of its share by one batch and no more, so that over any number of items what it took differs
from its share by a few batches. What is counted is counted for all instances of the dispatcher together.
"""

from collections.abc import Sequence

import numpy as np

from jigsaw_triton.runtime.counters import Counters, Row
from jigsaw_triton.runtime.route import RouteEntry


class Shares:
    """The shares of the variants on a dispatcher's route.

    Args:
        counters: Of the dispatcher; an item counts as taken by a variant when it is sent to it.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._rows: dict[str, int] = {}
        self._kept: dict[str, float] = {}
        self._since = np.zeros(0)

    def route(self, entries: Sequence[RouteEntry]) -> None:
        """The route is another."""
        self._rows = {variant: index for index, variant in enumerate(sorted({entry.variant for entry in entries}))}
        self._kept = {}

    def sent(self, entry: RouteEntry, items: int) -> None:
        """Items are on their way to an entry's variant."""
        self._counters.own[Row.SENT + self._rows[entry.variant]] += items

    def in_turn(self, entries: Sequence[RouteEntry], items: int) -> list[Sequence[RouteEntry]]:
        """Those that may take the next items, in groups; the first that has room is to take them.

        Args:
            entries: That are of use now. While all of a variant's are out, the others share what comes.
            items: How many wait to be sent together.
        """
        shares = {entry.variant: entry.share for entry in entries if entry.share}
        if not shares:
            return [entries]
        sent = self._counters.all[Row.SENT : Row.SENT + len(self._rows)].sum(axis=1)
        if shares != self._kept:
            # What was taken under other shares, or while one was out, is of no account now.
            self._kept, self._since = shares, sent
        if len(shares) == 1:
            return [entries]
        taken = {variant: sent[self._rows[variant]] - self._since[self._rows[variant]] for variant in shares}
        largest = max(entry.batch for entry in entries)
        whole, total = sum(shares.values()), sum(taken.values())
        groups = []
        for variant, share in shares.items():
            members = [entry for entry in entries if entry.variant == variant]
            count = min(items, max(entry.batch for entry in members))
            ahead = taken[variant] + count - share / whole * (total + count)
            if ahead <= largest:
                groups.append((ahead - count, variant, members))
        return [members for _, _, members in sorted(groups)]
