"""Counters of servers, which begin at 0 whenever their server starts."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def counted_since(before: Mapping[K, float], now: Mapping[K, float]) -> dict[K, float]:
    """Returns what was counted between two readings. A counter that went down has restarted from 0."""
    return {key: count - before.get(key, 0.0) if count >= before.get(key, 0.0) else count for key, count in now.items()}
