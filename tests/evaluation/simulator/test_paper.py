from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.evaluation.simulator.accounting import Operation, operate
from jigsaw_triton.evaluation.simulator.curves import planned
from jigsaw_triton.evaluation.simulator.paper import PERIOD_S, PaperDeployment, largest_if_short, outages_s
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.solver.solver import SolverProcess
from jigsaw_triton.planner.transition.moves import Durations
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.layouts import Places, plan_of
from tests.fakes.problems import cluster, docread_problem, row

DURATIONS = Durations(shares_s=0.0, drain_s=1.0, load_s=2.0, create_s=4.0, destroy_s=8.0, start_s=16.0)
GRAPH = chain(1)
PROFILES = ProfileTable([row("t0", "v0", slice_=kind, rps=10.0 * int(kind[0])) for kind in ("1g", "2g", "3g")])
WANTED = Wanted({"chain": GRAPH}, {"chain": 10.0}, {"chain": PROFILES}, cluster(2), latency_model="2p95")
"""A model that serves 10 requests a second for each compute slice."""

PAPER = replace(WANTED, formulation="paper")


def slices(places: Places) -> Plan:
    return replace(plan_of(places), slices_used=sum(int(place[0]) for layout in places.values() for place in layout))


SMALL = slices({0: {"1g@0": "t0.v0"}})
LARGE = slices({0: {"3g@0": "t0.v0"}})
SPREAD = slices({0: {"1g@0": "t0.v0"}, 1: {"1g@0": "t0.v0"}})


def run(rates: list[float], *plans: Plan) -> tuple[Operation, list[float]]:
    """Simulates a controller whose plans follow each other; returns also the demands that it planned for."""
    demands: list[float] = []

    def plan(problem: Problem, options: Options) -> Plan:
        demands.append(problem.workloads[0].demand_rps)
        made = plans[min(len(demands), len(plans)) - 1]
        graph = replace(made.graphs["chain"], demand_rps=demands[-1])
        return replace(made, graphs={"chain": graph})

    system = PaperDeployment(PAPER, plan, DURATIONS, 1.0, planned)
    return operate(system, {"chain": np.array(rates)}), demands


def test_plans_are_made_every_period_for_the_mean_load_of_the_last_one() -> None:
    rates = [4.0] * 300 + [9.0] * 150 + [7.0] * 150 + [100.0] * 100
    _, demands = run(rates, SMALL)
    assert PERIOD_S == 300
    assert demands == pytest.approx([10, 4, 8])


def test_a_gpu_that_is_cut_anew_is_out_of_service_until_its_servers_have_started() -> None:
    found, _ = run([8.0] * 400, SMALL, LARGE)
    (change,) = found.changes
    assert (change.at_s, change.slices) == (300.0, 3)
    missed = found.violations["chain"]
    # The solve takes a second, and drain, destruction, creation, start and load 31 s.
    assert missed[:301].sum() == 0
    assert missed[301:332].tolist() == pytest.approx([8.0] * 31)
    assert missed[332:].sum() == 0
    assert found.slices[299] == 1
    assert found.slices[350] == 3
    assert found.capacity_rps["chain"][350] == pytest.approx(30.0)


def test_other_gpus_serve_meanwhile() -> None:
    found, _ = run([8.0] * 400, SMALL, SPREAD)
    assert found.violations["chain"].sum() == 0
    assert found.capacity_rps["chain"][[305, 350]].tolist() == pytest.approx([10, 20])


def test_a_slice_that_stays_loses_only_the_time_of_its_new_model() -> None:
    other = slices({0: {"1g@0": "t0.v0/1/2"}})
    assert list(outages_s(SMALL, other, DURATIONS).values()) == [3.0]
    assert outages_s(SMALL, SMALL, DURATIONS) == {}


def test_a_gpu_that_was_not_in_use_has_nothing_to_drain() -> None:
    assert list(outages_s(SMALL, SPREAD, DURATIONS).values()) == [22.0]


def test_an_equal_plan_is_no_change() -> None:
    found, demands = run([8.0] * 700, SMALL)
    assert (len(demands), found.changes) == (3, ())


def test_a_demand_beyond_the_cluster_is_served_in_part() -> None:
    options = Options(formulation="paper", latency_model="2p95")
    found = largest_if_short(docread_problem(1e5), options, SolverProcess)
    assert 0 < found.graphs["docread"].demand_rps < 1e5
