"""`python -m docs.screenshots`: takes the screenshots of the web console, of a deployment under load.

The tritonservers, the clients, the controller and the console are real. MIG and the times of the models are emulated.
It takes about two minutes, and needs Chromium and Pillow.
"""

import io
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import tritonclient.grpc as grpc
from PIL import Image

from demo.__main__ import free_ports
from tests.fakes.console.browser import MISSING, chromium, find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

FOLDER = Path(__file__).parent / "images" / "console"

APP, INPUT = "traffic", "FRAME"
FRAME_SHAPE = (1, 640, 640, 3)
GPUS = "2xH100-80GB"
DEMAND_RPS, MORE_RPS = 250, 500
"""Requests a second to plan for, first and later: the first plan fills a GPU, the second one takes the other too."""

LOAD_RPS = 25.0
"""Requests a second that are sent. Two processors carry more, but not what the emulated GPUs would."""

BEFORE_S, AFTER_S = 20.0, 20.0
LAST_ANSWER_S = 10.0
WAIT_LIMIT_MS = 120_000
WINDOW: "ViewportSize" = {"width": 1180, "height": 820}
PHONE: "ViewportSize" = {"width": 390, "height": 720}
WIDE: "ViewportSize" = {"width": 1360, "height": 820}
"""Sizes in pixels."""

COLOURS = 128
OLD_ENOUGH = 9
"""Index of the latest trace that may be shown, from the latest one of all."""

_CHANGING = """() => document.querySelector(".change")?.textContent.includes("requested by the user")
  && document.querySelector(".piece.is-creating")"""
"""Condition that the change that was asked for is in progress, and that a slice is being created."""


class Clients:
    """Standard Triton clients that send frames as Poisson arrivals inside the `with` block.

    Args:
        address: Address of the gateway.
    """

    def __init__(self, address: str) -> None:
        self.sent = 0
        self.errors: list[str] = []
        """Text of each answer's error; empty for an answer without one."""
        self._address = address
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def __str__(self) -> str:
        failed = [error for error in self.errors if error]
        return f"{self.sent} requests, {len(self.errors)} answers, {len(failed)} failed {failed[:1]}"

    def _send(self) -> None:
        frame = grpc.InferInput(INPUT, list(FRAME_SHAPE), "UINT8")
        frame.set_data_from_numpy(np.zeros(FRAME_SHAPE, np.uint8))
        pauses = random.Random(1)
        with closing(grpc.InferenceServerClient(self._address)) as client:
            while not self._stopped.wait(pauses.expovariate(LOAD_RPS)):
                self.sent += 1
                client.async_infer(APP, [frame], self._answered, request_id=f"frame-{self.sent}")
            give_up_at = time.monotonic() + LAST_ANSWER_S
            while len(self.errors) < self.sent and time.monotonic() < give_up_at:
                time.sleep(0.1)

    def _answered(self, result: object, error: Exception | None) -> None:
        self.errors.append("" if error is None else str(error))


class Camera:
    """Takes screenshots of the console.

    Args:
        browser: Browser.
        url: URL that opens the console, once.
    """

    def __init__(self, browser: "Browser", url: str) -> None:
        self._browser = browser
        self._origin = url.partition("/login")[0]
        with closing(browser.new_context()) as context:
            context.new_page().goto(url)
            self._signed_in = context.storage_state()

    @contextmanager
    def page(self, name: str, size: "ViewportSize" = WINDOW, *, dark: bool = False) -> Iterator["Page"]:
        """Opens a page of the console inside the `with` block."""
        context = self._browser.new_context(
            storage_state=self._signed_in,
            viewport=size,
            color_scheme="dark" if dark else "light",
            has_touch=size == PHONE,
            device_scale_factor=2 if size == PHONE else 1,
            reduced_motion="reduce",
        )
        with closing(context):
            context.set_default_timeout(WAIT_LIMIT_MS)
            page = context.new_page()
            page.goto(f"{self._origin}/#/{name}")
            page.get_by_role("heading", level=1).wait_for()
            yield page

    def take(self, page: "Page", name: str, last: str = "") -> None:
        """Writes a screenshot with few colours, which are enough for the console.

        Args:
            page: Page of the console.
            name: Name of the file.
            last: Selector of the element with which the screenshot ends; empty for the whole window.
        """
        wide, high = page.evaluate("() => [innerWidth, innerHeight]")
        if last and (box := page.locator(last).bounding_box()) is not None:
            high = box["y"] + box["height"] + 20
        taken = page.screenshot(clip={"x": 0, "y": 0, "width": wide, "height": high})
        shot = Image.open(io.BytesIO(taken)).convert("RGB")
        path = FOLDER / f"{name}.png"
        shot.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.name}: {shot.width}x{shot.height}, {path.stat().st_size / 1000:.0f} kB", flush=True)


