from pathlib import Path

from benchmarks.dataplane import shared
from benchmarks.dataplane.client import OK, Outcome
from benchmarks.dataplane.shared import Round
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.solve import make_plan


def test_both_graphs_are_planned_into_one_slice(tmp_path: Path) -> None:
    wanted = shared.deployment(tmp_path)
    workloads = tuple(Workload(graph, wanted.demand_rps[name]) for name, graph in wanted.graphs.items())
    plan = make_plan(Problem(workloads, wanted.cluster, wanted.profiles), wanted.options)
    (placed,) = (placed for gpu in plan.gpus for placed in gpu.layout)
    assert {model.graph for model in placed.models} == {"loud", "quiet"}


def test_isolation_is_the_median_of_the_rounds() -> None:
    def outcomes(latency_ms: float) -> list[Outcome]:
        return [Outcome(0.0, latency_ms, OK)] * 10

    rounds = [Round(outcomes(20.0), outcomes(22.0), outcomes(ms), outcomes(99.0)) for ms in (20.0, 30.0, 90.0)]
    found = shared.isolation(rounds)
    assert (found.value, found.met) == (1.5, False)
    assert "with both as planned 1.10; p99 30 ms" in found.note
