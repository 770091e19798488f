"""Planning and compiling for the core."""

from dataclasses import replace

import pytest

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.solving import Planner
from jigsaw_triton.runtime.spec import runner_from_json
from tests.compiler.samples import TEMPLATES, cluster, identity, profile, spec_text
from tests.fakes.graphs import chain


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
