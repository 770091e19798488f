"""Metrics of the compiled backend: their values, and their description in docs/reference/metrics.md."""

import pytest

from docs.generators.metrics import Metric
from tests.docs.metrics_page import check_page, parts
from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.specs import ONE, spec, task
from tests.waiting import eventually

ROWS = ("INT64", (-1, 1))


@pytest.fixture
def exported(bench: Bench) -> list[Metric]:
    """Metrics of a graph that uses every feature."""
    tasks = [
        task("split", outputs={"R": ROWS}, yields=("R",), variants=("small",)),
        task(
            "each",
            {"X": ("split.R", ONE)},
            mode="rows",
            iterated=("X",),
            condition={"tensor": "inputs.X", "above": 0.5, "below": None},
        ),
        task("step", step=True, mode="items", outputs={"R": ROWS}, yields=("R",)),
    ]
    bench.route("w", name="split", generations=[3], service_ms={"1": 1.0})
    bench.engine.front(spec(tasks, outputs={"Y": ("each.Y", ROWS)}))
    found: dict[str, Metric] = {}
    for series in bench.engine.series:
        metric = Metric(series["name"], series["kind"], tuple(series["labels"]), series["help"])
        # The yields of a Python step have fewer labels than those of a model.
        if metric.name not in found or len(metric.labels) > len(found[metric.name].labels):
            found[metric.name] = metric
    return list(found.values())


def test_the_page_says_what_the_code_says(exported: list[Metric]) -> None:
    """To update the page: JIGSAW_GOLDEN=write pytest THIS_FILE."""
    check_page(exported, controller=False)


def test_gauges_of_a_removed_graph_are_zero(bench: Bench) -> None:
    bench.worker()
    bench.route("w", slots=3)
    old, new = bench.front(capacity_rps=50.0), bench.front(capacity_rps=50.0)
    eventually(lambda: bench.engine.metric("jigsaw_slots") == 3)
    old.close()
    assert bench.engine.metric("jigsaw_capacity_rps") == 50
    assert bench.engine.metric("jigsaw_slots") == 3
    new.close()
    assert bench.engine.metric("jigsaw_capacity_rps") == 0
    assert bench.engine.metric("jigsaw_slots") == 0


@pytest.mark.parametrize(("metric", "label"), [("jigsaw_refused_total", "reason"), ("jigsaw_slo_total", "outcome")])
def test_the_page_explains_every_value_of_a_label(bench: Bench, metric: str, label: str) -> None:
    bench.front()
    values = {series["labels"][label] for series in bench.engine.series if series["name"] == metric}
    assert len(values) >= 3
    assert sorted(value for value in values if f"`{value}`" not in parts()[0]) == []


def test_gauges_describe_the_queue(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, slots=2)
    front = bench.front()
    worker.answering.clear()
    requests = front.send_many(7, {"X": column(1)})
    worker.wait(2)
    eventually(lambda: bench.engine.metric("jigsaw_queue_length") == 5)
    assert bench.engine.metric("jigsaw_slots") == bench.engine.metric("jigsaw_slots_busy") == 2
    assert bench.engine.metric("jigsaw_queue_age_seconds") > 0
    assert bench.engine.metric("jigsaw_queue_headroom_seconds") > 0
    worker.answering.set()
    for request in requests:
        request.wait()


def test_requests_and_batches_are_counted(bench: Bench) -> None:
    bench.worker()
    bench.route("w", variant="v")
    front = bench.engine.front(specs.spec([specs.task(variants=["v", "other"])]))
    for count in (1, 3, 4):
        front.ask({"X": column(*range(count))})
    engine = bench.engine
    assert engine.metric("jigsaw_arrivals_total", graph="g") == 8
    assert engine.metric("jigsaw_requests_total", task="t") == 3
    assert engine.metric("jigsaw_slo_total", outcome="met") == 3
    assert engine.metric("jigsaw_batch_items", variant="v") == 8
    assert engine.count("jigsaw_batch_items", variant="v") == 3
    assert engine.count("jigsaw_batch_items", variant="other") == 0
    assert engine.count("jigsaw_wait_seconds") == engine.count("jigsaw_dispatch_seconds") == 3
    assert engine.metric("jigsaw_sent_bytes_total") == 8 * 8
    assert engine.metric("jigsaw_received_bytes_total") > 8 * 8


def test_a_variant_that_the_task_does_not_list_counts_as_unknown(bench: Bench) -> None:
    bench.worker()
    bench.route("w", variant="new")
    bench.front().ask({"X": column(1)})
    assert bench.engine.count("jigsaw_batch_items", variant="unknown") == 1


def test_series_outlive_their_fronts(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    for _ in range(3):
        with bench.front() as front:
            front.ask({"X": column(1)})
    assert bench.engine.metric("jigsaw_requests_total") == 3


def test_service_times_are_counted_beside_those_of_the_profile(bench: Bench) -> None:
    bench.worker()
    bench.route("w", variant="v", service_ms={"1": 20.0, "4": 50.0})
    front = bench.front()
    front.ask({"X": column(1)})
    front.ask({"X": column(1, 2, 3, 4)})
    front.ask({"X": column(1, 2, 3)})
    engine = bench.engine
    assert engine.metric("jigsaw_service_batches_total", variant="v", worker="w") == 3
    assert engine.metric("jigsaw_service_batches_total", worker="w", batch="1") == 1
    assert engine.metric("jigsaw_service_batches_total", worker="w", batch="4") == 2
    assert engine.metric("jigsaw_service_profiled_seconds_total", worker="w", batch="4") == pytest.approx(0.09)
    assert engine.metric("jigsaw_service_profiled_seconds_total", worker="w") == pytest.approx(0.11)
    taken_s = engine.metric("jigsaw_batch_seconds")
    assert engine.metric("jigsaw_service_seconds_total", worker="w") == pytest.approx(taken_s)


def test_workers_without_a_profile_have_no_service_times(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    bench.front().ask({"X": column(1)})
    assert not any(series["name"].startswith("jigsaw_service_") for series in bench.engine.series)
