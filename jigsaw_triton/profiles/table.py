"""A table of profiles, with one row per configuration of a variant."""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Source = Literal["measured", "fitted", "assumed"]
"""Kind of the figures of a row."""

Processes = Literal["streams", "mps"]
"""Kind of the instances of a row: a copy of `gpus.model.Processes`, which this package must not import."""

MEASURED: tuple[Source, ...] = ("measured",)
"""Sources of rows that a fit rests on by default."""

_LEVEL = 1
"""Level of compression, the fastest. Figures with many digits get little smaller at any other."""


@dataclass(frozen=True, slots=True, order=True)
class ProfileKey:
    """A configuration of a variant on one kind of slice of a GPU model.

    Attributes:
        gpu: Name of a board of the catalog.
        task: Name of the task in graph.yaml. Plans ignore rows with names that the graph does not have, and
            `profiles check` reports them.
        variant: Name of the variant of the task.
        slice: Kind of the slice: `1g`, `1gx2`, `2g`, `3g`, `4g` or `7g`.
        instances: Number of Triton instances of the model in the slice, at least 1.
        batch: Batch size, at least 1.
    """

    gpu: str
    task: str
    variant: str
    slice: str
    instances: int
    batch: int

    @property
    def words(self) -> str:
        """Configuration as a person reads it, such as `detect.small on 2g, 1 x batch 8`."""
        return f"{self.task}.{self.variant} on {self.slice}, {self.instances} x batch {self.batch}"


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """A row of profiles.csv.

    Attributes:
        key: Configuration that was profiled.
        latency_p50_ms: Median latency in milliseconds of one batch while all instances are busy, above 0.
        latency_p95_ms: 95th percentile of that latency, at least the median.
        latency_p99_ms: 99th percentile of that latency, at least the 95th.
        throughput_rps: Items per second of all instances together, above 0.
        memory_mib: Memory in MiB of all instances together, at least 0.
        source: Kind of the figures: `measured`, `fitted` from other rows, or `assumed`.
        origin: Description of where the figures are from, such as `perf_analyzer: detect.csv`: up to 200 printable
            characters. Empty if it is not known.
        error: Relative standard deviation that is stated for the median latency, such as 0.03. None if it is not
            known.
        processes: Form of the instances: `streams` in one server, or `mps`, a server each under MPS. None if it is not
            known.
        model: Digest of the model that was measured, 12 hexadecimal digits. Empty if it is not known.
        processor_ms: Processor time in milliseconds of an item in the processes of the worker, on the board `cpu`.
            Plans for slices that share processors add it up. None if it is not known.
    """

    key: ProfileKey
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    throughput_rps: float
    memory_mib: float
    source: Source
    origin: str = ""
    error: float | None = None
    processes: Processes | None = None
    model: str = ""
    processor_ms: float | None = None

    def holds_for(self, processes: Processes) -> bool:
        """Returns True if the row describes a cluster whose instances are of this kind.

        One instance is the same in both. A row that does not say its kind counts as of the cluster's.
        """
        return self.key.instances == 1 or self.processes in (None, processes)


class ProfileTable:
    """An immutable table of profile rows.

    Args:
        rows: Rows with distinct keys.
    """

    __slots__ = ("_by_task", "_packed", "_rows")

    def __init__(self, rows: Iterable[ProfileRow]) -> None:
        self._keep(sorted(rows, key=lambda r: r.key))
        self._packed = b""

    def _keep(self, rows: Iterable[ProfileRow]) -> None:
        self._rows = {row.key: row for row in rows}
        self._by_task: dict[str, list[ProfileRow]] = {}
        for row in self._rows.values():
            self._by_task.setdefault(row.key.task, []).append(row)

    def __getstate__(self) -> bytes:
        """Returns the rows for pickle, as compressed JSON, encoded once: a controller pickles its tables often."""
        if not self._packed:
            text = json.dumps([_cells(row) for row in self._rows.values()])
            self._packed = zlib.compress(text.encode(), _LEVEL)
        return self._packed

    def __setstate__(self, packed: bytes) -> None:
        """Sets the rows from `__getstate__`."""
        self._keep(ProfileRow(ProfileKey(*key), *rest) for key, *rest in json.loads(zlib.decompress(packed)))
        self._packed = packed

    def __len__(self) -> int:
        return len(self._rows)

    def rows(
        self, *, task: str | None = None, variant: str | None = None, gpu: str | None = None
    ) -> tuple[ProfileRow, ...]:
        """Returns the rows that match all given names, sorted by key."""
        return tuple(
            row
            for row in (self._rows.values() if task is None else self._by_task.get(task, ()))
            if (variant is None or row.key.variant == variant) and (gpu is None or row.key.gpu == gpu)
        )

    def get(self, key: ProfileKey) -> ProfileRow | None:
        """Returns the row of a configuration, or None if it was not profiled."""
        return self._rows.get(key)


def _cells(row: ProfileRow) -> tuple[object, ...]:
    key = row.key
    return (
        (key.gpu, key.task, key.variant, key.slice, key.instances, key.batch),
        row.latency_p50_ms,
        row.latency_p95_ms,
        row.latency_p99_ms,
        row.throughput_rps,
        row.memory_mib,
        row.source,
        row.origin,
        row.error,
        row.processes,
        row.model,
        row.processor_ms,
    )
