"""Lists in messages, no longer than a person reads."""

from collections.abc import Sequence

MOST_NAMED = 8
"""Largest number of items that a message names. A convention: a cluster may have two thousand nodes."""


def limited(items: Sequence[object], most: int = MOST_NAMED, *, separator: str = ", ") -> str:
    """Returns the first items, and only the number of the others: `a, b and 3 more`.

    Args:
        items: Items in order.
        most: Largest number of items that are named.
        separator: Text between two items.
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(map(str, items[:most])) + more
