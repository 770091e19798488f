"""Planning and compiling for the core."""

from dataclasses import replace

import pytest

from jigsaw_triton.controller import solving
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.solving import Planner, planned
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Survive
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.search.attempt import OutOfTimeError
from jigsaw_triton.runtime.spec import runner_from_json
from tests.compiler.samples import TEMPLATES, cluster, identity, profile, spec_text
from tests.fakes.graphs import chain
from tests.fakes.problems import TWO_P95, docread_problem


@pytest.mark.parametrize("deterministic", [True, False])
def test_emulated_models_are_as_deterministic_as_the_deployment(deterministic: bool) -> None:
    graph = chain(1)
    wanted = Wanted({graph.name: graph}, {graph.name: 10.0}, {graph.name: profile(graph)}, cluster(1))
    wanted = replace(wanted, deterministic=deterministic)
    solve = a.Solve(wanted, wanted.demand_rps, 1, "requested by the user", None, wanted.graphs)
    _, bundle = Planner(TEMPLATES, frozenset({"python"}), identity).solve(solve, wanted.cluster)
    (worker,) = bundle.workers.values()
    emulation = runner_from_json(spec_text(worker.models[0].folder)).emulation
    assert emulation is not None
    assert emulation.deterministic is deterministic


def surviving(demand_rps: float, *, nodes: int) -> Problem:
    """Returns the problem of serving `docread` so that the loss of any node leaves half of the demand."""
    gpus = tuple(Gpu(GpuId(f"n{i}", 0), board("cpu")) for i in range(nodes))
    return replace(docread_problem(demand_rps), cluster=Cluster(gpus, survive=Survive()))


def asked(problem: Problem, *, first: bool = False, may_fall_short: bool = False) -> a.Solve:
    rps = {w.graph.name: w.demand_rps for w in problem.workloads}
    graphs = {w.graph.name: w.graph for w in problem.workloads}
    of = Wanted(graphs, rps, dict(problem.profiles), problem.cluster)
    return a.Solve(of, rps, 1, "requested by the user", None, graphs, first=first, may_fall_short=may_fall_short)


def test_a_first_plan_need_not_survive_a_loss() -> None:
    problem = surviving(20.0, nodes=2)
    assert planned(problem, TWO_P95, asked(problem, first=True)).solver.constructed
    assert planned(problem, TWO_P95, asked(problem)).survival is not None


def test_what_is_left_after_a_loss_serves_even_if_it_survives_no_other() -> None:
    problem = surviving(20.0, nodes=1)
    with pytest.raises(InfeasibleError):
        planned(problem, TWO_P95, asked(problem))
    plan = planned(problem, TWO_P95, asked(problem, may_fall_short=True))
    assert (plan.survival, plan.graphs["docread"].demand_rps) == (None, 20.0)


def test_the_demand_is_served_if_the_time_limit_left_open_what_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_time(*_: object, **__: object) -> None:
        raise OutOfTimeError(1.0)

    monkeypatch.setattr(solving, "find_plan", out_of_time)
    problem = surviving(20.0, nodes=2)
    plan = planned(problem, TWO_P95, asked(problem, may_fall_short=True))
    assert (plan.survival, plan.graphs["docread"].demand_rps) == (None, 20.0)
