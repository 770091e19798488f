from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.solving import Planner
from jigsaw_triton.evaluation.replay import OURS, PUBLISHED, Contender, Replayed, replayed, start
from jigsaw_triton.evaluation.simulator.accounting import System
from jigsaw_triton.evaluation.simulator.curves import Measured
from jigsaw_triton.evaluation.simulator.memory import PlanMemory
from jigsaw_triton.planner.solver.solver import SolverProcess
from jigsaw_triton.resources import templates_dir
from tests.fakes.problems import docread_problem

PROBLEM = docread_problem()
GRAPH = PROBLEM.workloads[0].graph
WANTED = Wanted({"docread": GRAPH}, {"docread": 1.0}, PROBLEM.profiles, PROBLEM.cluster)


def run(contender: Contender, rates: list[float], wanted: Wanted = WANTED) -> Replayed:
    arrivals = {"docread": np.random.default_rng(1).poisson(rates).astype(np.float64)}
    planner = Planner(load_templates(templates_dir()), frozenset({"python"}), str, SolverProcess)

    def begin(one: Contender) -> System:
        return start(
            one,
            wanted,
            {"docread": rates[0]},
            planner,
            memory=PlanMemory(),
            settings=Settings(),
            make_curve=Measured(),
        )

    return replayed(contender, begin, arrivals, {"docread": np.array(rates)})


@pytest.mark.slow
def test_a_rise_within_five_minutes_is_followed_by_this_controller_alone() -> None:
    ours, paper = (run(contender, [10.0] * 30 + [30.0] * 90) for contender in (OURS, Contender("paper")))
    assert ours.operation is not None
    assert paper.operation is not None
    assert ours.operation.violations["docread"][60:].sum() == pytest.approx(0, abs=5)
    assert paper.operation.violations["docread"][60:].sum() > 200
    assert paper.operation.changes == ()


@pytest.mark.slow
def test_a_system_that_can_serve_nothing_has_a_reason() -> None:
    hopeless = replace(GRAPH, slo=replace(GRAPH.slo, latency_ms=1.0))
    found = run(Contender("paper", "AT"), [10.0], replace(WANTED, graphs={"docread": hopeless}))
    assert found.operation is None
    assert "docread" in found.reason


def test_systems_have_names() -> None:
    assert [str(one) for one in (OURS, Contender("paper", "AS"), Contender("paper", ""))] == [
        "exact A+S+T",
        "paper A+S",
        "paper none",
    ]
    assert {"AST", "AS", "ST", "AT"} == PUBLISHED.keys()
