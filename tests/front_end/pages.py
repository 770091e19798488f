"""Waits for what an open page shows, and its faults of accessibility."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.fakes.console.browser import AXE
from tests.fakes.console.server import FakeConsole
from tests.front_end.conftest import WAIT_LIMIT_MS

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Serve = Callable[..., FakeConsole]
Open = Callable[..., "Page"]


def shows(page: "Page", text: str | re.Pattern[str]) -> "Locator":
    found = page.get_by_text(text).first
    found.wait_for()
    return found


def eventually(page: "Page", script: str) -> None:
    """Waits until an expression in the page is true."""
    # A bare expression would be evaluated in the page, where the policy forbids that.
    page.wait_for_function(f"() => {script}", timeout=WAIT_LIMIT_MS)


def serious(page: "Page") -> list[str]:
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {node['html']} {node['failureSummary']}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
