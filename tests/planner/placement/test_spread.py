from dataclasses import replace

import pytest

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.placement.spread import spread
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, cluster, row


@pytest.mark.parametrize(("limit_s", "tried"), [(0.0, 1), (600.0, 4)])
def test_slices_are_spread_until_the_deadline(limit_s: float, tried: int) -> None:
    graph = chain(1)
    nodes = tuple(gpu for node in ("a", "b") for gpu in cluster(1, node=node).gpus)
    profiles = ProfileTable([replace(row("t0", "v0", rps=100.0), source="measured")])
    problem = Problem((Workload(graph, 200.0),), replace(cluster(1), gpus=nodes), {graph.name: profiles})
    plan = make_plan(problem, TWO_P95)
    seen: list[Plan] = []

    def scale(made: Plan) -> float:
        seen.append(made)
        return 0.5

    limited = replace(problem, cluster=replace(problem.cluster, processors=1.0))
    assert spread(plan, limited, scale, Deadline(limit_s)) is plan
    assert len(seen) == 1 + tried
