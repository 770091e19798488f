from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.evaluation.simulator import curves
from jigsaw_triton.evaluation.simulator.accounting import Array, all_on_time
from jigsaw_triton.evaluation.simulator.curves import Measured, planned, within_processors
from jigsaw_triton.evaluation.simulator.simulate import Simulated, Stations, simulate
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.layouts import placed
from tests.fakes.problems import TWO_P95, problem, row

GRAPH = chain(1, slo=Slo(100.0))
TABLE = ProfileTable([replace(row("t0", "v0", p95_ms=12.5), latency_p50_ms=12.5, latency_p99_ms=12.5)])
"""A model that always takes 12.5 ms, and so serves 80 requests a second."""

ONE, TWO = (placed({0: {f"1g@{at}": "t0.v0" for at in range(count)}}) for count in (1, 2))


def test_servers_answer_almost_all_requests_below_their_throughput_and_refuse_the_rest() -> None:
    curve = Measured()(GRAPH, ONE, TABLE, 1.0)
    assert [curve.violations_rps(load) for load in (20, 40)] == pytest.approx([0, 0], abs=0.01)
    assert 70 < curve.capacity_rps <= 80 * 1.02
    assert curve.violations_rps(160) == pytest.approx(160 - curve.capacity_rps)
    assert (np.diff([curve.on_time_rps(number) for number in range(len(curve.loads_rps))]) >= 0).all()


def test_a_tighter_slo_leaves_less_capacity() -> None:
    tight = replace(GRAPH, slo=Slo(20.0))
    assert Measured()(tight, ONE, TABLE, 1.0).violations_rps(40) > 1.0


def test_two_replicas_carry_twice_as_much() -> None:
    measured = Measured()
    one, two = (measured(GRAPH, gpus, TABLE, 1.0).capacity_rps for gpus in (ONE, TWO))
    assert two == pytest.approx(2 * one, rel=0.03)


def test_the_same_replicas_elsewhere_are_not_measured_again() -> None:
    measured = Measured()
    elsewhere = placed({1: {"1g@5": "t0.v0"}})
    assert measured(GRAPH, elsewhere, TABLE, 1.0) is measured(GRAPH, ONE, TABLE, 2.0)


def test_only_loads_that_a_curve_is_asked_about_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = []

    def counting(graph: TaskGraph, servers: Stations, arrivals_s: Array, *, seed: int, drops: bool) -> Simulated:
        simulated.append(len(arrivals_s) / arrivals_s[-1])
        return simulate(graph, servers, arrivals_s, seed=seed, drops=drops)

    monkeypatch.setattr(curves, "simulate", counting)
    curve = Measured()(GRAPH, ONE, TABLE, 1.0)
    assert [curve.violations_rps(load) for load in (41, 42, 43)] == pytest.approx([0, 0, 0], abs=0.01)
    assert simulated == pytest.approx([40, 48], rel=0.05)


def test_the_planned_capacity_answers_everything_up_to_it() -> None:
    curve = planned(GRAPH, ONE, TABLE, 50.0)
    assert [curve.violations_rps(load) for load in (50, 60)] == [0, 10]


def test_servers_carry_no_more_than_the_processors_that_they_share() -> None:
    (task,) = GRAPH.tasks.values()
    variants = tuple(replace(variant, template="python") for variant in task.variants)
    graph = replace(GRAPH, tasks={task.name: replace(task, variants=variants)})
    measured = replace(row("t0", "v0", p95_ms=5.0, rps=100.0), source="measured")
    p = problem(graph, [measured], demand_rps=100.0)
    plan = make_plan(p, TWO_P95)
    curves = {GRAPH.name: all_on_time(700.0)}
    assert within_processors(curves, plan, p) == curves
    shared = replace(p, cluster=replace(p.cluster, processors=2.0))
    (curve,) = within_processors(curves, plan, shared).values()
    # A request takes 10 ms of a processor, and some microseconds at the gateway.
    assert 190 < curve.capacity_rps < 200
    assert curve.violations_rps(curve.capacity_rps) == 0
    assert curve.violations_rps(700.0) == pytest.approx(700.0 - curve.capacity_rps)
