import pytest

from benchmarks import console
from benchmarks.__main__ import NAMES
from benchmarks.effort import SMOKE


def test_the_console_is_among_the_benchmarks() -> None:
    assert "console" in NAMES


@pytest.mark.slow
def test_the_time_of_what_if_plans_is_measured() -> None:
    found = console.what_if(SMOKE, gpus=4, progress=lambda _: None)
    assert (found.id, found.unit, found.goal) == ("console.whatif_s", "s", "<= 1")
    assert "largest of 5 on 4 GPUs" in found.note


@pytest.mark.e2e
def test_the_cost_of_open_pages_is_measured() -> None:
    whole, controller = console.cost(SMOKE, progress=lambda _: None)
    assert (whole.id, whole.goal, controller.id) == ("console.cost", "<= 0.05", "console.cost.controller")
    assert "5 pages over none" in whole.note
