"""Time from a change in the controller until Chromium has painted it, with the console's process in between."""

import asyncio
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.console.deployed import Deployed, deployed
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.console.client import ControllerClient
from jigsaw_triton.errors import MissingDependencyError
from tests.fakes.console import browser as browsers

if TYPE_CHECKING:
    from playwright.sync_api import Page

GOAL_MS = 500
CHANGES = 100
SEED = 7
_WAIT_LIMIT_MS = 120_000
_DEMAND_RPS = 5.0

# A change of the text has been painted when the second frame after it begins.
_WATCH = """() => {
  const element = document.querySelector('.facts');
  const paused = () => element.textContent.includes('paused');
  window.painted = [];
  let last = paused();
  new MutationObserver(() => {
    if (paused() === last) return;
    last = !last;
    requestAnimationFrame(() => requestAnimationFrame(() => window.painted.push(Date.now())));
  }).observe(element, {childList: true, characterData: true, subtree: true});
}"""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures the updates of a deployment's console."""
    async with deployed(_DEMAND_RPS, pages=True) as found:
        return [await update_of(found, progress, effort)]


async def update_of(found: Deployed, progress: Progress, effort: Effort) -> Figure:
    """Pauses and resumes the controller of a deployment again and again, and measures when a page shows it."""
    program = browsers.find_browser()
    if program is None:
        raise MissingDependencyError(browsers.MISSING, where="Chromium", hint="install it")
    progress("updates from the controller to the pixel")
    delays_ms = sorted(await asyncio.to_thread(_delays_ms, found, program, max(5, effort.count(CHANGES))))
    p95, median = (delays_ms[int(share * (len(delays_ms) - 1))] for share in (0.95, 0.5))
    note = (
        f"{len(delays_ms)} pauses and resumptions of a controller, from the request to the frame after the change; "
        f"median {median:.0f}, largest {delays_ms[-1]:.0f}"
    )
    return figure("console.update_ms", p95, "ms", note, at_most=GOAL_MS)


def _delays_ms(found: Deployed, program: Path, count: int) -> list[float]:
    controller, pause = ControllerClient(found.deployment.paths.control_socket), random.Random(SEED)
    with browsers.chromium(program) as browser:
        page = browser.new_page()
        page.set_default_timeout(_WAIT_LIMIT_MS)
        page.goto(found.url())
        page.get_by_text("serving").first.wait_for()
        page.evaluate(_WATCH)
        return [_delay_ms(page, controller, number, pause) for number in range(count)]


def _delay_ms(page: "Page", controller: ControllerClient, number: int, pause: random.Random) -> float:
    # Changes come at any time between two questions of the console to the controller.
    time.sleep(pause.uniform(0.0, 1.5))
    sent_ms = 1000 * time.time()
    controller.pause(number % 2 == 0)
    page.wait_for_function("(n) => window.painted.length > n", arg=number)
    painted_ms: float = page.evaluate("(n) => window.painted[n]", number)
    return painted_ms - sent_ms
