"""Pages of the web console in Chromium, in front of a stand-in for the server (`tests/fakes/console`)."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.errors import MissingDependencyError
from tests.fakes.console import browser as browsers
from tests.fakes.console import states
from tests.fakes.console.server import FakeConsole

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = ("gpus", "graph", "load", "plan", "events", "logs", "traces")
GPUS = 1000
_WAIT_LIMIT_MS = 120_000
_WINDOWS = ({"width": 1360, "height": 900}, {"width": 390, "height": 844})

# A change of the text has been painted when the second frame after it begins.
_WATCH = """() => {
  window.painted = {};
  const element = document.querySelector('.generation');
  new MutationObserver(() => {
    const number = element.textContent.match(/\\d+/)[0];
    requestAnimationFrame(() => requestAnimationFrame(() => { window.painted[number] ??= Date.now(); }));
  }).observe(element, {childList: true, characterData: true, subtree: true});
}"""

_FRAMES = """(seconds) => new Promise((done) => {
  const times = [];
  const began = performance.now();
  const frame = (now) => {
    times.push(now);
    if (SCROLL) scrollBy(0, (now - began) % 4000 < 2000 ? 12 : -12);
    if (now - began < 1000 * seconds) requestAnimationFrame(frame);
    else done(times);
  };
  requestAnimationFrame(frame);
})"""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures the pages."""
    program = browsers.find_browser()
    if program is None:
        raise MissingDependencyError(browsers.MISSING, where="Chromium", hint="install it")
    return await asyncio.to_thread(_measure, progress, effort, program)


def _measure(progress: Progress, effort: Effort, program: Any) -> list[Figure]:
    with browsers.chromium(program) as browser:
        progress("bytes of the first load")
        figures = [_first_load(browser)]
        progress("updates")
        figures.append(_updates(browser, effort))
        progress(f"frames with {GPUS} GPUs")
        figures += _frames(browser, effort)
        progress("accessibility")
        figures.append(_accessibility(browser, PAGES[: effort.count(len(PAGES))]))
        return figures


@contextmanager
def _opened(browser: "Browser", console: FakeConsole, page: str, **context: Any) -> Iterator["Page"]:
    made = browser.new_context(**({"viewport": _WINDOWS[0]} | context))
    try:
        made.set_default_timeout(_WAIT_LIMIT_MS)
        found = made.new_page()
        found.goto(f"{console.url}#/{page}")
        found.get_by_role("heading", level=1).wait_for()
        yield found
    finally:
        made.close()


def _first_load(browser: "Browser") -> Figure:
    with (
        closing(FakeConsole(browsers.ASSETS, states.state())) as console,
        closing(browser.new_context()) as context,
    ):
        page = context.new_page()
        loaded = []
        page.on("requestfinished", lambda request: loaded.append(request))
        page.goto(console.url)
        page.get_by_role("heading", level=1).wait_for()
        files = [request for request in loaded if "/api/" not in request.url]
        sizes = [request.sizes() for request in files]
    total = sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)
    note = f"bodies and headers of {len(files)} files, compressed by gzip, as Chromium counts them"
    return figure("console.bytes", total / 1000, "kB", note, at_most=300)


def _updates(browser: "Browser", effort: Effort) -> Figure:
    with (
        closing(FakeConsole(browsers.ASSETS, states.state(120))) as console,
        _opened(browser, console, "gpus") as page,
    ):
        page.evaluate(_WATCH)
        pushed: dict[str, float] = {}
        pause = random.Random(1)
        for number in range(100, 100 + max(5, effort.count(100))):
            pushed[str(number)] = 1000 * time.time()
            console.patch({"deployment": {"generation": number}})
            page.wait_for_function("(n) => window.painted[n] !== undefined", arg=str(number))
            time.sleep(pause.uniform(0.01, 0.1))
        painted: dict[str, float] = page.evaluate("window.painted")
    delays = sorted(painted[number] - sent for number, sent in pushed.items())
    p95 = delays[int(0.95 * (len(delays) - 1))]
    note = f"{len(delays)} patches of a page with 120 GPUs, from the stand-in's send to the frame after the change"
    return figure("console.update_ms.pages", p95, "ms", note, at_most=500)


def _frames(browser: "Browser", effort: Effort) -> Iterator[Figure]:
    seconds = effort.seconds(10.0, least_s=2.0)
    with closing(FakeConsole(browsers.ASSETS, states.state(GPUS))) as console, _updating(console):
        for name, view, scroll in (("", "single", "true"), (".grouped", "alike", "false")):
            with _opened(browser, console, f"gpus?show={view}") as page:
                page.locator(".board").first.wait_for()
                times: list[float] = page.evaluate(_FRAMES.replace("SCROLL", scroll), seconds)
            gaps = sorted(after - before for before, after in pairwise(times))
            rate = 1000 * len(gaps) / (times[-1] - times[0])
            moving = "every GPU, scrolling" if view == "single" else "alike GPUs grouped"
            note = (
                f"{moving}; every worker of {GPUS} GPUs changes each second; "
                f"99% of the frames within {gaps[int(0.99 * (len(gaps) - 1))]:.0f} ms; software rendering"
            )
            yield figure(f"console.thousand_gpus_fps{name}", rate, "frames/s", note, at_least=30)


@contextmanager
def _updating(console: FakeConsole) -> Iterator[None]:
    """Changes the figures of all workers once a second inside the `with` block."""
    ended = threading.Event()

    def update() -> None:
        for turn in count():
            if ended.wait(1.0):
                return
            seed = random.Random(turn)
            changed = {
                name: {"models": [{**worker["models"][0], "measured": states.measured(seed)}]}
                for name, worker in console.state["workers"].items()
            }
            console.patch({"workers": changed})

    thread = threading.Thread(target=update, name="updates")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _accessibility(browser: "Browser", pages: Sequence[str]) -> Figure:
    faults: list[str] = []
    axe = browsers.AXE.read_text(encoding="utf-8")
    with closing(FakeConsole(browsers.ASSETS, states.state())) as console:
        for name in pages:
            for window, scheme in zip(_WINDOWS, ("light", "dark"), strict=True):
                with _opened(browser, console, name, viewport=window, color_scheme=scheme) as page:
                    # The data of the page may come after its heading.
                    page.wait_for_timeout(500)
                    page.evaluate(axe)
                    found = page.evaluate("axe.run({resultTypes: ['violations']})")
                    faults += [
                        f"{name}: {fault['id']}"
                        for fault in found["violations"]
                        if fault["impact"] in ("serious", "critical")
                    ]
    note = f"serious and critical faults that axe finds on {len(pages)} pages, wide and light, narrow and dark"
    return figure("console.axe_serious", len(faults), "faults", "; ".join([note, *faults]), at_most=0)
