"""The record of what runs, and the node to which each action is addressed."""

import pytest

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.spec.words import LOCAL_NODE
from tests.controller.worlds import worker

WORKER = worker("0/1g@0", ("t0", "a"))


@pytest.mark.parametrize(
    ("action", "node"),
    [
        (a.BringUp(WORKER), "n"),
        (a.Retire(WORKER), "n"),
        (a.RestartWorker(WORKER, 0.0), "n"),
        (a.LoadModels(WORKER.name, ()), "n"),
        (a.UnloadModels(WORKER.name, ()), "n"),
        (a.Drain(WORKER.name, ()), "n"),
        (a.SetRoutes({}), LOCAL_NODE),
        (a.StopGateway(), LOCAL_NODE),
    ],
)
def test_an_action_is_addressed_to_the_node_of_its_worker(action: a.Action, node: str) -> None:
    assert Actual(workers={WORKER.name: WORKER}).node_of(action) == node


def test_unloading_from_a_worker_that_has_been_retired_is_addressed_to_the_controllers_node() -> None:
    assert Actual().node_of(a.UnloadModels(WORKER.name, ())) == LOCAL_NODE
