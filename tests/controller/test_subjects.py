from dataclasses import replace

import pytest

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.subjects import generation_of, subject_of, worker_of
from tests.controller.worlds import ONE, generation, worker

WORKER = worker("0/1g@0", ("t0", "a"))


@pytest.mark.parametrize(
    ("action", "name", "subject"),
    [
        (a.RestartWorker(WORKER, 0.0), "n-0-1g-0", "n-0-1g-0"),
        (a.LoadModels("w0", ()), "w0", "w0"),
        (a.UnloadGateway(("m", "n")), None, "m, n"),
        (a.StopGateway(), None, "gateway"),
    ],
)
def test_an_action_concerns_a_worker_or_something_else(action: a.Action, name: str | None, subject: str) -> None:
    assert worker_of(action) == name
    assert subject_of(action) == subject


def test_the_generation_is_the_one_that_a_change_leads_to_else_the_one_that_serves() -> None:
    first, second = (generation(replace(ONE, generation=n)) for n in (1, 2))
    assert generation_of(State()) is None
    assert generation_of(State(running=first)) == 1
    assert generation_of(State(running=first, pending=second)) == 2
