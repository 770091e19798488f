"""Chromium for the tests and benchmarks of the web console's pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from console.build import PLACE, ROOT
from jigsaw_triton.servers.checks import BROWSERS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ASSETS = ROOT / PLACE
AXE = ROOT / "console" / "node_modules" / "axe-core" / "axe.min.js"
MISSING = "no Chromium is installed (Debian, Ubuntu: apt-get install chromium)"


def find_browser() -> Path | None:
    """Returns the installed Chromium or Chrome; None if there is none."""
    return next((Path(path) for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def chromium(program: Path) -> Iterator["Browser"]:
    """Runs a headless browser inside the `with` block."""
    # The driver is a package of its own, which only these tests need.
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()
