from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.totals import Totals
from tests.controller.worlds import wanted, worker


def test_outcomes_and_restarts_are_counted() -> None:
    one, totals = worker("0/1g@0", ("t0", "a")), Totals()
    totals.count(["serves", "replaced"], [a.RestartWorker(one, 0.0), a.Retire(one)])
    totals.count(["serves"], [a.RestartWorker(one, 1.0), a.RestartGateway(wanted(), (), 0.0)])
    assert totals.generations == {"serves": 2, "replaced": 1}
    assert totals.restarts == {"n-0-1g-0": 2, "gateway": 1}
