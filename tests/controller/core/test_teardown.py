from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.teardown import stages_down
from tests.controller.core.transitions import ONE, after


def test_down_stops_the_gateway_first() -> None:
    stages = stages_down(after(ONE))
    assert isinstance(stages[0].actions[0], a.StopGateway)
    assert {x.worker.name for x in stages[1].actions if isinstance(x, a.Retire)} == set(ONE.workers)
    assert stages_down(Actual()) == ()
