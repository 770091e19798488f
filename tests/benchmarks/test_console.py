"""Smoke tests: every part of the benchmark of the web console returns its figures."""

import pytest

from benchmarks.console.__main__ import PARTS, measure
from benchmarks.effort import SMOKE
from tests.fakes.console import browser
from tests.programs import missing

pytestmark = pytest.mark.e2e

FIGURES = {"pages": "console.thousand_gpus_fps", "what_if": "console.whatif_s", "cost": "console.cost"}
"""Part -> one of its figures."""


def test_every_part_has_a_smoke_run() -> None:
    assert FIGURES.keys() == PARTS.keys()


@pytest.mark.parametrize("part", FIGURES)
def test_a_part_returns_its_figures(part: str) -> None:
    if part == "pages" and browser.find_browser() is None:
        missing("chromium", browser.MISSING)
    found = measure(print, {part: PARTS[part]}, SMOKE)
    assert FIGURES[part] in {figure.id for figure in found}
