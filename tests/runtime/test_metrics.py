import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.runtime.counters import Counters, Row
from jigsaw_triton.runtime.spec import DispatcherSpec
from jigsaw_triton.runtime.tally import Layout
from tests.runtime import fake_pb_utils as pb

SPEC = DispatcherSpec("g", "t", "stack", (), (), variants=("a",))
LAYOUT = Layout(SPEC)
REQUESTS = ("jigsaw_requests_total", "graph=g", "task=t")
Start = Callable[[Counters], Any]


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", pb)
    monkeypatch.setattr(pb.MetricFamily, "made", {})
    module = import_module("jigsaw_triton.runtime.metrics")
    yield lambda counters: module.Publisher(SPEC, LAYOUT, counters)
    del sys.modules["jigsaw_triton.runtime.metrics"]


def counters(path: Path, instance: int = 0) -> Counters:
    return Counters(path / "d", instance, LAYOUT.rows)


def test_what_all_instances_counted_is_published_once(publisher: Start, tmp_path: Path) -> None:
    one, other = counters(tmp_path), counters(tmp_path, 1)
    published = publisher(one)
    one.own[Row.TAKEN] = 2
    other.own[Row.TAKEN] = 3
    published.publish()
    published.publish()
    other.own[Row.TAKEN] = 4
    published.publish()
    metric = pb.MetricFamily.made[REQUESTS]
    assert (metric.total, metric.calls) == (6, 2)


def test_a_process_that_starts_anew_goes_on_where_the_last_one_ended(publisher: Start, tmp_path: Path) -> None:
    for _ in range(2):
        own = counters(tmp_path)
        own.own[Row.TAKEN] += 5
        publisher(own).publish()
    assert pb.MetricFamily.made[REQUESTS].total == 10


def test_only_what_was_counted_has_a_metric_and_a_histogram_is_whole(publisher: Start, tmp_path: Path) -> None:
    own = counters(tmp_path)
    published = publisher(own)
    published.publish()
    assert pb.MetricFamily.made == {}
    LAYOUT.waited.add(own.own, 0.004)
    published.publish()
    names = [name for name, *_ in pb.MetricFamily.made]
    assert set(names) == {f"jigsaw_wait_seconds_{part}" for part in ("bucket", "sum", "count")}
    assert names.count("jigsaw_wait_seconds_bucket") == len(LAYOUT.waited.bounds) + 1
    assert pb.MetricFamily.made[("jigsaw_wait_seconds_bucket", "graph=g", "le=0.002", "task=t")].total == 0
    assert pb.MetricFamily.made[("jigsaw_wait_seconds_bucket", "graph=g", "le=0.005", "task=t")].total == 1
    assert "in seconds" in pb.MetricFamily.descriptions["jigsaw_wait_seconds_bucket"]


def test_closing_publishes_the_rest(publisher: Start, tmp_path: Path) -> None:
    own = counters(tmp_path)
    published = publisher(own)
    published.start()
    own.own[Row.TAKEN] = 7
    published.close()
    assert pb.MetricFamily.made[REQUESTS].total == 7
