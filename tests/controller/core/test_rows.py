from dataclasses import replace

import pytest

from jigsaw_triton.controller.core.rows import (
    Count,
    Source,
    covered_rps,
    decayed,
    deviations,
    measured,
    read_counts,
    since,
    still_valid,
)
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import GraphPlan, Segment, TaskPlan
from jigsaw_triton.servers.metrics import parse_metrics
from tests.fakes.graphs import conditional, cropping, fan_out

SETTINGS = Settings(rows_least=100.0, rows_half_life_s=60.0)
CROPS = Source("fan_out", "detect", "v0", "CROPS")
WHEN = Source("conditional", "inspect")

METRICS = """
jigsaw_requests_total{graph="fan_out",task="detect"} 9
jigsaw_yield_items_total{graph="fan_out",output="CROPS",task="detect",variant="v0"} 20
jigsaw_yield_rows_total{graph="fan_out",output="CROPS",task="detect",variant="v0"} 50
jigsaw_yield_items_total{graph="fan_out",output="CROPS",task="detect",variant="v1"} 3
jigsaw_condition_checked_total{graph="conditional",task="inspect"} 8
jigsaw_condition_held_total{graph="conditional",task="inspect"} 2
"""


def test_counts_are_read_from_the_metrics() -> None:
    assert read_counts(parse_metrics(METRICS)) == {
        CROPS: Count(20, 50),
        Source("fan_out", "detect", "v1", "CROPS"): Count(3, 0),
        WHEN: Count(8, 2),
    }


def test_counts_between_readings_are_right_after_a_gateway_restart() -> None:
    before = {CROPS: Count(20, 50)}
    assert since(before, {CROPS: Count(25, 60), WHEN: Count(8, 2)}) == {CROPS: Count(5, 10), WHEN: Count(8, 2)}
    assert since(before, {CROPS: Count(4, 9)}) == {CROPS: Count(4, 9)}
    assert since(before, {}) == {}


def test_older_counts_weigh_less() -> None:
    past = {CROPS: Count(20, 50)}
    assert decayed(past, {CROPS: Count(5, 10), WHEN: Count(8, 2)}, 60.0, SETTINGS) == {
        CROPS: Count(15, 35),
        WHEN: Count(8, 2),
    }


@pytest.mark.parametrize(("count", "expected"), [(Count(99, 990), 3.0), (Count(100, 450), 4.5), (Count(500, 0), 0.001)])
def test_a_measured_yield_replaces_the_estimate_after_enough_items(count: Count, expected: float) -> None:
    graph = measured(fan_out(rows=3.0, variant_count=2), {CROPS: count}, SETTINGS)
    one, other = graph.tasks["detect"].variants
    assert one.yields == {"CROPS": expected}
    assert other.yields == {"CROPS": 3.0}


def test_the_measured_yield_of_a_python_step_replaces_the_estimate() -> None:
    (source,) = read_counts(parse_metrics('jigsaw_yield_items_total{graph="cropping",output="CROPS",task="crop"} 200'))
    graph = cropping(rows=3.0)
    now = measured(graph, {source: Count(200, 900)}, SETTINGS)
    assert now.steps["crop"].yields == {"CROPS": 4.5}
    assert deviations(graph, now) == ("cropping.crop yields 4.5 CROPS, not 3",)
    changed = replace(graph, steps={"crop": replace(graph.steps["crop"], source="")})
    counts = {source: Count(200, 900)}
    assert still_valid(counts, {"cropping": graph}, {"cropping": graph}) == counts
    assert still_valid(counts, {"cropping": graph}, {"cropping": changed}) == {}


@pytest.mark.parametrize(("held", "expected"), [(150, 0.75), (0, 0.001), (200, 1.0)])
def test_a_measured_probability_replaces_the_estimate(held: float, expected: float) -> None:
    graph = measured(conditional(), {WHEN: Count(200, held)}, SETTINGS)
    when = graph.tasks["inspect"].when
    assert when is not None
    assert when.probability == expected


def test_deviations_name_measured_and_estimated_values() -> None:
    graph = fan_out(rows=3.0)
    assert deviations(graph, graph) == ()
    assert deviations(graph, measured(graph, {CROPS: Count(100, 450)}, SETTINGS)) == (
        "fan_out.detect.v0 yields 4.5 CROPS, not 3",
    )
    branch = conditional(probability=0.5)
    assert deviations(branch, measured(branch, {WHEN: Count(200, 150)}, SETTINGS)) == (
        "conditional.inspect runs in 75.0% of cases, not 50.0%",
    )


def test_counts_of_a_changed_task_are_dropped() -> None:
    counts = {CROPS: Count(100, 450), Source("gone", "t"): Count(1, 1)}
    before = {"fan_out": fan_out(rows=3.0)}
    assert still_valid(counts, before, before) == counts
    assert still_valid(counts, before, {"fan_out": fan_out(rows=4.0)}) == {Source("gone", "t"): Count(1, 1)}
    assert CROPS not in still_valid(counts, before, {})


def plan(graph: TaskGraph, rows: float) -> GraphPlan:
    """A plan for 10 requests/s with a capacity of 20."""
    segments = (Segment("v0", "1g", 1, 4, 1, 1.0),)
    tasks = {"detect": TaskPlan(10.0, 10.0, segments), "classify": TaskPlan(10.0, 10.0 * rows, segments)}
    return GraphPlan(10.0, 20.0, 1.0, 100.0, tasks)


@pytest.mark.parametrize(("rows", "expected"), [(3.0, 20.0), (6.0, 10.0), (1.5, 20.0)])
def test_more_rows_than_planned_reduce_the_capacity_and_fewer_do_not_raise_it(rows: float, expected: float) -> None:
    graph = fan_out(rows=3.0)
    counts = {CROPS: Count(100, 100 * rows)}
    assert covered_rps(graph, plan(graph, 3.0), counts, SETTINGS) == pytest.approx(expected)


def test_a_plan_made_with_measured_rows_keeps_its_capacity() -> None:
    graph = fan_out(rows=3.0)
    assert covered_rps(graph, plan(graph, 6.0), {CROPS: Count(100, 600)}, SETTINGS) == pytest.approx(20.0)
    assert covered_rps(graph, replace(plan(graph, 3.0), demand_rps=0.0), {CROPS: Count(100, 600)}, SETTINGS) == 20.0
