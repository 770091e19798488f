import pytest

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.stage import Stage
from tests.controller.worlds import bundle, worker

LED = worker("0/1g@0", ("t0", "a"), ("t1", "a"))
OTHER = worker("0/1g@1", ("t0", "a"))
ROUTES = {"app.t0.g1": bundle(1, [LED]).graphs["app"].tasks[0].route}


@pytest.mark.parametrize(
    ("action", "cuts"),
    [
        (a.Drain("n-0-1g-0", ("app.t1.a.g1", "app.t0.a.g1")), True),
        (a.UnloadModels("n-0-1g-0", ("app.t0.a.g1",)), True),
        (a.UnloadModels("n-0-1g-0", ("app.t1.a.g1",)), False),
        (a.Retire(LED), True),
        (a.Retire(OTHER), False),
        (a.UnloadGateway(("app.t0.g1",)), False),
    ],
)
def test_a_stage_cuts_the_routes_that_lead_to_what_it_ends(action: a.Action, cuts: bool) -> None:
    assert Stage("", (action,)).cuts(ROUTES) is cuts
