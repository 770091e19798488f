"""Plans with the latency model `queue`."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import exhaustive
from benchmarks import problems as benchmark_problems
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.simulator.arrivals import poisson
from jigsaw_triton.evaluation.simulator.simulate import simulate, stations
from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import REPLICA_RANGES, Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, find_plan, make_plan
from jigsaw_triton.planner.validation.validate import violations
from tests.fakes.graphs import chain
from tests.fakes.problems import docread_problem, row
from tests.fakes.problems import problem as make_problem

QUEUE = Options(latency_model="queue")
SLO = Slo(400.0, percentile=99.0, accuracy=0.8)


def docread(demand_rps: float, slo: Slo = SLO) -> Problem:
    return docread_problem(demand_rps, gpus=4, slo=slo)


def planned(problem: Problem, solvers: SolverFactory) -> Plan:
    return make_plan(problem, QUEUE, solvers=solvers)


@pytest.mark.parametrize("demand_rps", [5.0, 20.0, 60.0, 100.0])
def test_simulated_servers_keep_the_slo(demand_rps: float, solvers: SolverFactory) -> None:
    problem = docread(demand_rps)
    plan, graph = planned(problem, solvers), problem.workloads[0].graph
    arrivals_s = poisson(demand_rps, 30_000, np.random.default_rng(1))
    found = simulate(graph, stations(graph.name, plan.gpus, problem.profiles[graph.name]), arrivals_s)
    assert found.percentile_ms(99) <= plan.graphs[graph.name].latency_ms <= SLO.latency_ms


def test_a_slow_replica_among_fast_ones_keeps_the_slo(solvers: SolverFactory) -> None:
    quick = row("t0", "v0", slice_="4g", instances=2, batch=4, p95_ms=8.2)
    slow = [row("t0", "v0", batch=1, p95_ms=6.4), row("t0", "v0", batch=16, p95_ms=74.0)]
    asked = make_problem(chain(1, slo=Slo(53.0)), [quick, *slow], demand_rps=1920.0, gpus=16)
    plan, (workload,) = planned(asked, solvers), asked.workloads
    arrivals_s = poisson(workload.demand_rps, 30_000, np.random.default_rng(1))
    found = simulate(workload.graph, stations("chain", plan.gpus, asked.profiles["chain"]), arrivals_s)
    assert found.percentile_ms(99) <= plan.graphs["chain"].latency_ms <= 53.0


def test_the_promised_latency_is_at_the_actual_load(solvers: SolverFactory) -> None:
    busy = planned(docread(60), solvers)
    idle = replace(docread(60), running=busy, workloads=(Workload(docread(60).workloads[0].graph, 30.0),))
    assert planned(idle, solvers).graphs["docread"].latency_ms < busy.graphs["docread"].latency_ms


@pytest.mark.slow
def test_capacity_is_at_the_load_that_the_budgets_permit(solvers: SolverFactory) -> None:
    plan = planned(docread(20), solvers).graphs["docread"]
    assert plan.capacity_rps > 1.2 * 20
    more = planned(docread(plan.capacity_rps * 0.99), solvers)
    assert more.slices_used == planned(docread(20), solvers).slices_used


def test_a_higher_percentile_is_never_cheaper(solvers: SolverFactory) -> None:
    used = [planned(docread(100, replace(SLO, percentile=p)), solvers).slices_used for p in (90.0, 99.0, 99.9)]
    assert used == sorted(used)


def test_an_unreachable_latency_is_infeasible(solvers: SolverFactory) -> None:
    with pytest.raises(InfeasibleError) as caught:
        planned(docread(20, Slo(10.0, accuracy=0.8)), solvers)
    assert caught.value.reasons


def test_validation_finds_a_plan_that_is_busier_than_it_says(solvers: SolverFactory) -> None:
    plan, problem = planned(docread(60), solvers), docread(60)
    graph = plan.graphs["docread"]
    tight = replace(
        problem, workloads=(Workload(replace(problem.workloads[0].graph, slo=Slo(150.0, accuracy=0.8)), 60),)
    )
    assert any("the latencies along a path add up" in v for v in violations(plan, tight, QUEUE))
    less = replace(plan, graphs={"docread": replace(graph, latency_ms=graph.latency_ms * 0.5)})
    assert any("the plan says" in v for v in violations(less, problem, QUEUE))


def test_a_latency_may_need_more_replicas_than_the_demand(solvers: SolverFactory) -> None:
    tight = planned(docread(20, Slo(20.0, accuracy=0.8)), solvers).graphs["docread"]
    assert all(sum(s.count for s in task.segments) >= REPLICA_RANGES[1][0] for task in tight.tasks.values())
    assert tight.capacity_rps > 2 * 20


def test_validation_finds_too_few_replicas_for_a_latency(solvers: SolverFactory) -> None:
    problem = docread(20, Slo(20.0, accuracy=0.8))
    plan = planned(problem, solvers)
    graph, (gpu, *others) = plan.graphs["docread"], plan.gpus
    gone = Counter(
        (m.task, m.variant, of.placement.slice, m.instances, m.batch) for of in gpu.layout for m in of.models
    )
    tasks = {
        name: replace(
            task,
            segments=tuple(
                replace(s, count=s.count - gone[name, s.variant, s.slice, s.instances, s.batch]) for s in task.segments
            ),
        )
        for name, task in graph.tasks.items()
    }
    fewer = replace(
        plan,
        graphs={"docread": replace(graph, tasks=tasks)},
        gpus=tuple(others),
        gpus_used=len(others),
        slices_used=plan.slices_used - sum(int(of.placement.slice[0]) for of in gpu.layout),
    )
    found = violations(fewer, problem, QUEUE)
    assert found and all("exceed its budget" in v or "add up to" in v or "the plan says" in v for v in found)


@pytest.mark.parametrize("number", range(12))
def test_the_planner_agrees_with_exhaustive_search(number: int, solvers: SolverFactory) -> None:
    asked = benchmark_problems.small_problem(random.Random(f"queue {number}"))
    plan = find_plan(asked, QUEUE, solvers=solvers)
    assert (plan.slices_used if plan else None) == exhaustive.least_slices(asked, QUEUE)
