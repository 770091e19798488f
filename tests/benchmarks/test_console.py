"""Smoke tests: every part of the benchmark of the web console returns its figures."""

import os

import pytest

from benchmarks import harness, system
from benchmarks.console.__main__ import PARTS, measure
from benchmarks.effort import SMOKE
from tests.fakes.console import browser

pytestmark = pytest.mark.slow

FIGURES = {"pages": "console.thousand_gpus_fps"}
"""Part -> one of its figures."""


def test_every_part_has_a_smoke_run() -> None:
    assert FIGURES.keys() == PARTS.keys()


@pytest.mark.parametrize("part", FIGURES)
def test_a_part_returns_its_figures(part: str) -> None:
    if part == "pages" and browser.find_browser() is None and not os.environ.get(browser.REQUIRED_VARIABLE):
        pytest.skip(browser.MISSING)
    found = system.run(measure(print, {part: PARTS[part]}, SMOKE), harness.limit_s("console"))
    assert FIGURES[part] in {figure.id for figure in found}
