import asyncio
from typing import cast

import pytest

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.watch import WATCH_S, ArrivalWatch
from tests.controller.counting_gateway import CountingGateway


async def _read(gateway: CountingGateway, needed: list[bool]) -> list[e.Arrived | None]:
    watch = ArrivalWatch(cast(Fleet, gateway))
    return [await watch.next(needed=need) for need in needed]


def counted(gateway: CountingGateway, needed: list[bool]) -> list[float | None]:
    events = asyncio.run(_read(gateway, needed))
    return [event.requests["app"] if event is not None else None for event in events]


def test_the_arrivals_between_two_readings_are_counted() -> None:
    first, second = asyncio.run(_read(CountingGateway(100.0, 130.0), [True, True]))
    assert first is None
    assert second is not None
    assert second.requests == {"app": 30.0}
    assert second.seconds == pytest.approx(WATCH_S, abs=0.5)


@pytest.mark.parametrize(
    ("gateway", "needed", "found"),
    [
        (CountingGateway(100.0, 130.0, 7.0), [True, True, True], [None, 30.0, 7.0]),
        (CountingGateway(100.0, None, 130.0, 140.0), [True] * 4, [None, None, None, 10.0]),
        (CountingGateway(100.0, 130.0, 140.0), [True, False, True, True], [None, None, None, 10.0]),
    ],
    ids=["a gateway that was restarted", "a gateway that did not answer", "a pause in which nothing was needed"],
)
def test_a_gap_starts_the_count_anew(gateway: CountingGateway, needed: list[bool], found: list[float | None]) -> None:
    assert counted(gateway, needed) == found
