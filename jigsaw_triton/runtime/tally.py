"""What a dispatcher counts of its work, and which of Triton's metrics that becomes.

Counting is adding to numbers of the instance's own (`counters`), a few a batch; `metrics` makes the metrics of the
totals. A histogram is a row for each bucket and one for the sum: Triton's own kind would be a call for each value.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from jigsaw_triton.runtime.batches import Batch, Failure
from jigsaw_triton.runtime.chains import members
from jigsaw_triton.runtime.counters import FREE_ROWS, Counters, Row
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.runtime.spec import DispatcherSpec
from jigsaw_triton.runtime.trips import Trip

METRICS: Final[Mapping[str, str]] = {
    "jigsaw_requests_total": "Requests that a task's dispatcher took from its queue",
    "jigsaw_refused_total": "Requests that failed at a task: late (not sent to a worker), worker, request, model",
    "jigsaw_batches_again_total": "Batches sent to workers once more, in part or whole",
    "jigsaw_batches_lost_total": "Batches on which a worker failed",
    "jigsaw_sent_bytes_total": "Bodies of requests to workers, in bytes",
    "jigsaw_received_bytes_total": "Bodies of workers' answers, in bytes",
    "jigsaw_step_calls_total": "Requests that the code of a python step was called for",
    "jigsaw_step_seconds_total": "Time in the code of a python step",
    "jigsaw_condition_checked_total": "Requests whose condition was looked at",
    "jigsaw_condition_held_total": "Requests whose condition held, so that the task ran",
    "jigsaw_wait_seconds": "Estimated time of requests in the queue, in seconds",
    "jigsaw_dispatch_seconds": "Time of requests from the queue to their answer, in seconds",
    "jigsaw_batch_seconds": "Time of batches at their workers, in seconds",
    "jigsaw_batch_items": "Items of batches at their workers",
    "jigsaw_yield_items_total": "Items that an output with rows was made of",
    "jigsaw_yield_rows_total": "Rows of that output",
}
"""Name -> what it is; of a histogram without _bucket, _sum and _count."""

TIMES_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Bounds of the buckets of times."""

SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Bounds of the buckets of batch sizes, in items."""

UNKNOWN_VARIANT = "unknown"
"""Of a worker that stands in from another generation and does the task by a variant that this one does not know."""

_FAILED: Final = {"request": Row.FAILED_REQUEST, "model": Row.FAILED_MODEL, "worker": Row.FAILED_WORKER}

# As plain numbers: an index that is an enum's member costs as much as the counting.
_CHECKED, _HELD = int(Row.CHECKED), int(Row.HELD)
_SENT_BYTES, _RECEIVED_BYTES = int(Row.SENT_BYTES), int(Row.RECEIVED_BYTES)
_AGAIN, _LOST = int(Row.AGAIN), int(Row.LOST)


@dataclass(frozen=True, slots=True)
class Series:
    """A line of /metrics that is the sum of some rows.

    Attributes:
        metric: `jigsaw_requests_total`.
        labels: Those of the line beside `graph` and `task`, and a `task` in its place where it is not the dispatcher's.
        start: First row.
        stop: After the last.
        needs: First of the rows without which there is no such line, and the one after the last: a histogram has all
            its lines or none.
    """

    metric: str
    labels: tuple[tuple[str, str], ...]
    start: int
    stop: int
    needs: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows in which values are counted by size.

    Attributes:
        bounds: Upper bounds of the buckets, included; one more bucket is for what is larger.
        start: Row of the first bucket.
        total: That of the sum of the values, the last.
    """

    bounds: tuple[float, ...]
    start: int
    total: int

    @classmethod
    def at(cls, start: int, bounds: tuple[float, ...]) -> "Histogram":
        """From a row on."""
        return cls(bounds, start, start + len(bounds) + 1)

    @property
    def stop(self) -> int:
        """After the last row."""
        return self.total + 1

    def add(self, own: "memoryview[float]", value: float, times: int = 1) -> None:
        """Counts a value so many times."""
        own[self.start + bisect_left(self.bounds, value)] += times
        own[self.total] += times * value

    def series(self, metric: str, labels: tuple[tuple[str, str], ...] = ()) -> Iterator[Series]:
        """As Prometheus has histograms."""
        needs = self.start, self.stop
        for index, bound in enumerate((*(f"{bound:g}" for bound in self.bounds), "+Inf"), 1):
            yield Series(f"{metric}_bucket", (*labels, ("le", bound)), self.start, self.start + index, needs)
        yield Series(f"{metric}_sum", labels, self.total, self.stop, needs)
        yield Series(f"{metric}_count", labels, self.start, self.total, needs)


@dataclass(frozen=True, slots=True)
class VariantRows:
    """Rows for what is told apart by variant.

    Attributes:
        seconds: Of batches at their workers.
        items: In batches.
        yields: For each output with rows: the row of the items that made it; that of its rows is the next.
    """

    seconds: Histogram
    items: Histogram
    yields: tuple[int, ...]

    @classmethod
    def at(cls, start: int, yields: int) -> "VariantRows":
        """With so many outputs with rows, from a row on."""
        seconds = Histogram.at(start, TIMES_S)
        items = Histogram.at(seconds.stop, SIZES)
        return cls(seconds, items, tuple(items.stop + 2 * index for index in range(yields)))

    @property
    def stop(self) -> int:
        """After the last row."""
        return self.items.stop + 2 * len(self.yields)


