"""Smoke test: the pages of the web console are measured."""

import pytest

from benchmarks import harness, system
from benchmarks.console.__main__ import PARTS
from benchmarks.effort import SMOKE
from benchmarks.parts import measure
from tests.fakes.console import browser
from tests.programs import missing

pytestmark = pytest.mark.slow


def test_the_pages_are_measured() -> None:
    if browser.find_browser() is None:
        missing("chromium", browser.MISSING)
    found = system.run(measure(print, {"pages": PARTS["pages"]}, SMOKE), harness.limit_s("console"))
    assert {figure.id for figure in found} == {
        "console.axe_serious",
        "console.bytes",
        "console.thousand_gpus_fps",
        "console.thousand_gpus_fps.grouped",
        "console.update_ms.pages",
    }
