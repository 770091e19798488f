"""Graphs that fit on a cluster beside each other, and load that others have to shed for them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from jigsaw_triton.api.reporting import COMMAND_LINE, PYTHON, Wording
from jigsaw_triton.api.shedding import Fit, Shed, fit, shedding_refused
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, cluster, row


def fitted(
    demand_rps: Mapping[str, float],
    provided_rps: Mapping[str, float],
    priorities: Mapping[str, int] | None = None,
    options: Options = TWO_P95,
) -> Fit:
    """Adds the graph `new` to others, on seven slices; each slice carries 80 requests/s of one graph."""
    graphs = [replace(chain(1, name=name), priority=(priorities or {}).get(name, 0)) for name in demand_rps]
    workloads = tuple(Workload(graph, demand_rps[graph.name]) for graph in graphs)
    problem = Problem(workloads, cluster(1), {name: ProfileTable([row("t0", "v0", rps=100.0)]) for name in demand_rps})
    return fit(problem, options, provided_rps=provided_rps, joining={"new"}, progress=lambda _: None)


def planned_rps(found: Fit) -> dict[str, float]:
    rps = {name: graph.demand_rps for name, graph in found.plan.graphs.items()}
    assert {w.graph.name: w.demand_rps for w in found.problem.workloads} == rps
    return rps


def test_a_graph_that_joins_leaves_the_load_of_the_others_in_the_plan() -> None:
    found = fitted({"a": 80.0, "new": 160.0}, {"a": 320.0})
    assert planned_rps(found) == {"a": 320.0, "new": 160.0}
    assert (found.sheds, found.lowered_rps) == ((), {})


def test_load_beyond_the_demand_gives_way_to_a_graph_of_the_same_priority() -> None:
    found = fitted({"a": 80.0, "new": 320.0}, {"a": 400.0})
    assert planned_rps(found) == pytest.approx({"a": 240.0, "new": 320.0}, rel=1e-3)
    assert [(shed.graph, shed.of_rps) for shed in found.sheds] == [("a", 400.0)]
    assert found.lowered_rps == {}


def test_a_demand_gives_way_to_a_graph_of_a_higher_priority_alone() -> None:
    demand_rps = {"low": 300.0, "high": 160.0, "new": 240.0}
    found = fitted(demand_rps, {}, {"new": 1, "high": 1})
    assert planned_rps(found) == pytest.approx({"low": 160.0, "high": 160.0, "new": 240.0}, rel=1e-3)
    assert found.lowered_rps == pytest.approx({"low": 160.0}, rel=1e-3)
    (shed,) = found.sheds
    assert str(shed).startswith("low (priority 0) would be provided for with 1")
    assert str(shed).endswith("instead of 300 requests/s")


def test_a_demand_gives_way_to_no_graph_of_the_same_priority_and_the_error_says_what_would_be_enough() -> None:
    with pytest.raises(InfeasibleError) as caught:
        fitted({"a": 400.0, "new": 240.0}, {})
    assert "these cannot be satisfied together: 1 GPU of cpu, a's demand of 400 requests/s" in str(caught.value)
    assert "give the cluster 2 GPUs of cpu" in caught.value.hint
    assert "lower the demand of new to 159.9 requests/s" in caught.value.hint


def test_a_graph_that_joins_gets_its_whole_demand_or_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="the demand exceeds the cluster"):
        fitted({"a": 80.0, "new": 600.0}, {}, {"new": 1})


def test_the_formulation_of_the_paper_sheds_nothing() -> None:
    paper = replace(TWO_P95, formulation="paper", features="AST")
    assert planned_rps(fitted({"a": 80.0, "new": 160.0}, {"a": 200.0}, options=paper)) == {"a": 200.0, "new": 160.0}
    with pytest.raises(InfeasibleError):
        fitted({"a": 80.0, "new": 320.0}, {"a": 700.0}, options=paper)


@pytest.mark.parametrize(("wording", "way"), [(COMMAND_LINE, "--yes"), (PYTHON, "shed=True")])
def test_load_that_nobody_has_agreed_to_shed_is_named_in_the_error(wording: Wording, way: str) -> None:
    error = shedding_refused([Shed("a", -1, 40.0, 100.0)], wording)
    assert "a (priority -1) would be provided for with 40 instead of 100 requests/s" in str(error)
    assert f"accept that with {way}" in error.hint
