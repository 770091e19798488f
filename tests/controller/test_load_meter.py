import asyncio
from typing import cast

import pytest

from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.load_meter import LoadMeter, LoadRecorder
from jigsaw_triton.controller.persistence.load_history import LoadHistory
from jigsaw_triton.servers.metrics import Sample
from tests.controller.counting_gateway import CountingGateway
from tests.controller.worlds import bundle, generation, worker

RUNNING = generation(bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a"))]))
STATE = State(wanted=RUNNING.wanted, running=RUNNING)


def test_each_reading_but_the_first_is_a_sample() -> None:
    history = LoadHistory()
    recorder = LoadRecorder(history)
    recorder.record([Sample("jigsaw_arrivals_total", {"graph": "app"}, 100.0)], STATE)
    assert history.after(0.0) == []
    recorder.record([Sample("jigsaw_arrivals_total", {"graph": "app"}, 103.0)], STATE)
    (sample,) = history.after(0.0)
    assert sample["graphs"]["app"]["arrivals_rps"] > 0
    recorder.record([Sample("jigsaw_arrivals_total", {"graph": "app"}, 103.0)], STATE)
    assert history.after(0.0)[-1]["graphs"]["app"]["arrivals_rps"] == 0


def test_answers_are_added_up_for_the_energy_of_each() -> None:
    history = LoadHistory()
    recorder = LoadRecorder(history)
    for total in (100.0, 103.0, 110.0):
        recorder.record([Sample("jigsaw_slo_total", {"graph": "app", "outcome": "met"}, total)], STATE, 2.5)
    assert recorder.served == pytest.approx(10.0)
    assert history.after(0.0)[-1]["joules_per_request"] == 2.5


async def _rates(meter: LoadMeter, states: list[State]) -> list[float | None]:
    return [(await meter.tick(state, None)).rates_rps.get("app") for state in states]


@pytest.mark.parametrize("adopted", [False, True])
def test_arrivals_are_counted_from_one_answer_of_the_gateway_to_the_next(adopted: bool) -> None:
    meter = LoadMeter(cast(Fleet, CountingGateway(100.0, None, 100.0, 130.0)), LoadHistory(), adopted=adopted)
    first, unanswered, none, some = asyncio.run(_rates(meter, [STATE] * 4))
    assert (first is None) == adopted
    assert unanswered is None
    assert none == 0
    assert some is not None and some > 0
    assert meter.last.rates_rps == {"app": some}


def test_nothing_is_measured_while_no_generation_serves() -> None:
    meter = LoadMeter(cast(Fleet, CountingGateway(100.0)), LoadHistory(), adopted=False)
    assert asyncio.run(_rates(meter, [State(), STATE]))[0] is None
    assert meter.last.rates_rps["app"] > 0
