"""Smoke tests: every part of the controller's benchmark starts, loads its servers, and returns its figures."""

import pytest

from benchmarks import a100, harness, system
from benchmarks.controller.__main__ import PARTS
from benchmarks.effort import SMOKE
from benchmarks.parts import measure

pytestmark = pytest.mark.e2e

FIGURES = {
    "burst": "controller.burst_reaction_s",
    "changes": "controller.update_failed",
    "replans": "controller.replans_2_under_load.mixed",
    "cycle": "controller.cycle_s.block",
    "kills": "controller.kills_1.lost",
    "takeover": "controller.gateway_back_s",
    "swap": "controller.swap_s",
    "soak": "controller.soak.descriptors",
    "simulated": "controller.flapping",
    "forecasts": "controller.forecast.twitter_1s.highest_60",
    "rehearsed": "controller.rehearse_gap.steady",
    "twitter": "controller.twitter.regret",
}
"""Part -> one of its figures."""


def test_every_part_has_a_smoke_run() -> None:
    assert FIGURES.keys() == PARTS.keys()


@pytest.mark.parametrize("part", FIGURES)
def test_a_part_returns_its_figures(part: str) -> None:
    if part in ("simulated", "forecasts", "rehearsed", "twitter") and not a100.TABLE.exists():
        pytest.skip("the A100 table and the traces are not beside the checkout")
    found = system.run(measure(print, {part: PARTS[part]}, SMOKE), harness.limit_s("controller"))
    assert FIGURES[part] in {figure.id for figure in found}
