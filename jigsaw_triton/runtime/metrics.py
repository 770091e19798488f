"""Brings a dispatcher's counts to the gateway's /metrics, as Triton's custom metrics, once a second.

Triton's calls for a metric are messages between processes of 20 to 60 microseconds, so no request and no batch makes
one. One instance publishes for all, from a thread of its own, and only what has changed. How much of the totals has
been published stands beside them in the file: a metric outlives its process and its model, and may be older than both.
"""

import threading
from typing import Any, Final

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.counters import Counters
from jigsaw_triton.runtime.spec import DispatcherSpec
from jigsaw_triton.runtime.tally import METRICS, Layout, Series

INTERVAL_S = 1.0

_PARTS: Final = ("_bucket", "_sum", "_count")


REFUSED = "jigsaw_refused_total"


class Refused:
    """Counts the requests that a pipeline refuses before any task has them, as late ones of no task.

    Brought to the metrics by one thread: two that add to one at a time end the server (Triton 24.10).

    Args:
        graph: Of the pipeline.
    """

    def __init__(self, graph: str) -> None:
        self._labels = {"graph": graph, "task": "", "reason": "late"}
        self._lock = threading.Lock()
        self._count, self._published = 0, 0
        self._metric: Any = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def add(self, items: int) -> None:
        """So many more; from any thread."""
        with self._lock:
            self._count += items

    def close(self) -> None:
        """Publishes what there is and ends."""
        self._closed.set()
        self._thread.join()
        self._publish()

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL_S):
            self._publish()

    def _publish(self) -> None:
        count = self._count
        if count == self._published:
            return
        if self._metric is None:
            kind = pb_utils.MetricFamily.COUNTER
            family = pb_utils.MetricFamily(name=REFUSED, description=METRICS[REFUSED], kind=kind)
            self._family, self._metric = family, family.Metric(labels=self._labels)
        self._metric.increment(count - self._published)
        self._published = count


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
            metric = self._metrics[series] = self._family(series.metric).Metric(labels=labels)
        return metric

    def _family(self, name: str) -> Any:
        family = self._families.get(name)
        if family is None:
            base = next((name.removesuffix(part) for part in _PARTS if name.removesuffix(part) in METRICS), name)
            kind = pb_utils.MetricFamily.COUNTER
            family = self._families[name] = pb_utils.MetricFamily(name=name, description=METRICS[base], kind=kind)
        return family