def run(*words: object, folder: Path) -> str:
    """Runs a command in a folder that also has the state. Returns what it prints on stderr.

    Raises:
        SystemExit: The command failed.
    """
    command = [sys.executable, "-m", "jigsaw_triton.cli.main", *map(str, words)]
    environment = {**os.environ, "JIGSAW_STATE": str(folder / APP)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"jigsaw-triton {words[0]} ended with {done.returncode}:\n{done.stderr}")
    return done.stderr


def photograph(camera: Camera, change: Callable[[], object]) -> None:
    """Takes all screenshots.

    Args:
        camera: Camera.
        change: Begins a change of the plan.
    """
    time.sleep(BEFORE_S)
    with camera.page("graph") as page:
        # A task has figures only after its first calls.
        page.get_by_role("row", name=re.compile(r"^detect .* ms .* ms ")).wait_for()
        camera.take(page, "graph")
    with camera.page("gpus") as page:
        page.locator(".piece").first.wait_for()
        page.locator(".change").wait_for(state="detached")
        change()
        page.wait_for_function(_CHANGING)
        camera.take(page, "gpus", last=".boards")
        page.locator(".change").wait_for(state="detached")
    time.sleep(AFTER_S)
    with camera.page("gpus", PHONE) as page:
        # Slices show their load once there are measurements.
        page.locator(".piece:has(.piece-load)").first.click()
        page.get_by_role("dialog").wait_for()
        page.locator(".legend").evaluate("(legend) => scrollBy(0, legend.getBoundingClientRect().top - 70)")
        camera.take(page, "phone")
    with camera.page("load", dark=True) as page:
        page.get_by_role("button", name="5 min", exact=True).click()
        page.get_by_role("button", name=re.compile("eneration 2")).click()
        page.get_by_text("Events of generation 2").wait_for()
        camera.take(page, "load")
    with camera.page("plan") as page:
        slider = page.get_by_role("slider").first
        slider.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        page.locator('.whatif-result[aria-busy="false"] .stats').wait_for()
        camera.take(page, "plan")
    with camera.page("events") as page:
        page.get_by_text("newest first").wait_for()
        camera.take(page, "events")
    with camera.page("logs?server=controller", dark=True) as page:
        page.locator(".log").wait_for()
        camera.take(page, "logs")
    with camera.page("traces", WIDE) as page:
        # The latest requests are not answered yet. Of the answered ones, the slowest shows most.
        page.locator(".trace-list button").nth(OLD_ENOUGH).wait_for()
        taken_ms = [float(text.split()[0]) for text in page.locator(".trace-list b").all_inner_texts()]
        longest = max(range(OLD_ENOUGH, len(taken_ms)), key=lambda index: taken_ms[index])
        page.locator(".trace-list button").nth(longest).click()
        page.locator(".waterfall").wait_for()
        camera.take(page, "traces")


def main() -> None:
    """Deploys, sends load, takes the screenshots, and takes everything down."""
    program = find_browser()
    if program is None:
        sys.exit(MISSING)
    with TemporaryDirectory() as temporary, chromium(program) as browser:
        folder = Path(temporary)
        http, grpc_port, metrics, console = free_ports((8000, 8001, 8002, 8080))
        ports = ("--http", http, "--grpc", grpc_port, "--metrics", metrics, "--console", console)

        def deploy(demand: int, *words: object) -> str:
            given = ("--gpus", GPUS, "--driver", "emulated", "--demand", demand)
            return run("deploy", "app", *given, *ports, *words, folder=folder)

        run("init", "app", "--from", APP, folder=folder)
        try:
            (url,) = re.findall(r"web console: (\S+)", deploy(DEMAND_RPS, "--detach"))
            camera = Camera(browser, url)
            with Clients(f"127.0.0.1:{grpc_port}") as clients:
                photograph(camera, lambda: deploy(MORE_RPS, "--no-wait", "--yes"))
            print(clients)
        finally:
            run("down", folder=folder)


if __name__ == "__main__":
    main()
