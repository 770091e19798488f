"""The largest demand that a cluster carries."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from jigsaw_triton.errors import InfeasibleError, OverloadedProcessorError
from jigsaw_triton.graph.model import Slo, Workload
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Options, Problem
from jigsaw_triton.planner.domain.processors import processor_load
from jigsaw_triton.planner.search.solve import (
    SolverFactory,
    find_plan,
    has_plan,
    largest_demand,
    make_first_plan,
    make_largest_plan,
    make_plan,
)
from jigsaw_triton.planner.solver.program import Program, SolverName
from jigsaw_triton.planner.solver.solver import Outcome, SolverProcess, Stage
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import LONG, TWO_P95, cluster, docread_problem, problem, row

pytestmark = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize("demand_rps", [0.01, 5000.0])
def test_the_largest_demand_is_feasible_and_no_larger_one_is(demand_rps: float, solvers: SolverFactory) -> None:
    p = docread_problem(demand_rps, batches=[1, 8])
    plan = make_largest_plan(p, LONG, solvers=solvers)
    largest = plan.graphs["docread"].demand_rps

    def at(rps: float) -> Problem:
        return replace(p, workloads=(replace(p.workloads[0], demand_rps=rps),))

    assert violations(plan, at(largest), LONG) == ()
    assert make_plan(at(largest), LONG, solvers=solvers).graphs["docread"].demand_rps == largest
    with pytest.raises(InfeasibleError):
        make_plan(at(1.001 * largest), LONG, solvers=solvers)


def two(of_a: float, of_b: float) -> Problem:
    """Returns two graphs of one task, whose replicas carry 80 requests/s each, on seven slices."""
    graphs = [replace(chain(1, slo=Slo(1000.0, accuracy=0.5)), name=name) for name in ("a", "b")]
    table = ProfileTable([row("t0", "v0", p95_ms=5.0, rps=100.0)])
    workloads = tuple(Workload(g, rps) for g, rps in zip(graphs, (of_a, of_b), strict=True))
    return Problem(workloads, cluster(1), {g.name: table for g in graphs})


def test_graphs_grow_in_proportion(solvers: SolverFactory) -> None:
    plan = make_largest_plan(two(10.0, 20.0), TWO_P95, solvers=solvers)
    assert [plan.graphs[name].demand_rps for name in "ab"] == pytest.approx([160.0, 320.0], rel=1e-3)


def test_graphs_that_are_not_scaled_keep_their_demand(solvers: SolverFactory) -> None:
    plan = make_largest_plan(two(10.0, 100.0), TWO_P95, scaled=["a"], solvers=solvers)
    assert plan.graphs["b"].demand_rps == 100.0
    assert plan.graphs["a"].demand_rps == pytest.approx(400.0, rel=1e-3)


def test_no_room_at_any_demand_is_infeasible(solvers: SolverFactory) -> None:
    graphs = chain(8, slo=Slo(1000.0, accuracy=0.5))
    rows = [row(f"t{i}", "v0") for i in range(8)]
    with pytest.raises(InfeasibleError, match="no room for as many replicas as the tasks need"):
        make_largest_plan(problem(graphs, rows), solvers=solvers)


def test_graphs_that_keep_their_demand_may_leave_no_room(solvers: SolverFactory) -> None:
    with pytest.raises(InfeasibleError, match="demand exceeds the cluster"):
        make_largest_plan(two(10.0, 1000.0), scaled=["a"], solvers=solvers)


def test_an_unproven_largest_demand_is_feasible_with_its_gap(highs: SolverProcess) -> None:
    class Cut:
        name: SolverName = "highs"

        def solve(self, program: Program, time_limit_s: float) -> Outcome:
            outcome = highs.solve(program, time_limit_s)
            if not outcome.stages or outcome.stages[0].value >= 0:
                return outcome
            (first, *rest) = outcome.stages
            return replace(outcome, status="feasible", stages=(Stage(first.value, 1.25 * first.value, False), *rest))

    plan = make_largest_plan(docread_problem(1.0), solvers=lambda name: nullcontext(Cut()))
    assert plan.solver.status == "feasible"
    assert plan.solver.gap == pytest.approx(0.25)


def test_the_largest_demand_is_limited_to_what_can_be_planned(solvers: SolverFactory) -> None:
    table = ProfileTable([row("t0", "v0", p95_ms=1e-6, rps=1e9)])
    plan = make_largest_plan(problem(chain(1), table, demand_rps=1.0, gpus=4), solvers=solvers)
    assert plan.graphs["chain"].demand_rps == pytest.approx(MAX_DEMAND_RPS, rel=1e-4)


def shared(rps: float, processors: float) -> Problem:
    """Returns a graph of one task on 14 slices; each carries 80 of 100 requests/s, with one processor to itself."""
    graph = replace(chain(1, slo=Slo(1000.0, accuracy=0.5)), name="a")
    (task,) = graph.tasks.values()
    variant = replace(task.variant("v0"), template="python")
    graph = replace(graph, tasks={task.name: replace(task, variants=(variant,))})
    table = ProfileTable([replace(row("t0", "v0", p95_ms=5.0, rps=100.0), source="measured")])
    on = replace(cluster(2), processors=processors)
    return Problem((Workload(graph, rps),), on, {"a": table})


def test_slices_of_one_processor_carry_together_what_its_processors_do(solvers: SolverFactory) -> None:
    plan = make_largest_plan(shared(1.0, 3.0), TWO_P95, solvers=solvers)
    load = processor_load(plan, shared(1.0, 3.0))
    assert load is not None
    assert load.busy == pytest.approx(3.0, rel=1e-3)
    assert plan.graphs["a"].capacity_rps == pytest.approx(plan.graphs["a"].demand_rps, rel=1e-3)
    assert plan.graphs["a"].demand_rps < 300.0
    assert plan.slices_used < 14


def test_a_demand_that_the_processors_do_not_carry_is_infeasible(solvers: SolverFactory) -> None:
    assert make_plan(shared(250.0, 3.0), TWO_P95, solvers=solvers).slices_used == 4
    with pytest.raises(OverloadedProcessorError) as error:
        make_plan(shared(400.0, 3.0), TWO_P95, solvers=solvers)
    (reason,) = error.value.reasons
    assert reason.startswith("the slices share 3 processors, which carry at most a 29")
    assert reason.endswith("of 400 requests/s")
    assert make_first_plan(shared(400.0, 3.0), TWO_P95) is None


def beside(growing_rps: float, kept_rps: float) -> Problem:
    """Returns two graphs on three processors, of which one carries about 98 requests/s."""
    a, kept = shared(growing_rps, 3.0), shared(kept_rps, 3.0)
    (workload,) = kept.workloads
    workloads = (*a.workloads, replace(workload, graph=replace(workload.graph, name="kept")))
    return replace(a, workloads=workloads, profiles={"a": a.profiles["a"], "kept": a.profiles["a"]})


def test_a_graph_grows_within_the_processors_that_the_others_leave(solvers: SolverFactory) -> None:
    plan = make_largest_plan(beside(1.0, 250.0), TWO_P95, scaled=["a"], solvers=solvers)
    assert plan.graphs["kept"].demand_rps == 250.0
    load = processor_load(plan, beside(1.0, 250.0))
    assert load is not None
    assert load.busy == pytest.approx(3.0, rel=1e-3)
    with pytest.raises(OverloadedProcessorError):
        make_largest_plan(beside(1.0, 350.0), TWO_P95, scaled=["a"], solvers=solvers)


def test_a_plan_that_the_processors_do_not_carry_is_none(solvers: SolverFactory) -> None:
    assert has_plan(shared(250.0, 3.0), TWO_P95, solvers=solvers) is True
    assert has_plan(shared(400.0, 3.0), TWO_P95, solvers=solvers) is False
    assert find_plan(shared(400.0, 3.0), TWO_P95, solvers=solvers) is None
    found = find_plan(shared(250.0, 3.0), TWO_P95, solvers=solvers)
    assert found is not None
    assert found.graphs["a"] == make_plan(shared(250.0, 3.0), TWO_P95, solvers=solvers).graphs["a"]


def test_a_lighter_variant_takes_what_the_processors_do_not_carry_with_the_best_one(solvers: SolverFactory) -> None:
    p = shared(110.0, 1.0)
    (task,) = p.workloads[0].graph.tasks.values()
    (variant,) = task.variants
    light = replace(variant, name="light", accuracy=0.9 * variant.accuracy)
    graph = replace(p.workloads[0].graph, tasks={task.name: replace(task, variants=(variant, light))})
    rows = (row("t0", name, p95_ms=5.0, rps=rps) for name, rps in (("v0", 100.0), ("light", 130.0)))
    table = ProfileTable(replace(row, source="measured") for row in rows)
    p = replace(p, workloads=(Workload(graph, 110.0),), profiles={"a": table})
    larger = replace(p, cluster=replace(p.cluster, processors=2.0))
    for one, names in ((larger, {"v0"}), (p, {"v0", "light"})):
        plan = make_plan(one, TWO_P95, solvers=solvers)
        segments = plan.graphs["a"].tasks["t0"].segments
        assert ({s.variant for s in segments}, sum(s.count for s in segments)) == (names, 2)
        assert plan.solver.status == "optimal"
        load = processor_load(plan, one)
        assert load is not None
        assert not load.exceeded


def test_the_objective_accuracy_is_kept_as_far_as_processors_allow(solvers: SolverFactory) -> None:
    """The best variant alone needs 1.65 processors and three slices; with one of the others, two slices are enough."""
    p = shared(165.0, 1.5)
    (task,) = p.workloads[0].graph.tasks.values()
    (variant,) = task.variants
    others = tuple(
        replace(variant, name=name, accuracy=a * variant.accuracy) for name, a in (("mid", 0.9), ("low", 0.8))
    )
    graph = replace(p.workloads[0].graph, tasks={task.name: replace(task, variants=(variant, *others))})
    rates = {"v0": 100.0, "mid": 130.0, "low": 140.0}
    rows = (row("t0", name, p95_ms=5.0, rps=rps) for name, rps in rates.items())
    table = ProfileTable(replace(row, source="measured") for row in rows)
    p = replace(p, workloads=(Workload(graph, 165.0),), profiles={"a": table})
    plan = make_plan(p, replace(TWO_P95, objective="accuracy"), solvers=solvers)
    assert "low" not in plan.graphs["a"].tasks["t0"].mix
    assert plan.graphs["a"].accuracy == pytest.approx(0.9)


def test_a_demand_that_processors_limit_is_proven_to_be_the_largest(solvers: SolverFactory) -> None:
    """The 14 slices would carry 1,120 requests/s."""
    assert largest_demand(shared(1.0, 3.0), TWO_P95, solvers=solvers).proven
    plan = make_largest_plan(shared(1.0, 3.0), TWO_P95, solvers=solvers)
    assert plan.solver.status == "optimal"
    assert plan.graphs["a"].demand_rps < 300
    enough = make_largest_plan(shared(1.0, 30.0), TWO_P95, solvers=solvers)
    assert enough.solver.status == "optimal"
    assert enough.graphs["a"].demand_rps == pytest.approx(1120, rel=1e-3)


def test_the_paper_s_formulation_carries_what_the_processors_do_too(solvers: SolverFactory) -> None:
    options = Options(formulation="paper", latency_model="2p95")
    plan = make_largest_plan(shared(1.0, 3.0), options, solvers=solvers)
    load = processor_load(plan, shared(1.0, 3.0))
    assert load is not None
    assert 2.9 < load.busy <= 3.0
