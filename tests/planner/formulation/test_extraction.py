import math

import pytest

from jigsaw_triton.graph.model import Slo, TaskGraph, Workload
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.plan import GraphPlan
from jigsaw_triton.planner.formulation.extraction import flows, graph_plan
from jigsaw_triton.planner.solver.solver import SolverProcess
from tests.fakes.graphs import chain, diamond
from tests.fakes.problems import docread


def replica(
    g: TaskGraph, task: str, variant: str, rps: float, *, ms: float = 10.0, slice_: str = "1g", board: str = "cpu"
) -> Configuration:
    """A configuration with usable throughput `rps`."""
    loss = -math.log(g.tasks[task].variant(variant).accuracy / g.tasks[task].best_accuracy)
    return Configuration(g.name, task, variant, board, slice_, 1, 1, 1, ms, rps, loss)


def planned(highs: SolverProcess, g: TaskGraph, demand: float, counts: dict[Configuration, int]) -> GraphPlan:
    workload = Workload(g, demand)
    flow = flows([workload], counts)
    return graph_plan(workload, counts, flow.calls(highs.solve(flow.program, 10).values))


def shares(plan: GraphPlan, task: str) -> dict[tuple[str, str], float]:
    return {(s.variant, s.slice): round(s.share, 4) for s in plan.tasks[task].segments}


def test_the_most_accurate_variant_takes_all_it_can(highs: SolverProcess) -> None:
    g = chain(1, variant_count=2)
    plan = planned(highs, g, 100, {replica(g, "t0", "v0", 30): 2, replica(g, "t0", "v1", 50): 1})
    assert shares(plan, "t0") == {("v0", "1g"): 0.6, ("v1", "1g"): 0.4}
    assert plan.accuracy == pytest.approx(0.9)


def test_replicas_of_one_variant_have_equal_utilisation(highs: SolverProcess) -> None:
    g = chain(1)
    plan = planned(highs, g, 70, {replica(g, "t0", "v0", 20): 2, replica(g, "t0", "v0", 60, slice_="3g"): 1})
    assert shares(plan, "t0") == {("v0", "1g"): 0.4, ("v0", "3g"): 0.6}
    assert plan.capacity_rps == pytest.approx(100)


def test_equal_segments_on_two_models_of_gpu_are_merged(highs: SolverProcess) -> None:
    g = chain(1)
    plan = planned(highs, g, 70, {replica(g, "t0", "v0", 20): 2, replica(g, "t0", "v0", 60, board="other"): 1})
    (segment,) = plan.tasks["t0"].segments
    assert segment.count == 3
    assert segment.share == pytest.approx(1)


def test_the_rate_follows_the_mix_of_variants_upstream(highs: SolverProcess) -> None:
    g = docread(lines=10.0)
    counts = {
        replica(g, "detect", "base", 6): 1,  # 10 lines
        replica(g, "detect", "tiny", 20): 1,  # 8 lines
        replica(g, "recognise", "small", 500): 1,
    }
    plan = planned(highs, g, 10, counts)
    assert shares(plan, "detect") == {("base", "1g"): 0.6, ("tiny", "1g"): 0.4}
    assert plan.tasks["recognise"].rate_rps == pytest.approx(6 * 10 + 4 * 8, rel=1e-4)


def test_the_lighter_variant_is_used_if_the_better_yields_too_many_rows(highs: SolverProcess) -> None:
    g = docread(lines=10.0)
    counts = {
        replica(g, "detect", "base", 10): 1,
        replica(g, "detect", "tiny", 10): 1,
        replica(g, "recognise", "small", 90): 1,
    }
    # With base alone there are 100 lines a second; with tiny for half of the calls, 90.
    plan = planned(highs, g, 10, counts)
    assert shares(plan, "detect") == {("base", "1g"): 0.5, ("tiny", "1g"): 0.5}


def test_the_tightest_task_limits_the_capacity(highs: SolverProcess) -> None:
    g = chain(2)
    plan = planned(highs, g, 10, {replica(g, "t0", "v0", 50): 1, replica(g, "t1", "v0", 15): 2})
    assert plan.capacity_rps == pytest.approx(30)


def test_capacity_includes_idle_replicas_of_other_variants(highs: SolverProcess) -> None:
    g = chain(1, variant_count=2)
    plan = planned(highs, g, 40, {replica(g, "t0", "v0", 30): 1, replica(g, "t0", "v1", 90): 1})
    # With the planned shares, 3 to 1, v0 would be full at 40 requests/s.
    assert plan.capacity_rps == pytest.approx(120)


def test_budgets_stretch_to_the_slo_along_the_tightest_path(highs: SolverProcess) -> None:
    g = diamond(slo=Slo(120.0, accuracy=0.5))
    ms = {"a": 10.0, "b": 30.0, "c": 10.0, "d": 20.0}
    plan = planned(highs, g, 1, {replica(g, t, "v0", 50, ms=v): 1 for t, v in ms.items()})
    assert plan.latency_ms == pytest.approx(60)
    budgets = {t: p.budget_ms for t, p in plan.tasks.items()}
    assert budgets == pytest.approx({"a": 20.0, "b": 60.0, "c": 30.0, "d": 40.0})


def test_the_slowest_configuration_determines_the_latency(highs: SolverProcess) -> None:
    g = chain(1)
    counts = {replica(g, "t0", "v0", 50, ms=10): 1, replica(g, "t0", "v0", 50, ms=25, slice_="2g"): 1}
    assert planned(highs, g, 80, counts).latency_ms == 25
