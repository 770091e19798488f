"""Fills a table of profiles with fitted rows for configurations that were not measured."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self, TypeVar

import numpy as np

from jigsaw_triton.profiles.fit import LatencyFit
from jigsaw_triton.profiles.latency_model import SHARES, Array, Configuration
from jigsaw_triton.profiles.table import MEASURED, Processes, ProfileKey, ProfileRow, ProfileTable, Source

T = TypeVar("T")

QUANTILE = 0.9
"""Quantile of the prediction that a fitted row has by default: one measurement in ten would be slower."""

Rooms = Mapping[tuple[str, str], float]
"""GPU model and kind of slice -> memory of the slice in MiB."""


@dataclass(frozen=True)
class _Figures:
    """Figures of a variant that do not come from the latency model.

    Attributes:
        p95: 95th percentile of the latency over the median.
        p99: 99th percentile of the latency over the median.
        throughput: Throughput over that of back-to-back batches of the median latency.
        fixed_mib: Memory of an instance without items.
        item_mib: Memory of each item of the batch.
        processes: Kind of the instances, if all rows of several instances agree.
        model: Digest of the model, if all rows agree; else empty.
        fixed_ms: Processor time of a batch without items; None unless all rows have their processor time.
        item_ms: Processor time of each item of the batch.
    """

    p95: float
    p99: float
    throughput: float
    fixed_mib: float
    item_mib: float
    processes: Processes | None
    model: str
    fixed_ms: float | None
    item_ms: float

    @classmethod
    def of(cls, rows: Sequence[ProfileRow]) -> Self:
        """Returns the medians of the rows, and a line through their memory."""
        several = [row for row in rows if row.key.instances > 1] or rows
        batches = [row.key.batch for row in rows]
        fixed, item = _line(batches, [row.memory_mib / row.key.instances for row in rows])
        times_ms = [row.processor_ms * row.key.batch for row in rows if row.processor_ms is not None]
        fixed_ms, item_ms = _line(batches, times_ms) if len(times_ms) == len(rows) else (None, 0.0)
        return cls(
            median(row.latency_p95_ms / row.latency_p50_ms for row in rows),
            median(row.latency_p99_ms / row.latency_p50_ms for row in rows),
            median(
                row.throughput_rps * row.latency_p50_ms / (1000 * row.key.batch * row.key.instances) for row in rows
            ),
            fixed,
            item,
            _common({row.processes for row in several}, None),
            _common({row.model for row in rows}, ""),
            fixed_ms,
            item_ms,
        )

    def row(self, key: ProfileKey, p50_ms: float, origin: str, error: float) -> ProfileRow:
        """Returns the fitted row of a configuration."""
        return ProfileRow(
            key,
            latency_p50_ms=_rounded(p50_ms),
            latency_p95_ms=_rounded(self.p95 * p50_ms),
            latency_p99_ms=_rounded(self.p99 * p50_ms),
            throughput_rps=_rounded(self.throughput * 1000 * key.batch * key.instances / p50_ms),
            memory_mib=round(key.instances * (self.fixed_mib + self.item_mib * key.batch), 1),
            source="fitted",
            origin=origin,
            error=round(error, 4),
            processes=self.processes,
            model=self.model,
            processor_ms=_rounded(self.fixed_ms / key.batch + self.item_ms) if self.fixed_ms is not None else None,
        )


def crossed(
    rows: Iterable[ProfileRow],
    *,
    slices: Collection[str] = (),
    instances: Collection[int] = (),
    batches: Collection[int] = (),
) -> list[ProfileKey]:
    """Returns every combination of slices, instances and batches of each variant on each GPU model.

    Args:
        rows: Rows of the variants.
        slices: Kinds of slices; by default those of the variant's rows.
        instances: Numbers of instances; by default those of the variant's rows.
        batches: Batch sizes; by default those of the variant's rows.
    """
    known: dict[tuple[str, str, str], list[ProfileKey]] = {}
    for row in rows:
        known.setdefault((row.key.gpu, row.key.task, row.key.variant), []).append(row.key)
    return [
        ProfileKey(*name, kind, count, batch)
        for name, keys in known.items()
        for kind in sorted(slices or {key.slice for key in keys})
        for count in sorted(instances or {key.instances for key in keys})
        for batch in sorted(batches or {key.batch for key in keys})
    ]


def fitted_rows(
    table: ProfileTable,
    fits: Mapping[str, LatencyFit],
    wanted: Iterable[ProfileKey],
    *,
    quantile: float = QUANTILE,
    rooms: Rooms,
    sources: Collection[Source] = MEASURED,
) -> list[ProfileRow]:
    """Returns fitted rows for configurations without a row. Fitted rows of the table do not count as rows.

    The latency is a quantile of the prediction, between the measured latencies of the next smaller and the next larger
    batch. Percentiles, throughput and memory follow the rows of the variant. The stated error of a row is the relative
    standard deviation of its own prediction.

    Args:
        table: Known rows.
        fits: Fits by GPU model; see `fit_latency`.
        wanted: Configurations; those of variants without a fit are left out.
        quantile: Quantile of the prediction, in (0, 1).
        rooms: Memory of the slices. Configurations that need more, and slices without an entry, are left out.
        sources: Sources of the rows that the fits come from.
    """
    known = {
        row.key
        for row in table.rows()
        if row.source in sources and (fit := fits.get(row.key.gpu)) is not None and fit.covers(row)
    }
    kept = {row.key for row in table.rows() if row.source != "fitted"}
    by_variant: dict[tuple[str, str, str], list[ProfileKey]] = {}
    for key in wanted:
        fit = fits.get(key.gpu)
        if key not in kept and fit is not None and (key.task, key.variant) in fit.variants:
            by_variant.setdefault((key.gpu, key.task, key.variant), []).append(key)
    found: list[ProfileRow] = []
    for (gpu, task, variant), keys in by_variant.items():
        rows = [row for row in table.rows(task=task, variant=variant, gpu=gpu) if row.key in known]
        configurations = [_configuration(key) for key in keys]
        latencies_ms = fits[gpu].predict((task, variant), configurations, quantile=quantile)
        errors = fits[gpu].deviations((task, variant), configurations).tolist()
        figures, one = _Figures.of(rows), fits[gpu].variants[task, variant]
        origin = f"fit of {one.rows} rows, quantile {quantile:g}"
        for key, latency_ms, error in zip(keys, _between(keys, latencies_ms, rows), errors, strict=True):
            row = figures.row(key, latency_ms, origin, error)
            if row.memory_mib <= rooms.get((key.gpu, key.slice), 0.0):
                found.append(row)
    return found


def extrapolated(table: ProfileTable, sources: Collection[Source] = MEASURED) -> list[ProfileKey]:
    """Returns the configurations of fitted rows that are outside of the range of their variant's rows.

    The range is from the smallest to the largest slice, number of instances and batch size.

    Args:
        table: Filled table.
        sources: Sources of the rows that the model was fitted to.
    """
    ranges: dict[tuple[str, str, str], list[tuple[int, ...]]] = {}
    for row in table.rows():
        if row.source in sources:
            ranges.setdefault((row.key.gpu, row.key.task, row.key.variant), []).append(_extent(row.key))
    return [
        row.key
        for row in table.rows()
        if row.source == "fitted"
        and (known := ranges.get((row.key.gpu, row.key.task, row.key.variant)))
        and not all(
            min(axis) <= value <= max(axis)
            for value, axis in zip(_extent(row.key), zip(*known, strict=True), strict=True)
        )
    ]


def _extent(key: ProfileKey) -> tuple[int, ...]:
    return *SHARES[key.slice], key.instances, key.batch


def _between(keys: Sequence[ProfileKey], latencies_ms: Array, rows: Sequence[ProfileRow]) -> list[float]:
    """Limits each latency to those that were measured with smaller and larger batches, and else the same."""
    measured: dict[tuple[str, int], dict[int, float]] = {}
    for row in rows:
        measured.setdefault((row.key.slice, row.key.instances), {})[row.key.batch] = row.latency_p50_ms
    limited = []
    for key, latency_ms in zip(keys, latencies_ms.tolist(), strict=True):
        same = measured.get((key.slice, key.instances), {})
        least = max((ms for batch, ms in same.items() if batch < key.batch), default=0.0)
        most = min((ms for batch, ms in same.items() if batch > key.batch), default=latency_ms)
        limited.append(min(max(latency_ms, least), max(most, least)))
    return limited


def _common(found: Collection[T], otherwise: T) -> T:
    """Returns the only value, or `otherwise` if there are several."""
    return next(iter(found)) if len(found) == 1 else otherwise


def _rounded(figure: float) -> float:
    """Returns six digits of a figure, which so stays greater than 0."""
    return float(f"{figure:.6g}")


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Returns the intercept and the slope of a line that lies on or above all points and does not fall."""
    slope = max(0.0, float(np.polyfit(xs, ys, 1)[0])) if len(set(xs)) > 1 else 0.0
    return max(0.0, max(y - slope * x for x, y in zip(xs, ys, strict=True))), slope


def _configuration(key: ProfileKey) -> Configuration:
    return key.slice, key.instances, key.batch
