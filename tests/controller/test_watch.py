import asyncio
from typing import cast

import pytest

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.watch import WATCH_S, ArrivalWatch
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.metrics import Sample


class Gateway:
    """A fleet with a gateway whose counter of arrivals has these values, one after the other; None is no answer."""

    def __init__(self, *counts: float | None) -> None:
        self._counts = list(counts)
        self.client = self

    def server(self, _: str) -> "Gateway":
        return self

    async def metrics(self, _: tuple[str, ...]) -> list[Sample]:
        count = self._counts.pop(0)
        if count is None:
            raise ServerError("it does not answer")
        return [Sample("jigsaw_arrivals_total", {"graph": "app"}, count)]


async def _read(gateway: Gateway, needed: list[bool]) -> list[e.Arrived | None]:
    watch = ArrivalWatch(cast(Fleet, gateway))
    return [await watch.next(needed=need) for need in needed]


def counted(gateway: Gateway, needed: list[bool]) -> list[float | None]:
    events = asyncio.run(_read(gateway, needed))
    return [event.requests["app"] if event is not None else None for event in events]


def test_the_arrivals_between_two_readings_are_counted() -> None:
    first, second = asyncio.run(_read(Gateway(100.0, 130.0), [True, True]))
    assert first is None
    assert second is not None
    assert second.requests == {"app": 30.0}
    assert second.seconds == pytest.approx(WATCH_S, abs=0.5)


@pytest.mark.parametrize(
    ("gateway", "needed", "found"),
    [
        (Gateway(100.0, 130.0, 7.0), [True, True, True], [None, 30.0, 7.0]),
        (Gateway(100.0, None, 130.0, 140.0), [True] * 4, [None, None, None, 10.0]),
        (Gateway(100.0, 130.0, 140.0), [True, False, True, True], [None, None, None, 10.0]),
    ],
    ids=["a gateway that was restarted", "a gateway that did not answer", "a pause in which nothing was needed"],
)
def test_a_gap_starts_the_count_anew(gateway: Gateway, needed: list[bool], found: list[float | None]) -> None:
    assert counted(gateway, needed) == found
