"""Brings a dispatcher's counts to the gateway's /metrics, as Triton's custom metrics, once a second.

Triton's calls for a metric are messages between processes of 20 to 60 microseconds, so no request and no batch makes
one. One instance publishes for all, from a thread of its own, and only what has changed. How much of the totals has
been published stands beside them in the file: a metric outlives its process and its model, and may be older than both.
"""

import threading
from collections.abc import Mapping
from typing import Any, Final

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.counters import Counters
from jigsaw_triton.runtime.spec import DispatcherSpec
from jigsaw_triton.runtime.tally import METRICS, Layout, Series

INTERVAL_S = 1.0

_PARTS: Final = ("_bucket", "_sum", "_count")


class PipelineCounts:
    """What a pipeline's process counts: requests that it refuses before any task has them, and what python steps do.

    Brought to the metrics by one thread: two that add to one at a time end the server (Triton 24.10).

    Args:
        graph: Of the pipeline.
    """

    def __init__(self, graph: str) -> None:
        self._graph = graph
        self._lock = threading.Lock()
        self._new: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._families: dict[str, Any] = {}
        self._metrics: dict[object, Any] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def refused(self, items: int) -> None:
        """So many more were late; from any thread."""
        with self._lock:
            self._add("jigsaw_refused_total", items, task="", reason="late")

    def ran(self, step: str, seconds: float, rows: Mapping[str, int] | None) -> None:
        """The code of a step ran; from any thread.

        Args:
            step: Its name.
            seconds: How long.
            rows: Of its outputs that are gone through row by row; None where it failed.
        """
        with self._lock:
            self._add("jigsaw_step_calls_total", 1, task=step)
            self._add("jigsaw_step_seconds_total", seconds, task=step)
            if rows is None:
                self._add("jigsaw_refused_total", 1, task=step, reason="code")
            for output, count in (rows or {}).items():
                self._add("jigsaw_yield_items_total", 1, task=step, output=output)
                self._add("jigsaw_yield_rows_total", count, task=step, output=output)

    def close(self) -> None:
        """Publishes what there is and ends."""
        self._closed.set()
        self._thread.join()
        self._publish()

    def _add(self, metric: str, more: float, **labels: str) -> None:
        key = metric, tuple(labels.items())
        self._new[key] = self._new.get(key, 0.0) + more

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL_S):
            self._publish()

    def _publish(self) -> None:
        with self._lock:
            new, self._new = self._new, {}
        for key, more in new.items():
            name, labels = key
            if key not in self._metrics:
                family = _family(self._families, name)
                self._metrics[key] = family.Metric(labels={"graph": self._graph, **dict(labels)})
            if more:
                self._metrics[key].increment(more)


def _family(families: dict[str, Any], name: str) -> Any:
    """The family of a metric, made where it is not there yet."""
    if name not in families:
        base = next((name.removesuffix(part) for part in _PARTS if name.removesuffix(part) in METRICS), name)
        kind = pb_utils.MetricFamily.COUNTER
        families[name] = pb_utils.MetricFamily(name=name, description=METRICS[base], kind=kind)
    return families[name]


class Publisher:
    """Publishes the counters of one dispatcher until it is closed.

    Args:
        spec: The dispatcher's.
        layout: Of the counters.
        counters: Of all instances.
    """

    def __init__(self, spec: DispatcherSpec, layout: Layout, counters: Counters) -> None:
        self._labels = {"graph": spec.graph, "task": spec.task}
        self._series = layout.series()
        self._counters = counters
        self._families: dict[str, Any] = {}
        self._metrics: dict[Series, Any] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def close(self) -> None:
        """Publishes what there is and ends."""
        self._closed.set()
        self._thread.join()
        self.publish()

    def publish(self) -> None:
        """Adds to the metrics what was counted since they were last added to."""
        totals = self._counters.all.sum(axis=1)
        new = totals - self._counters.published
        if not new.any():
            return
        for series in self._series:
            if not new[slice(*series.needs)].any():
                continue
            metric = self._metric(series)
            if more := float(new[series.start : series.stop].sum()):
                metric.increment(more)
        self._counters.published[:] = totals

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL_S):
            self.publish()

    def _metric(self, series: Series) -> Any:
        """Made when there is something to tell."""
        metric = self._metrics.get(series)
        if metric is None:
            labels = self._labels | dict(series.labels)
            family = _family(self._families, series.metric)
            metric = self._metrics[series] = family.Metric(labels=labels)
        return metric
