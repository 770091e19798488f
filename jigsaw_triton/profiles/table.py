"""What is known of a variant's speed: one row a configuration."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class ProfileKey:
    """A configuration of one variant on one kind of slice of one model of GPU."""

    gpu: str
    task: str
    variant: str
    slice: str
    instances: int
    batch: int


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """A row of profiles.csv.

    Attributes:
        key: The configuration.
        latency_p50_ms: Of one batch, all instances busy.
        latency_p95_ms: Likewise.
        latency_p99_ms: Likewise.
        throughput_rps: Items a second of all instances together.
        memory_mib: Of all instances together.
        source: Where the figures come from.
    """

    key: ProfileKey
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    throughput_rps: float
    memory_mib: float
    source: Literal["measured", "fitted", "assumed"]


class ProfileTable:
    """Rows by configuration; immutable.

    Args:
        rows: Of distinct keys.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Iterable[ProfileRow]) -> None:
        self._rows = {row.key: row for row in sorted(rows, key=lambda r: r.key)}

    def __len__(self) -> int:
        return len(self._rows)

    def rows(
        self, *, task: str | None = None, variant: str | None = None, gpu: str | None = None
    ) -> tuple[ProfileRow, ...]:
        """Rows that match, sorted by key."""
        return tuple(
            row
            for key, row in self._rows.items()
            if (task is None or key.task == task)
            and (variant is None or key.variant == variant)
            and (gpu is None or key.gpu == gpu)
        )

    def get(self, key: ProfileKey) -> ProfileRow | None:
        """The row of this configuration, or None."""
        return self._rows.get(key)
