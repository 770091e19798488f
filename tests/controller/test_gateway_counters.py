from jigsaw_triton.controller.core.canary import Verdict, Watch
from jigsaw_triton.controller.core.generation import Canary
from jigsaw_triton.controller.gateway_counters import NOTHING, GatewayCounters, Measured
from jigsaw_triton.servers.metrics import Sample
from tests.controller.worlds import bundle, generation, worker

RUNNING, NEW = (generation(bundle(n, [worker("0/1g@0", ("t0", "a"), ("t1", "a"))])) for n in (1, 2))
CANARY = Watch.of(Canary(0.05, 60.0), RUNNING, NEW).begun(0.0)


def samples(arrived: float, requests: float = 0.0) -> list[Sample]:
    labels = {"graph": "app", "generation": "2", "outcome": "answered"}
    return [
        Sample("jigsaw_arrivals_total", {"graph": "app"}, arrived),
        Sample("jigsaw_generation_requests_total", labels, requests),
    ]


def test_rates_are_those_since_the_last_measurement() -> None:
    counters = GatewayCounters(10.0, adopted=False)
    assert counters.measured(samples(30.0), 12.0, ["app", "idle"], None).rates_rps == {"app": 15.0, "idle": 0.0}
    assert counters.measured(samples(33.0), 13.0, ["app"], None) == Measured({"app": 3.0}, {}, {}, {})


def test_an_adopted_gateway_has_counted_before() -> None:
    counters = GatewayCounters(0.0, adopted=True)
    assert counters.measured(samples(1000.0), 1.0, ["app"], None) is NOTHING
    assert counters.measured(samples(1007.0), 2.0, ["app"], None).rates_rps == {"app": 7.0}


def test_requests_of_generations_are_counted_while_a_canary_is_in_progress() -> None:
    counters = GatewayCounters(0.0, adopted=False)
    found = [
        counters.measured(samples(0.0, requests), second, ["app"], watch).requests
        for second, requests, watch in (
            (1.0, 4.0, None),
            (2.0, 5.0, CANARY),
            (3.0, 9.0, CANARY),
            (4.0, 10.0, CANARY.ended(Verdict(True, "as good"))),
            (5.0, 20.0, CANARY),
        )
    ]
    assert [{key: one.requests for key, one in each.items()} for each in found] == [{}, {}, {("app", 2): 4.0}, {}, {}]
