import asyncio

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.console import server, updates
from benchmarks.console.__main__ import PARTS
from benchmarks.console.deployed import deployed
from benchmarks.effort import SMOKE
from benchmarks.harness import Figure
from tests.fakes.console import browser
from tests.programs import missing


def progress(_: str) -> None:
    pass


def test_the_server_of_the_console_is_among_the_benchmarks() -> None:
    assert NAMES.count("console") == 1
    assert {"server", "updates"} <= PARTS.keys()


@pytest.mark.slow
def test_the_time_of_what_if_plans_is_measured() -> None:
    found = asyncio.run(server.what_if(lambda _: None, SMOKE, gpus=4))
    assert (found.id, found.unit, found.goal) == ("console.whatif_s", "s", "<= 1")
    assert "largest of 5 on 4 GPUs" in found.note


@pytest.mark.e2e
def test_what_open_pages_cost_and_when_they_show_a_change_is_measured() -> None:
    if browser.find_browser() is None:
        missing("chromium", browser.MISSING)

    async def measure() -> tuple[list[Figure], Figure]:
        async with deployed(2 * server.RPS, pages=True) as found:
            return await server.cost_of(found, progress, SMOKE), await updates.update_of(found, progress, SMOKE)

    (whole, controller), update = asyncio.run(measure())
    assert (whole.id, whole.goal, controller.id) == ("console.cost", "<= 0.05", "console.cost.controller")
    assert "5 pages over none" in whole.note
    assert (update.id, update.unit, update.goal) == ("console.update_ms", "ms", "<= 500")
    assert update.value > 0
