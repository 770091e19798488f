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
