import re
from dataclasses import replace
from typing import Any

from docs.generators.metrics import Metric
from jigsaw_triton.console.metrics import FAMILIES, Reading, exposition
from jigsaw_triton.console.status import reading, snapshot
from jigsaw_triton.controller.totals import Totals
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.plan import Segment, TaskPlan
from jigsaw_triton.servers.metrics import Sample, parse_metrics
from tests.console.conftest import Desk
from tests.console.test_status import ONE, served
from tests.controller.worlds import profiled
from tests.docs.metrics_page import check_page


def scraped(read: Reading, **status: Any) -> dict[tuple[str, ...], float]:
    """(name, values of the labels) -> value, with other entries of the status."""
    samples: tuple[Sample, ...] = parse_metrics(exposition(replace(read, status={**read.status, **status})))
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_the_page_says_what_the_code_says() -> None:
    """To update the page: JIGSAW_GOLDEN=write pytest THIS_FILE."""
    metrics = [Metric(family.name, family.kind, family.labels, family.meaning) for family in FAMILIES]
    check_page(metrics, controller=True)


def test_names_follow_the_conventions() -> None:
    for family in FAMILIES:
        assert not re.search(r"_(ms|percent|millis)\b", family.name)


def test_a_controller_without_a_deployment_has_metrics(desk: Desk) -> None:
    found = scraped(reading(desk.controller, desk.fleet))
    assert found["jigsaw_controller_serving",] == found["jigsaw_controller_generation",] == 0
    assert found["jigsaw_controller_state", "idle"] == 1
    assert found["jigsaw_gateway_up",] == 0
    assert not any(name.startswith(("jigsaw_plan_", "jigsaw_slo_", "jigsaw_worker_")) for name, *_ in found)


def test_a_deployment_has_metrics_of_its_plan_its_servers_and_its_nodes(desk: Desk) -> None:
    desk.controller.state = served()
    totals = Totals()
    totals.generations["serves"] = 1
    totals.restarts.update({"n-0-1g-0": 2, "n-1-7g-0": 1, "gateway": 3})
    found = scraped(replace(reading(desk.controller, desk.fleet), totals=totals))
    assert found["jigsaw_controller_serving",] == found["jigsaw_controller_generation",] == 1
    states = {key: value for key, value in found.items() if key[0] == "jigsaw_controller_state"}
    assert [key[1] for key, value in states.items() if value] == ["ready"]
    assert found["jigsaw_controller_generations_total", "serves"] == 1
    assert found["jigsaw_controller_generations_total", "failed"] == 0
    assert found["jigsaw_gateway_restarts_total",] == 3
    assert found["jigsaw_worker_up", "n-0-1g-0", "n", "1g"] == 1
    restarts = {key[1:]: value for key, value in found.items() if key[0] == "jigsaw_worker_restarts_total"}
    assert restarts == {("n-0-1g-0",): 2, ("n-0-1g-1",): 0, ("n-1-7g-0",): 1}
    assert found["jigsaw_plan_demand_rps", "app"] == 10
    assert found["jigsaw_slo_latency_seconds", "app"] == 1
    assert found["jigsaw_slo_objective_ratio", "app"] == 0.99
    assert found["jigsaw_plan_slices",] == 2
    assert (found["jigsaw_node_state", "n", "ready"], found["jigsaw_node_state", "n", "lost"]) == (1, 0)
    assert (found["jigsaw_node_gpus", "n"], found["jigsaw_node_gpus_lost", "n"]) == (2, 0)


def test_a_worker_on_a_lost_gpu_is_down(desk: Desk) -> None:
    state = served()
    name, lost = next((name, one.place.gpu) for name, one in state.actual.workers.items() if one.place is not None)
    desk.controller.state = replace(state, lost=frozenset({lost}))
    found = {key[1]: up for key, up in scraped(reading(desk.controller, desk.fleet)).items() if "worker_up" in key[0]}
    assert found[name] == 0
    status = snapshot(desk.controller, desk.fleet)
    assert found == {worker["name"]: worker["state"] == "ready" for worker in status["workers"]}


def test_a_plan_that_is_infeasible_has_a_metric_of_its_own(desk: Desk) -> None:
    read = reading(desk.controller, desk.fleet)
    for code, infeasible in ((0, 0), (3, 1), (4, 0)):
        found = scraped(read, error="no plan" if code else "", error_code=code)
        assert found["jigsaw_controller_plan_infeasible",] == infeasible
        assert found["jigsaw_controller_change_failed",] == (code > 0)


def test_replicas_of_a_variant_on_a_kind_of_slice_are_added_up(desk: Desk) -> None:
    segments = (
        Segment("s", "1g", instances=1, batch=1, count=2, share=0.3),
        Segment("s", "1g", instances=2, batch=1, count=3, share=0.6),
        Segment("s", "2g", instances=1, batch=1, count=1, share=0.1),
    )
    made = profiled(ONE).plan
    tasks = {"detect": TaskPlan(budget_ms=50.0, rate_rps=1.0, segments=segments)}
    plan = replace(made, graphs={"app": replace(made.graphs["app"], tasks=tasks)})
    found = scraped(replace(reading(desk.controller, desk.fleet), plan=plan))
    assert found["jigsaw_plan_replicas", "app", "detect", "s", "1g"] == 5
    assert found["jigsaw_plan_replicas", "app", "detect", "s", "2g"] == 1
    assert found["jigsaw_plan_budget_seconds", "app", "detect"] == 0.05


def test_values_of_labels_are_escaped(desk: Desk) -> None:
    name = 'a"b\\c\nd'
    node = {"name": name, "state": "ready", "gpus": {}, "lost": []}
    found = scraped(reading(desk.controller, desk.fleet), nodes=[node])
    assert found["jigsaw_node_state", name, "ready"] == 1


def test_the_energy_of_each_gpu_is_a_counter_where_it_is_known(desk: Desk) -> None:
    before = scraped(reading(desk.controller, desk.fleet))
    assert not any(name == "jigsaw_gpu_energy_joules_total" for name, *_ in before)
    desk.controller.energy.add({GpuId("a", 0): 12.5, GpuId("b/c", 3): 1.0}, (), 0.0, 0.0)
    found = scraped(reading(desk.controller, desk.fleet))
    assert found["jigsaw_gpu_energy_joules_total", "a", "0"] == 12.5
    assert found["jigsaw_gpu_energy_joules_total", "b/c", "3"] == 1.0


def test_spans_are_counted_while_traces_are_exported(desk: Desk) -> None:
    read = reading(desk.controller, desk.fleet)
    assert not any(name == "jigsaw_spans_total" for name, *_ in scraped(read, otlp=None))
    dropped = {"full": 0, "unreachable": 2, "refused": 1}
    found = scraped(read, otlp={"exported": 7, "dropped": dropped})
    assert {key[1]: value for key, value in found.items() if key[0] == "jigsaw_spans_total"} == {
        "exported": 7,
        **dropped,
    }
