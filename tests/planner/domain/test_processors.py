import sys
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from jigsaw_triton.graph.model import Slo, TaskGraph, Workload
from jigsaw_triton.planner.domain.gateway_load import CALL_US, REQUEST_US, gateway_load, tensors_us
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.domain.processors import ProcessorLoad, processor_load, with_carried
from jigsaw_triton.planner.search.solve import SolverFactory, make_plan
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, cluster
from tests.fakes.problems import row as assumed

DEMAND_RPS = 100.0


def row(**options: Any) -> ProfileRow:
    return replace(assumed("t0", "v0", **options), source="measured")


def one_task(*, template: str = "python") -> TaskGraph:
    graph = chain(1, slo=Slo(1000.0, accuracy=0.5))
    (task,) = graph.tasks.values()
    variant = replace(task.variant("v0"), template=template)
    return replace(graph, tasks={task.name: replace(task, variants=(variant,))})


@pytest.fixture(autouse=True)
def kept_solvers(solvers: SolverFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all tests plan with the same solver processes."""
    monkeypatch.setattr(sys.modules[__name__], "make_plan", partial(make_plan, solvers=solvers))


def planned(*rows: ProfileRow, processors: float | None = 2.0, template: str = "python") -> tuple[Plan, Problem]:
    graph = one_task(template=template)
    workload = Workload(graph, DEMAND_RPS)
    problem = Problem((workload,), cluster(2), {graph.name: ProfileTable(rows)})
    plan = make_plan(problem, TWO_P95)
    return plan, replace(problem, cluster=replace(problem.cluster, processors=processors))


def load_of(*rows: ProfileRow, processors: float = 2.0, template: str = "python") -> tuple[ProcessorLoad, float]:
    """Returns the load, and the processors that the workers alone keep busy. All batches are of one item."""
    plan, problem = planned(*rows, processors=processors, template=template)
    load = processor_load(plan, problem)
    assert load is not None
    graphs = {w.graph.name: w.graph for w in problem.workloads}
    return load, load.busy - gateway_load(graphs, plan).processors


def test_an_instance_keeps_a_processor_busy_for_the_time_of_its_items() -> None:
    load, workers = load_of(row(rps=50.0))
    assert workers == pytest.approx(DEMAND_RPS / 50.0)
    assert load.carried_rps == {"chain": pytest.approx(DEMAND_RPS * 2.0 / load.busy)}
    assert load.exceeded


def test_the_time_of_an_item_is_that_on_the_fullest_machine() -> None:
    """Two instances carry 80 items a second on two processors, instead of twice 50."""
    alone, both = row(rps=50.0), row(instances=2, rps=80.0, memory_mib=1e6)
    _, workers = load_of(alone, both)
    assert workers == pytest.approx(DEMAND_RPS * 2 / 80.0)


def test_more_instances_than_processors_keep_only_the_processors_busy() -> None:
    _, workers = load_of(row(instances=4, rps=80.0))
    assert workers == pytest.approx(DEMAND_RPS * 2 / 80.0)


def test_threads_of_a_larger_slice_keep_processors_busy_too() -> None:
    _, workers = load_of(row(slice_="4g", rps=200.0), processors=16.0)
    assert workers == pytest.approx(DEMAND_RPS * 4 / 200.0)


def test_batches_that_take_longer_on_a_full_machine_take_no_more_processor_time() -> None:
    plan, problem = planned(row(rps=50.0))
    load = processor_load(plan, problem)
    slow = {"chain": ProfileTable([row(rps=25.0)])}
    assert load is not None
    assert processor_load(plan, replace(problem, profiles=slow, unloaded=problem.profiles)) == load
    longer = processor_load(plan, replace(problem, profiles=slow))
    assert longer is not None and longer.busy > 1.9 * load.busy


def test_emulated_variants_keep_no_processor_busy() -> None:
    load, workers = load_of(row(rps=50.0), template="emulated")
    assert workers == pytest.approx(0)
    assert not load.exceeded


def test_assumed_rows_do_not_say_what_processors_carry() -> None:
    plan, problem = planned(assumed("t0", "v0", rps=50.0))
    assert processor_load(plan, problem) is None


def test_nothing_is_known_of_gpus_or_of_an_unknown_number_of_processors() -> None:
    plan, problem = planned(row(rps=50.0), processors=None)
    assert processor_load(plan, problem) is None
    assert with_carried(plan, None) == plan
    on_gpus = replace(problem, cluster=replace(cluster(2, of="A100-80GB"), processors=2.0))
    assert processor_load(plan, on_gpus) is None


def test_the_capacity_of_a_plan_is_at_most_what_the_processors_carry() -> None:
    plan, problem = planned(row(rps=500.0))
    load = processor_load(plan, problem)
    assert load is not None
    limited = with_carried(plan, replace(load, processors=1.5 * load.busy))
    assert plan.graphs["chain"].capacity_rps == 400.0
    assert limited.graphs["chain"].capacity_rps == pytest.approx(150.0)
    least = with_carried(plan, replace(load, processors=0.5 * load.busy))
    assert least.graphs["chain"].capacity_rps == DEMAND_RPS


def test_each_node_has_processors_of_its_own() -> None:
    """Eight slices of 80 requests/s are more than a board has, so the plan uses both nodes."""
    graph = one_task()
    nodes = tuple(gpu for node in ("a", "b") for gpu in cluster(1, node=node).gpus)
    on = replace(cluster(1), gpus=nodes, processors=6.0)
    problem = Problem((Workload(graph, 640.0),), on, {graph.name: ProfileTable([row(rps=100.0)])})
    load = processor_load(make_plan(problem, TWO_P95), problem)
    assert load is not None
    assert load.busy_by_node.keys() == {"a", "b"}
    both = sum(busy["chain"] for busy in load.busy_by_node.values())
    assert load.busy < both
    assert both > 6.4


def test_a_graph_grows_as_far_as_the_busiest_node_allows() -> None:
    load = ProcessorLoad(4.0, {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 0.0, "y": 3.0}}, {"x": 10.0, "y": 50.0})
    assert load.busy == 3.0
    assert load.scale(["x"]) == 2.0
    assert load.scale(["y"]) == pytest.approx(4 / 3)
    assert load.scale() == pytest.approx(4 / 3)
    assert load.carried_rps == {"x": pytest.approx(40 / 3), "y": pytest.approx(200 / 3)}
    assert not load.exceeded
    assert replace(load, processors=2.9).exceeded
    assert replace(load, processors=2.9).scale(["x"]) == 0.0


def test_a_measured_processor_time_replaces_the_estimate() -> None:
    """With one instance the machine is not full. The row with two has 15 ms for an item, which it also waits for."""
    alone, both = row(rps=50.0), row(instances=2, rps=80.0, memory_mib=1e6)
    _, workers = load_of(replace(alone, processor_ms=12.0), replace(both, processor_ms=15.0))
    assert workers == pytest.approx(DEMAND_RPS * 0.015)
    _, workers = load_of(replace(alone, processor_ms=12.0), both)
    assert workers == pytest.approx(DEMAND_RPS * 0.012)


def test_batches_are_not_full_while_processors_are_short() -> None:
    """A batch takes 4 ms and 1 ms for each item: 5 ms for one, 12 ms for eight, 9.6 ms for the mean of 5.6."""
    small, large = row(rps=400.0), row(batch=8, rps=600.0)
    plan, problem = planned(replace(small, processor_ms=5.0), replace(large, processor_ms=1.5))
    (segment,) = plan.graphs["chain"].tasks["t0"].segments
    assert segment.batch == 8
    load = processor_load(plan, problem)
    assert load is not None
    gateway_s = (REQUEST_US + CALL_US / 5.6) / 1e6 + tensors_us(
        problem.workloads[0].graph, one_task().tasks["t0"]
    ) / 1e6
    assert load.busy == pytest.approx(DEMAND_RPS * (9.6e-3 / 5.6 + gateway_s))


def on_two_nodes(rps: float, *, processors: float) -> Problem:
    """Returns a demand of one task on two nodes with so many processors each."""
    graph = one_task()
    nodes = tuple(gpu for node in ("a", "b") for gpu in cluster(1, node=node).gpus)
    on = replace(cluster(1), gpus=nodes, processors=processors)
    return Problem((Workload(graph, rps),), on, {graph.name: ProfileTable([row(rps=100.0)])})


def test_slices_are_spread_if_the_processors_of_one_node_do_not_carry_them() -> None:
    """Four slices fit one board, but 300 requests/s keep three processors busy, and each node has two."""
    problem = on_two_nodes(300.0, processors=2.0)
    plan = make_plan(problem, TWO_P95)
    load = processor_load(plan, problem)
    assert load is not None and not load.exceeded
    assert load.busy_by_node.keys() == {"a", "b"}
    assert (plan.slices_used, plan.gpus_used, len(plan.gpus)) == (4, 2, 2)
    assert violations(plan, problem, TWO_P95) == ()


def test_two_nodes_get_a_slice_more_if_an_odd_number_would_exceed_one_of_them() -> None:
    """Five slices would carry 370 requests/s, but the three on one node keep 2.2 processors busy, and it has two."""
    problem = on_two_nodes(370.0, processors=2.0)
    plan = make_plan(problem, TWO_P95)
    load = processor_load(plan, problem)
    assert load is not None and not load.exceeded
    assert [len(gpu.layout) for gpu in plan.gpus] == [3, 3]
    assert plan.solver.status == "feasible" and plan.solver.gap == pytest.approx(1 / 6)
    assert violations(plan, problem, TWO_P95) == ()


def test_slices_that_run_stay_if_their_node_carries_them() -> None:
    """Four slices run on one node. A fifth one would exceed its processors, and goes to the other node."""
    problem = on_two_nodes(300.0, processors=3.5)
    running = make_plan(problem, TWO_P95)
    (before,) = running.gpus
    assert len(before.layout) == 4
    grown = replace(problem, workloads=(replace(problem.workloads[0], demand_rps=380.0),), running=running)
    plan = make_plan(grown, TWO_P95)
    load = processor_load(plan, grown)
    assert load is not None and not load.exceeded
    after = {gpu.id.node: gpu.layout for gpu in plan.gpus}
    assert set(before.layout) <= set(after[before.id.node])
    assert plan.slices_used == 5 and len(after) == 2
    assert violations(plan, grown, TWO_P95) == ()


def test_slices_that_run_move_if_a_node_would_be_exceeded() -> None:
    """Seven slices run on one node, which no longer carries them."""
    problem = on_two_nodes(500.0, processors=6.0)
    running = make_plan(problem, TWO_P95)
    assert len(running.gpus) == 1
    fewer = replace(problem, cluster=replace(problem.cluster, processors=3.0), running=running)
    load = processor_load(make_plan(fewer, TWO_P95), fewer)
    assert load is not None and not load.exceeded
    assert load.busy_by_node.keys() == {"a", "b"}
