import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from console.build import MODE_VARIABLE
from tests.fakes.console import browser as browsers
from tests.fakes.console import states
from tests.fakes.console.server import FakeConsole
from tests.fakes.console.states import Document
from tests.programs import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

WAIT_LIMIT_MS = 60_000
"""Milliseconds to wait for what a page shows, on a machine that may be busy."""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    program = browsers.find_browser()
    if program is None:
        missing("chromium", browsers.MISSING)
    if os.environ.get(MODE_VARIABLE) == "skip":
        pytest.skip(f"the console is left out, because {MODE_VARIABLE} is skip")
    if not (browsers.ASSETS / "index.html").is_file():
        pytest.fail("the console is not built: run `make setup` or `python -m console.build`")
    with browsers.chromium(program) as found:
        yield found


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeConsole]]:
    """Provides a function that starts a console with a state."""
    with ExitStack() as running:

        def start(state: Document | None = None, *, allow_changes: bool = False) -> FakeConsole:
            found = FakeConsole(browsers.ASSETS, state or states.state(), allow_changes=allow_changes)
            running.enter_context(closing(found))
            return found

        yield start


@pytest.fixture
def console(serve: Callable[..., FakeConsole]) -> FakeConsole:
    return serve()


class Problems(list[str]):
    """Messages of the browser's console that a page must not cause, and errors of its scripts."""

    def add(self, message: "ConsoleMessage") -> None:
        if message.type == "error":
            self.append(message.text)


@pytest.fixture
def opened(browser: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Provides a function that opens a page of a console. A page whose scripts fail fails the test."""
    with ExitStack() as contexts:
        problems = Problems()

        def open_page(console: FakeConsole, page: str = "gpus", *, phone: bool = False, dark: bool = False) -> "Page":
            size = {"width": 390, "height": 844} if phone else {"width": 1360, "height": 900}
            context = browser.new_context(
                viewport={"width": size["width"], "height": size["height"]},
                color_scheme="dark" if dark else "light",
                has_touch=phone,
                reduced_motion="reduce",
                # Scripts of a test, such as axe, are no part of the page that the policy is for.
                bypass_csp=False,
            )
            contexts.callback(context.close)
            context.set_default_timeout(WAIT_LIMIT_MS)
            found = context.new_page()
            found.on("pageerror", lambda error: problems.append(str(error)))
            found.on("console", problems.add)
            found.goto(f"{console.url}#/{page}")
            found.get_by_role("heading", level=1).wait_for()
            return found

        yield open_page
    # A connection that a test ends is reported by the browser, too.
    assert [text for text in problems if "net::ERR" not in text and "401" not in text] == []
