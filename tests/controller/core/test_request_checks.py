from dataclasses import replace

import pytest

from jigsaw_triton.controller.core.request_checks import check_free, check_node, check_removal
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.errors import InputError, StateError
from tests.controller.worlds import bundle, generation, worker

RUNNING = generation(bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a"))]))
SERVING = State(phase=Phase.READY, wanted=RUNNING.wanted, running=RUNNING)
ENDING = replace(SERVING, phase=Phase.STOPPING)


def test_a_deployment_that_serves_takes_requests() -> None:
    check_free(SERVING)
    check_node(SERVING, "n")
    check_removal(SERVING, ["app"])


def test_a_deployment_that_ends_takes_none() -> None:
    with pytest.raises(StateError, match="the deployment is being taken down") as caught:
        check_free(ENDING)
    assert "--wait stopped" in caught.value.hint
    with pytest.raises(StateError, match="nothing is deployed") as caught:
        check_node(ENDING, "n")
    assert "jigsaw-triton deploy" in caught.value.hint
    with pytest.raises(StateError, match="being taken down"):
        check_removal(ENDING, ["app"])


def test_a_node_is_found_by_its_name() -> None:
    with pytest.raises(StateError, match="nothing is deployed"):
        check_node(State(), "n")
    with pytest.raises(InputError, match="the cluster has no node 'm'") as caught:
        check_node(SERVING, "m")
    assert "n" in caught.value.hint


@pytest.mark.parametrize("graphs", [(), ("other",), ("app", "other")])
def test_graphs_that_have_joined_or_left_are_not_removed(graphs: tuple[str, ...]) -> None:
    with pytest.raises(StateError, match="graphs have joined or left the deployment meanwhile"):
        check_removal(SERVING, graphs)
