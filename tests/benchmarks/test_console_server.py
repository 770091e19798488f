import asyncio

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.console import server
from benchmarks.console.__main__ import PARTS
from benchmarks.effort import SMOKE


def test_the_server_of_the_console_is_among_the_benchmarks() -> None:
    assert NAMES.count("console") == 1
    assert "server" in PARTS


@pytest.mark.slow
def test_the_time_of_what_if_plans_is_measured() -> None:
    found = asyncio.run(server.what_if(lambda _: None, SMOKE, gpus=4))
    assert (found.id, found.unit, found.goal) == ("console.whatif_s", "s", "<= 1")
    assert "largest of 5 on 4 GPUs" in found.note


@pytest.mark.e2e
def test_the_cost_of_open_pages_is_measured() -> None:
    whole, controller = asyncio.run(server.cost(lambda _: None, SMOKE))
    assert (whole.id, whole.goal, controller.id) == ("console.cost", "<= 0.05", "console.cost.controller")
    assert "5 pages over none" in whole.note
