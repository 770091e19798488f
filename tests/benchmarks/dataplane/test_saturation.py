from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.dataplane import saturation
from benchmarks.dataplane.saturation import Case
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.solve import make_plan


@pytest.mark.parametrize(
    ("make", "ideal_rps"),
    [(saturation.many, 2560.0), (saturation.unequal, 8 / 0.03 + 8 / 0.09), (saturation.short, 1600.0)],
)
def test_the_plan_has_the_workers_that_are_measured(
    make: Callable[[Path], Case], ideal_rps: float, tmp_path: Path
) -> None:
    case = make(tmp_path)
    assert case.ideal_rps == pytest.approx(ideal_rps)
    wanted = case.wanted
    workloads = tuple(Workload(graph, wanted.demand_rps[name]) for name, graph in wanted.graphs.items())
    plan = make_plan(Problem(workloads, wanted.cluster, wanted.profiles), wanted.options)
    segments = [s for graph in plan.graphs.values() for task in graph.tasks.values() for s in task.segments]
    assert sum(s.count for s in segments) == case.workers


def test_shares_are_relative_to_the_capacity_of_the_workers() -> None:
    found = saturation.share("balance", "two", [300.0, 350.0, 310.0], 355.0, 0.97)
    assert (found.id, found.value, found.met, found.baseline) == ("dataplane.balance", 0.873, False, 355)
