"""Demand shedding: the demand of each graph that is served if the cluster cannot carry all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.demand_shedding import make_shedding_plan
from jigsaw_triton.planner.search.solve import DEFAULTS, SolverFactory, has_plan, make_plan
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable
from tests.examples import costly
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, cluster, grid, row


def three(
    demands: Sequence[float], *, priorities: Sequence[int] = (0, 0, 0), weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> Problem:
    """Graphs a, b, c of one task each, on seven slices; each slice carries 80 requests/s of one graph."""
    graphs = [
        replace(chain(1, name=name), priority=priority, weight=weight)
        for name, priority, weight in zip("abc", priorities, weights, strict=True)
    ]
    workloads = tuple(Workload(g, rps) for g, rps in zip(graphs, demands, strict=True))
    measured = replace(row("t0", "v0", rps=100.0), source="measured")
    return Problem(workloads, cluster(1), {g.name: ProfileTable([measured]) for g in graphs})


def granted(
    p: Problem, solvers: SolverFactory, least_rps: float | Mapping[str, float] = 1.0, options: Options = TWO_P95
) -> dict[str, float]:
    least = {w.graph.name: least_rps for w in p.workloads} if isinstance(least_rps, float) else least_rps
    plan = make_shedding_plan(p, options, least_rps=least, solvers=solvers)
    rps = {name: graph.demand_rps for name, graph in plan.graphs.items()}
    assert violations(plan, with_demands(p, rps), options) == ()
    return rps


def with_demands(p: Problem, rps: Mapping[str, float]) -> Problem:
    return replace(p, workloads=tuple(replace(w, demand_rps=rps[w.graph.name]) for w in p.workloads))


def test_each_graph_gets_its_demand_if_the_cluster_carries_all(solvers: SolverFactory) -> None:
    assert granted(three((160, 160, 80)), solvers) == {"a": 160, "b": 160, "c": 80}


def test_graphs_of_equal_rank_shed_the_same_share(solvers: SolverFactory) -> None:
    # 240 + 160 + 160 are seven slices.
    found = granted(three((480, 320, 320)), solvers)
    assert found == pytest.approx({"a": 240, "b": 160, "c": 160}, rel=1e-3)


def test_a_higher_priority_gets_its_demand_first(solvers: SolverFactory) -> None:
    found = granted(three((400, 300, 300), priorities=(0, 1, 0)), solvers)
    assert found["b"] == 300
    # Three slices are left for demands of 400 and 300.
    assert found == pytest.approx({"a": 106.67, "b": 300, "c": 80}, rel=1e-3)


def test_graphs_keep_their_guaranteed_rate(solvers: SolverFactory) -> None:
    found = granted(three((100, 900, 100), priorities=(0, 1, 0)), solvers, {"a": 100.0, "b": 10.0, "c": 50.0})
    assert found == pytest.approx({"a": 100, "b": 320, "c": 80}, rel=1e-3)


def on_processors(p: Problem, processors: float) -> Problem:
    """Returns the problem with models that compute on processors, on 14 slices that share so many of them."""
    workloads = []
    for workload in p.workloads:
        tasks = {
            name: replace(task, variants=tuple(replace(v, template="python") for v in task.variants))
            for name, task in workload.graph.tasks.items()
        }
        workloads.append(replace(workload, graph=replace(workload.graph, tasks=tasks)))
    return replace(p, workloads=tuple(workloads), cluster=replace(cluster(2), processors=processors))


def test_a_higher_priority_gets_what_the_processors_carry_first(solvers: SolverFactory) -> None:
    """The slices would carry 1,120 requests/s; one processor carries about 98, the gateway included."""
    found = granted(on_processors(three((100, 200, 100), priorities=(0, 1, 0)), 3.0), solvers)
    assert found["b"] == 200
    assert 40 < found["a"] < 50
    assert found["a"] == pytest.approx(found["c"], rel=1e-3)


def test_a_weight_counts_where_processors_are_short(solvers: SolverFactory) -> None:
    found = granted(on_processors(three((200, 200, 1), weights=(1.0, 2.0, 1.0)), 3.0), solvers)
    short = {name: 1 - rps / 200 for name, rps in found.items() if name != "c"}
    assert 280 < found["a"] + found["b"] < 300
    assert short["a"] == pytest.approx(2 * short["b"], rel=1e-2)


def test_slices_a_higher_priority_cannot_use_go_to_a_lower_one(solvers: SolverFactory) -> None:
    found = granted(three((70, 900, 900), priorities=(2, 1, 0)), solvers)
    assert found == pytest.approx({"a": 70, "b": 400, "c": 80}, rel=1e-3)


def test_a_graph_of_twice_the_weight_sheds_half_the_share(solvers: SolverFactory) -> None:
    found = granted(three((400, 400, 1), weights=(1.0, 2.0, 1.0)), solvers)
    short = {name: 1 - rps / 400 for name, rps in found.items() if name != "c"}
    assert sum(found[name] for name in "ab") <= 480
    assert short["a"] == pytest.approx(2 * short["b"], rel=1e-2)
    # Two slices for a and four for b are the best split in which b sheds half the share of a.
    assert found["a"] == pytest.approx(160, rel=1e-2)


def test_no_graph_gets_less_than_its_guaranteed_rate(solvers: SolverFactory) -> None:
    found = granted(three((800, 100, 100)), solvers, {"a": 1.0, "b": 80.0, "c": 1.0})
    assert found["b"] == pytest.approx(80)
    assert found["a"] / 800 == pytest.approx(found["c"] / 100, rel=1e-3)


def test_infeasible_guaranteed_rates_give_the_reasons_of_the_full_demand(solvers: SolverFactory) -> None:
    p = three((400, 400, 400))
    with pytest.raises(InfeasibleError) as shed:
        make_shedding_plan(p, least_rps={"a": 300.0, "b": 300.0, "c": 300.0}, solvers=solvers)
    with pytest.raises(InfeasibleError) as plain:
        make_plan(p, solvers=solvers)
    assert shed.value.reasons == plain.value.reasons


@st.composite
def crowded(draw: st.DrawFn) -> Problem:
    """Two or three graphs of two tasks and a demand that a GPU or two may not carry."""
    names = "abc"[: draw(st.integers(2, 3))]
    kinds = draw(st.sampled_from([("1g", "2g", "7g"), ("1g", "3g"), ("2g", "4g")]))
    workloads, tables = [], {}
    for name in names:
        g = replace(
            chain(2, name=name),
            priority=draw(st.integers(0, 2)),
            weight=draw(st.sampled_from([0.5, 1.0, 3.0])),
        )
        workloads.append(Workload(g, draw(st.integers(50, 600))))
        rows = [grid(t, "v0", draw(st.integers(3, 20)), slices=kinds, instances=[1], batches=[1, 4]) for t in g.tasks]
        tables[name] = ProfileTable(r for of in rows for r in of)
    return Problem(tuple(workloads), cluster(draw(st.integers(1, 2))), tables)


@pytest.mark.slow
@given(p=crowded(), options=st.sampled_from([DEFAULTS, TWO_P95]))
@costly(6)
def test_a_graph_of_higher_priority_never_loses_to_lower_ones(
    p: Problem, options: Options, solvers: SolverFactory
) -> None:
    least = {w.graph.name: 1.0 for w in p.workloads}
    if not has_plan(with_demands(p, least), options, solvers=solvers):
        return
    found = granted(p, solvers, options=options)
    demand = {w.graph.name: w.demand_rps for w in p.workloads}
    event("in full" if found == demand else "short")
    top = max(w.graph.priority for w in p.workloads)
    highest = {w.graph.name for w in p.workloads if w.graph.priority == top}
    # Graphs of the highest priority get the same whether the others have a demand or not.
    rest = with_demands(p, {n: rps if n in highest else least[n] for n, rps in demand.items()})
    alone = granted(rest, solvers, options=options)
    assert {n: found[n] for n in highest} == pytest.approx({n: alone[n] for n in highest}, rel=2e-3)
    equal = replace(p, workloads=tuple(replace(w, graph=replace(w.graph, priority=0)) for w in p.workloads))
    if len(highest) == 1:
        (name,) = highest
        assert found[name] >= granted(equal, solvers, options=options)[name] * (1 - 2e-3)
    for name in highest if len(highest) == 1 else ():
        if found[name] < 0.98 * demand[name]:
            more = {**least, name: 1.02 * found[name]}
            assert not has_plan(with_demands(p, more), options, solvers=solvers)