class Layout:
    """Which rows a dispatcher counts in.

    Args:
        spec: The dispatcher's.
    """

    def __init__(self, spec: DispatcherSpec) -> None:
        self._spec = spec
        self.waited = Histogram.at(FREE_ROWS, TIMES_S)
        self.stayed = Histogram.at(self.waited.stop, TIMES_S)
        names = (*spec.variants, UNKNOWN_VARIANT)
        size = VariantRows.at(0, len(spec.yields)).stop
        starts = {name: self.stayed.stop + index * size for index, name in enumerate(names)}
        self.variants = {name: VariantRows.at(start, len(spec.yields)) for name, start in starts.items()}
        self.rows = self.stayed.stop + len(names) * size

    def series(self) -> tuple[Series, ...]:
        """All that the dispatcher tells in Triton's metrics."""
        return (*self._of_task(), *(s for name in self.variants for s in self._of_variant(name)))

    def _of_task(self) -> Iterator[Series]:
        yield _series("jigsaw_requests_total", Row.TAKEN)
        for reason, row in {"late": Row.LATE, **_FAILED}.items():
            yield _series("jigsaw_refused_total", row, ("reason", reason))
        yield _series("jigsaw_batches_again_total", Row.AGAIN)
        yield _series("jigsaw_batches_lost_total", Row.LOST)
        yield _series("jigsaw_sent_bytes_total", Row.SENT_BYTES)
        yield _series("jigsaw_received_bytes_total", Row.RECEIVED_BYTES)
        if self._spec.condition is not None:
            yield _series("jigsaw_condition_checked_total", Row.CHECKED)
            yield _series("jigsaw_condition_held_total", Row.HELD)
        yield from self.waited.series("jigsaw_wait_seconds")
        yield from self.stayed.series("jigsaw_dispatch_seconds")

    def _of_variant(self, name: str) -> Iterator[Series]:
        rows = self.variants[name]
        yield from rows.seconds.series("jigsaw_batch_seconds", (("variant", name),))
        yield from rows.items.series("jigsaw_batch_items", (("variant", name),))
        for output, row in zip(self._spec.yields, rows.yields, strict=True):
            labels = self._maker(name, output)
            yield _series("jigsaw_yield_items_total", row, *labels)
            yield _series("jigsaw_yield_rows_total", row + 1, *labels)

    def _maker(self, variant: str, output: str) -> tuple[tuple[str, str], ...]:
        """The labels of an output with rows: of what makes it, which in a chain is one of its tasks."""
        tasks, variants = members(self._spec.task), members(variant)
        if len(tasks) == 1 or len(variants) == 1:
            return ("variant", variant), ("output", output)
        task, _, name = output.partition(".")
        return ("task", task), ("variant", variants[tasks.index(task)]), ("output", name)


def _series(metric: str, row: int, *labels: tuple[str, str]) -> Series:
    return Series(metric, labels, row, row + 1, (row, row + 1))


class Tally:
    """Counts for one instance of a dispatcher.

    Args:
        spec: The dispatcher's.
        layout: Of its counters.
        counters: With the layout's rows.
    """

    def __init__(self, spec: DispatcherSpec, layout: Layout, counters: Counters) -> None:
        self._conditional = spec.condition is not None
        self._yields = spec.yields
        self._layout = layout
        self._own = counters.own

    def waited(self, requests: int, seconds: float) -> None:
        """So many requests waited for about so long."""
        self._layout.waited.add(self._own, seconds, requests)

    def delivered(self, batch: Batch, requests: int, trips: Iterable[Trip]) -> None:
        """A batch of so many requests has been at its workers."""
        own, variants = self._own, self._layout.variants
        if self._conditional:
            own[_CHECKED] += requests
            own[_HELD] += batch.held
        for trip in trips:
            own[_SENT_BYTES] += trip.sent_bytes
            own[_RECEIVED_BYTES] += trip.received_bytes
            if trip.part.again:
                own[_AGAIN] += 1
            if trip.outcome == "failed":
                own[_LOST] += 1
                continue
            rows = variants.get(trip.entry.variant) or variants[UNKNOWN_VARIANT]
            rows.seconds.add(own, trip.ended_s - trip.sent_s)
            rows.items.add(own, len(trip.part))
            if rows.yields and trip.outcome == "answered":
                self._yielded(rows, len(trip.part), trip.outputs or {})

    def returned(self, results: Sequence[object], seconds: float) -> None:
        """Requests were answered after so long at the dispatcher; those that failed are counted by their blame."""
        self._layout.stayed.add(self._own, seconds, len(results))
        for result in results:
            if type(result) is Failure:
                self._own[_FAILED[result.blame]] += 1

    def _yielded(self, rows: VariantRows, items: int, outputs: Arrays) -> None:
        for name, row in zip(self._yields, rows.yields, strict=True):
            array = outputs.get(name)
            if array is not None:
                self._own[row] += items
                self._own[row + 1] += array.shape[0] * array.shape[1]
