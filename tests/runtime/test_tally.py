import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.batches import Batch, Failure
from jigsaw_triton.runtime.counters import Counters
from jigsaw_triton.runtime.route import RouteEntry
from jigsaw_triton.runtime.spec import CONDITION_INPUT, Condition, DispatcherSpec, TensorSpec
from jigsaw_triton.runtime.tally import METRICS, TIMES_S, UNKNOWN_VARIANT, Histogram, Layout, Tally
from jigsaw_triton.runtime.trips import Outcome, Trip

X, Y = TensorSpec("X", "INT64", (1,)), TensorSpec("Y", "INT64", (-1, 1))
SPEC = DispatcherSpec("g", "t", "stack", (X,), (Y,), variants=("a", "b"), yields=("Y",))
BATCHED = DispatcherSpec("g", "t", "stack", (X,), (Y,))
"""Of the same task, were its rows as many in each item: then several items share a batch."""
CONDITIONAL = DispatcherSpec("g", "t", "rows", (X,), (X,), Condition(0.5, None))
ENTRY = RouteEntry("w", "m", 8, 1, "a")


def without_part(metric: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", metric)


class Count:
    """A tally on counters of its own, and what its metrics would say."""

    def __init__(self, path: Path, spec: DispatcherSpec = SPEC) -> None:
        self.layout = Layout(spec)
        self.counters = Counters(path / "c", 3, self.layout.rows)
        self.tally = Tally(spec, self.layout, self.counters)

    def told(self) -> dict[str, float]:
        totals = self.counters.all.sum(axis=1)
        found = {}
        for series in self.layout.series():
            labels = ",".join(value for _, value in series.labels)
            if value := float(totals[series.start : series.stop].sum()):
                found[f"{series.metric}{{{labels}}}" if labels else series.metric] = value
        return found


@pytest.fixture
def count(tmp_path: Path) -> Count:
    return Count(tmp_path)


def batch(items: int) -> Batch:
    return Batch(BATCHED, [{"X": np.zeros((1, 1), np.int64)}] * items)


def trip(items: int, outcome: Outcome = "answered", *, rows: int = 0, entry: RouteEntry = ENTRY) -> Trip:
    part = batch(items).take(items)
    outputs = {"Y": np.zeros((items, rows, 1), np.int64)} if outcome == "answered" else None
    return Trip(part, entry, 10.0, 10.004, outcome, 100, 30, outputs)


def test_a_batch_is_counted_by_its_variant(count: Count) -> None:
    count.tally.delivered(batch(3), 3, [trip(3, rows=5)])
    told = count.told()
    assert told["jigsaw_sent_bytes_total"] == 100
    assert told["jigsaw_received_bytes_total"] == 30
    assert told["jigsaw_batch_items_sum{a}"] == 3
    assert told["jigsaw_batch_items_count{a}"] == 1
    assert told["jigsaw_batch_seconds_sum{a}"] == pytest.approx(0.004)
    assert (told["jigsaw_yield_items_total{a,Y}"], told["jigsaw_yield_rows_total{a,Y}"]) == (3, 15)
    assert not any("{b" in name for name in told)


def test_buckets_are_cumulative(count: Count) -> None:
    count.tally.delivered(batch(3), 3, [trip(3), trip(8)])
    sizes = {name: value for name, value in count.told().items() if name.startswith("jigsaw_batch_items_bucket")}
    counted = {"4": 1, "8": 2, "16": 2, "32": 2, "64": 2, "128": 2, "+Inf": 2}
    assert sizes == {f"jigsaw_batch_items_bucket{{a,{bound}}}": number for bound, number in counted.items()}


def test_what_was_not_answered_yields_nothing(count: Count) -> None:
    count.tally.delivered(batch(2), 2, [trip(2, "refused"), trip(2, "failed")])
    told = count.told()
    assert told["jigsaw_batch_items_count{a}"] == 1
    assert told["jigsaw_batches_lost_total"] == 1
    assert not any("yield" in name for name in told)


def test_what_is_sent_once_more_is_counted(count: Count) -> None:
    work = batch(2)
    first = work.take(2)
    work.lost(first, "w", Failure("gone", "worker"), executed=False)
    again = work.take(2)
    trips = [Trip(first, ENTRY, 0.0, 0.0, "failed"), Trip(again, ENTRY, 0.0, 0.0, "answered")]
    count.tally.delivered(work, 2, trips)
    assert count.told()["jigsaw_batches_again_total"] == 1


def test_an_output_that_was_not_asked_for_is_not_counted(count: Count) -> None:
    count.tally.delivered(batch(2), 2, [trip(2)._replace(outputs={})])
    assert not any("yield" in name for name in count.told())


def test_a_variant_of_another_generation_is_counted_as_unknown(count: Count) -> None:
    count.tally.delivered(batch(1), 1, [trip(1, entry=RouteEntry("w", "m", 8, 1, "new"))])
    assert count.told()[f"jigsaw_batch_items_count{{{UNKNOWN_VARIANT}}}"] == 1


def test_requests_are_counted_by_time_and_failure(count: Count) -> None:
    count.tally.waited(2, 0.003)
    count.tally.returned([{}, Failure("x", "model")], 0.2)
    told = count.told()
    assert told["jigsaw_wait_seconds_sum"] == pytest.approx(0.006)
    assert told["jigsaw_wait_seconds_bucket{0.005}"] == 2
    assert "jigsaw_wait_seconds_bucket{0.002}" not in told
    assert told["jigsaw_dispatch_seconds_bucket{0.2}"] == 2
    assert told["jigsaw_refused_total{model}"] == 1


def test_conditions_are_counted(tmp_path: Path) -> None:
    count = Count(tmp_path, CONDITIONAL)
    given = [{"X": np.zeros((1, 1), np.int64), CONDITION_INPUT: np.array([[v]])} for v in (0.2, 0.7, 0.9)]
    count.tally.delivered(Batch(CONDITIONAL, given), 3, [])
    assert count.told() == {"jigsaw_condition_checked_total": 3, "jigsaw_condition_held_total": 2}


def test_each_row_is_of_one_metric() -> None:
    layout = Layout(SPEC)
    owners: dict[int, set[str]] = {}
    for series in layout.series():
        told = (without_part(series.metric), *(value for label, value in series.labels if label != "le"))
        for row in range(*series.needs):
            owners.setdefault(row, set()).add(" ".join(told))
    assert [names for names in owners.values() if len(names) > 1] == []
    assert max(owners) == layout.rows - 1


def test_a_value_on_a_bound_is_within_it() -> None:
    own = memoryview(bytearray(8 * 32)).cast("d")
    histogram = Histogram.at(2, TIMES_S)
    histogram.add(own, TIMES_S[0])
    histogram.add(own, 99.0, 2)
    assert own[2] == 1
    assert own[2 + len(TIMES_S)] == 2
    assert own[histogram.total] == pytest.approx(TIMES_S[0] + 198)
    assert histogram.stop == 2 + len(TIMES_S) + 2


def test_the_reference_lists_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
    assert sorted(re.findall(r"^\| `(jigsaw_\w+)`", page, re.MULTILINE)) == sorted(METRICS)
    told = {series.metric for spec in (SPEC, CONDITIONAL) for series in Layout(spec).series()}
    of_pipelines = {"jigsaw_step_calls_total", "jigsaw_step_seconds_total"}
    assert {without_part(name) for name in told} == set(METRICS) - of_pipelines


def test_rows_that_a_chain_yields_are_told_of_the_task_that_makes_them(tmp_path: Path) -> None:
    spec = DispatcherSpec("g", "s~t", "stack", (X,), (TensorSpec("t.Y", "INT64", (-1, 1)),), None, 1, 1, 1)
    spec = replace(spec, variants=("a~b",), yields=("t.Y",))
    layout = Layout(spec)
    told = {series.labels for series in layout.series() if series.metric == "jigsaw_yield_rows_total"}
    assert told == {
        (("task", "t"), ("variant", "b"), ("output", "Y")),
        (("variant", UNKNOWN_VARIANT), ("output", "t.Y")),
    }
