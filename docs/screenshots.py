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
from collections.abc import Iterator
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
    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).parent / "images" / "console"

GRAPHS = {"traffic": "FRAME", "ar": "VIEW"}
"""Ready application -> its input, a frame of `FRAME_SHAPE`."""

FRAME_SHAPE = (1, 640, 640, 3)
GPUS = "2xH100-80GB"
DEMAND_RPS = {"traffic": 15.0, "ar": 15.0}
USUAL_RPS = {"traffic": 12.0, "ar": 8.0}
RAISED_RPS = {"traffic": 30.0, "ar": 8.0}
"""Load above what is planned, so that the controller plans again."""

BEFORE_S, AFTER_S = 25.0, 20.0
PATIENCE_MS = 60_000
WIDTH, HEIGHT = 1180, 820
"""Window, in pixels. A screenshot is as high as the page, and at most so high."""

PHONE = {"width": 390, "height": 720}
COLOURS = 128


class Clients:
    """Standard Triton clients that send frames as Poisson arrivals, until they are stopped.

    Args:
        address: Address of the gateway.
        rates_rps: Requests a second of each graph, which may be changed.
    """

    def __init__(self, address: str, rates_rps: dict[str, float]) -> None:
        self.rates_rps = rates_rps
        self.sent = dict.fromkeys(rates_rps, 0)
        self.failed: list[str] = []
        self._address = address
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(name,)) for name in rates_rps]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _send(self, graph: str) -> None:
        random_ = random.Random(graph)
        frame = grpc.InferInput(GRAPHS[graph], list(FRAME_SHAPE), "UINT8")
        frame.set_data_from_numpy(np.zeros(FRAME_SHAPE, np.uint8))
        with closing(grpc.InferenceServerClient(self._address)) as client:
            while not self._stopped.wait(random_.expovariate(self.rates_rps[graph])):
                self.sent[graph] += 1
                client.async_infer(graph, [frame], self._answered, request_id=f"{graph}-{self.sent[graph]}")

    def _answered(self, result: object, error: Exception | None) -> None:
        if error is not None:
            self.failed.append(str(error))


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
    def page(self, name: str, *, dark: bool = False, phone: bool = False) -> Iterator["Page"]:
        """Opens a page of the console inside the `with` block."""
        context = self._browser.new_context(
            storage_state=self._signed_in,
            viewport=PHONE if phone else {"width": WIDTH, "height": HEIGHT},
            color_scheme="dark" if dark else "light",
            has_touch=phone,
            device_scale_factor=2 if phone else 1,
            reduced_motion="reduce",
        )
        with closing(context):
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            page.goto(f"{self._origin}/#/{name}")
            page.get_by_role("heading", level=1).wait_for()
            yield page

    def take(self, page: "Page", name: str) -> None:
        """Writes a screenshot with few colours, which are enough for the console."""
        wide, high = page.evaluate("[innerWidth, Math.min(innerHeight, document.documentElement.scrollHeight)]")
        taken = page.screenshot(clip={"x": 0, "y": 0, "width": wide, "height": high})
        shot = Image.open(io.BytesIO(taken)).convert("RGB")
        path = FOLDER / f"{name}.png"
        shot.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.name}: {shot.width}x{shot.height}, {path.stat().st_size / 1000:.0f} kB", flush=True)


def run(*words: str, folder: Path) -> str:
    """Runs a command in a folder that also has the state. Returns what it prints on stderr.

    Raises:
        SystemExit: The command failed.
    """
    command = [sys.executable, "-m", "jigsaw_triton.cli.main", *words]
    environment = {**os.environ, "JIGSAW_STATE": str(folder / "state")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"jigsaw-triton {words[0]} ended with {done.returncode}:\n{done.stderr}")
    return done.stderr


def photograph(camera: Camera, clients: Clients) -> None:
    """Takes all screenshots, while the load rises and the plan follows."""
    time.sleep(BEFORE_S)
    with camera.page("graph") as page:
        page.get_by_text("critical path").first.wait_for()
        camera.take(page, "graph")
    with camera.page("gpus") as page:
        page.get_by_role("button", name=re.compile("slice")).first.wait_for()
        clients.rates_rps |= RAISED_RPS
        page.locator(".change").wait_for()
        page.get_by_text("loading").first.wait_for()
        camera.take(page, "gpus")
        page.locator(".change").wait_for(state="detached")
    time.sleep(AFTER_S)
    with camera.page("gpus", phone=True) as page:
        page.get_by_role("button", name=re.compile("slice")).nth(1).click()
        page.get_by_role("dialog").wait_for()
        camera.take(page, "phone")
    with camera.page("load", dark=True) as page:
        page.get_by_role("button", name="5 min").click()
        page.get_by_role("button", name=re.compile("^2")).first.click()
        page.wait_for_timeout(1000)
        camera.take(page, "load")
    with camera.page("plan") as page:
        slider = page.get_by_role("slider").first
        slider.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        page.get_by_text(re.compile("more|fewer")).first.wait_for()
        camera.take(page, "plan")
    for name, dark in (("events", False), ("logs", True), ("traces", False)):
        with camera.page(name, dark=dark) as page:
            page.wait_for_timeout(1500)
            camera.take(page, name)


def main() -> None:
    """Deploys, sends load, takes the screenshots, and takes everything down."""
    program = find_browser()
    if program is None:
        sys.exit(MISSING)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary, chromium(program) as browser:
        folder = Path(temporary)
        http, grpc_port, metrics, console = free_ports((8000, 8001, 8002, 8080))
        for name in GRAPHS:
            run("init", name, "--from", name, folder=folder)
        demand = ",".join(f"{name}={rps:g}" for name, rps in DEMAND_RPS.items())
        ports = f"--http {http} --grpc {grpc_port} --metrics {metrics} --console {console}".split()
        where = f"--gpus {GPUS} --driver emulated --demand {demand}".split()
        try:
            said = run("deploy", *GRAPHS, *where, *ports, "--detach", folder=folder)
            (url,) = re.findall(r"web console: (\S+)", said)
            with Clients(f"127.0.0.1:{grpc_port}", dict(USUAL_RPS)) as clients:
                photograph(Camera(browser, url), clients)
            print(
                f"{sum(clients.sent.values())} requests were sent, {len(clients.failed)} failed: {clients.failed[:1]}"
            )
        finally:
            run("down", folder=folder)


if __name__ == "__main__":
    main()
