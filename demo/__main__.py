"""`python -m demo`: the main job on real input, from an empty machine to a hot swap under load, and back to nothing.

`python -m demo nvml-standin` walks the same way with the driver of real GPUs, on a stand-in for NVIDIA's library.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from demo.gpus import EmulatedGpus, Gpus, StandInGpus
from demo.load import Load, ask, ask_strip, connect, sending
from jigsaw_triton.controller.paths import deployment_paths
from jigsaw_triton.servers.command import shm_prefix

ROOT = Path(__file__).parent.parent
WORK = ROOT / ".demo"
APP = WORK / "docread"
STRIPS = WORK / "digits-strip"
DEMAND_RPS = 1.0
STRIPS_RPS = 2.0
USUAL_RPS = 0.6
RAISED_RPS = 3.2
"""Pages a second: planned for, mostly there, and more than the plan can carry; and strips a second. The models really
run, on this machine's processor: two cores read a few pages a second."""

PAGES = 8
LINES_SHOWN = 2
CHANGE_TIMEOUT_S = 90.0
AFTER_SWAP_S = 5.0

MACHINES: dict[str, Callable[[Path], Gpus]] = {"emulated": EmulatedGpus, "nvml-standin": StandInGpus}

ENV = {**os.environ, "JIGSAW_STATE": str(WORK / "state"), "PYTHONUNBUFFERED": "1"}


class DemoFailedError(Exception):
    """A step did not show what it should."""


def step(text: str) -> None:
    """Says what comes next."""
    bold = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold[0]}## {text}{bold[1]}", flush=True)


def command(*args: str) -> list[str]:
    """Shows a command as a user would type it; its form for a process."""
    print(f"$ jigsaw-triton {' '.join(args)}", flush=True)
    return [sys.executable, "-m", "jigsaw_triton.cli.main", *args]


def run(*args: str, check: bool = True) -> int:
    """Runs a command; what it prints is seen.

    Raises:
        DemoFailedError: It failed and `check` is set.
    """
    status = subprocess.run(command(*args), env=ENV, cwd=WORK).returncode
    if check and status != 0:
        raise DemoFailedError(f"jigsaw-triton {args[0]} ended with {status}")
    return status


def asked(*args: str) -> Any:
    """The JSON that a command prints."""
    argv = [sys.executable, "-m", "jigsaw_triton.cli.main", *args, "-o", "json"]
    return json.loads(subprocess.run(argv, env=ENV, cwd=WORK, check=True, capture_output=True, text=True).stdout)


def free_ports(wanted: Sequence[int]) -> list[int]:
    """These ports where they are free, else others that are."""
    ports = []
    for port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    return ports


def page_renderer() -> ModuleType:
    """The application's own module that renders pages with known text."""
    sys.path.insert(0, str(APP))
    return import_module("pages")


def read_pages(addresses: dict[str, str]) -> list[Any]:
    """Reads rendered pages over HTTP and gRPC and shows the text beside the truth; returns the images."""
    rendered = [page_renderer().render(seed, flavour) for seed in range(PAGES // 2) for flavour in ("easy", "hard")]
    total = exact = 0
    for number, page in enumerate(rendered):
        # No faster than is planned for: more would be load, which the controller follows.
        time.sleep(1 / USUAL_RPS)
        protocol = ("http", "grpc")[number % 2]
        answer = ask(connect(protocol, addresses[protocol]), protocol, page.image)
        boxes, texts = answer.as_numpy("BOXES")[0], [text.decode() for text in answer.as_numpy("TEXT")[0, :, 0]]
        read = [text_at(line.box, boxes, texts) for line in page.lines]
        right = [line.text == text for line, text in zip(page.lines, read, strict=True)]
        total += len(right)
        exact += sum(right)
        print(f"page {number} over {protocol}: {sum(right)} of {len(right)} lines exactly right, beginning with")
        for line, text in list(zip(page.lines, read, strict=True))[:LINES_SHOWN]:
            print(f"   truth {line.text}\n   read  {text}")
    print(f"all pages: {exact / total:.3f} of {total} lines are read without a mistake")
    return [page.image for page in rendered]


def make_ensemble(app: Path) -> None:
    """Edits an application, as a user would, so that it is compiled to a native Triton ensemble."""
    graph = app / "graph.yaml"
    graph.write_text(graph.read_text().replace("\nspec:\n", "\nspec:\n  target: ensemble\n", 1))
    print(f"edited {app.name}/graph.yaml: target: ensemble")


def compare_targets(address: str) -> None:
    """Shows the models of both applications at the gateway, and has the ensemble read its golden strip.

    Raises:
        DemoFailedError: The models are not what was asked for, or the answer is wrong.
    """
    client = connect("http", address)
    page = client.get_model_config("docread")
    tasks = len(asked("status")["plan"]["graphs"]["docread"]["tasks"])
    print(f"docread: backend {page['backend']}, a front that carries out the whole graph of {tasks} tasks")
    strip = client.get_model_config("digits-strip")
    if page["backend"] != "jigsaw" or strip.get("platform") != "ensemble":
        raise DemoFailedError("the targets are not those that were asked for")
    steps = [step["model_name"] for step in strip["ensemble_scheduling"]["step"]]
    print(f"digits-strip: a native Triton ensemble of {', '.join(steps)}")
    backends = {name: client.get_model_config(name)["backend"] for name in steps}
    print(f"   each step is a front of one task: backend {', '.join(sorted(set(backends.values())))}")
    truth = json.loads((STRIPS / "golden" / "strip.json").read_text())
    answer = ask_strip(client, np.load(STRIPS / "golden" / "strip.npy"))
    digits = answer.as_numpy("DIGIT")[0, :, 0].tolist()
    print(f"a strip with the digits {truth['DIGIT']} is read as {digits}")
    if digits != truth["DIGIT"]:
        raise DemoFailedError("the strip is not read right")


def text_at(place: Sequence[float], boxes: Any, texts: Sequence[str]) -> str:
    """The text of the box whose middle is nearest to the middle of `place`."""
    if not texts:
        return ""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
    return texts[int(((middles - middle) ** 2).sum(axis=1).argmin())]


def wait_for_generation(before: int, told: int) -> int:
    """Tells events until a newer generation serves; the number of the last event.

    Raises:
        DemoFailedError: None came in time.
    """
    give_up_at = time.monotonic() + CHANGE_TIMEOUT_S
    while time.monotonic() < give_up_at:
        status = asked("status")
        for event in asked("events", "-n", "200")["events"]:
            if event["id"] > told:
                told = event["id"]
                print(f"   {event['at'][11:19]} {event['kind']:10} {event['text']}", flush=True)
        if status["generation"] > before and status["state"] == "ready":
            return told
        time.sleep(0.5)
    raise DemoFailedError("the controller has not followed the load")


def load_and_swap(address: str, images: list[Any]) -> Load:
    """More pages come than are planned for, and the controller follows."""
    told = asked("events", "-n", "1")["events"][-1]["id"]
    before = asked("status")["generation"]
    print(f"{RAISED_RPS:g} pages/s from ordinary clients, where {DEMAND_RPS:g} are planned for", flush=True)
    with sending(address, images, RAISED_RPS) as load:
        wait_for_generation(before, told)
        time.sleep(AFTER_SWAP_S)
    return load


def check_nothing_left(gpus: Gpus) -> None:
    """No process, no shared memory, no MIG instance of the demo is there any more.

    Raises:
        DemoFailedError: Something is.
    """
    paths = deployment_paths(WORK / "state")
    mark = str(paths.run).encode()
    processes = [p.parent.name for p in Path("/proc").glob("[0-9]*/cmdline") if mark in _bytes(p)]
    prefix = shm_prefix(paths.run, "").rstrip("-")
    regions = [p.name for p in Path("/dev/shm").iterdir() if p.name.startswith(prefix)]
    instances = gpus.left()
    print(f"left: {len(processes)} processes, {len(regions)} regions in /dev/shm, {len(instances)} MIG instances")
    if processes or regions or instances:
        raise DemoFailedError(f"something is left: {processes} {regions} {instances}")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def show(gpus: Gpus) -> None:
    """All steps."""
    step("What this machine has")
    run("doctor", check=False)
    step("The application: page image -> detect lines -> for each line recognise -> text and boxes")
    run("init", "docread", "--from", "docread")
    step("A second one, to be compiled to a Triton ensemble: strip of digits -> locate digits -> for each classify it")
    run("init", "digits-strip", "--from", "digits-strip")
    make_ensemble(STRIPS)
    step(f"The plan for {DEMAND_RPS:g} pages/s and {STRIPS_RPS:g} strips/s on two boards; {gpus.said}")
    for looked in gpus.looks:
        run(*looked)
    demand = f"docread={DEMAND_RPS:g},digits-strip={STRIPS_RPS:g}"
    run("plan", "docread", "digits-strip", *gpus.flags, "--demand", demand)
    step("Deploy: MIG instances, a real tritonserver on each, the gateway in front")
    ports = free_ports((8000, 8001, 8002))
    flags = [f"--{name}={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    run("deploy", "docread", "digits-strip", *gpus.flags, "--demand", demand, "--detach", *flags)
    addresses = {"http": f"127.0.0.1:{ports[0]}", "grpc": f"127.0.0.1:{ports[1]}"}
    step("Two targets at one gateway: docread as a front, digits-strip as an ensemble")
    compare_targets(addresses["http"])
    step("Pages with known text through ordinary Triton clients")
    images = read_pages(addresses)
    slo = asked("status")["graphs"]["docread"]
    print(
        f"the plan promises {slo['accuracy']:.3f} of the best variants' accuracy, asked for is {slo['slo_accuracy']:g}"
    )
    step("perf_analyzer, within what is planned for: a few Poisson arrivals may come at nearly twice their mean rate")
    run("bench", "docread", "--protocol", "grpc", "--rate", str(USUAL_RPS), "--duration", "25")
    step("More load than the plan can carry: the controller measures it, re-plans and swaps under it")
    load = load_and_swap(addresses["http"], images)
    print(f"{load.sent} requests sent meanwhile, {len(load.failed)} failed", flush=True)
    print(f"latency p50 {load.percentile_ms(50):.0f} ms, p99 {load.percentile_ms(99):.0f} ms, the swap included")
    step("perf_analyzer again, on the new generation")
    run("bench", "docread", "--protocol", "grpc", "--concurrency", "1", "--duration", "6")
    step("What runs now")
    run("status")
    for looked in gpus.looks:
        run(*looked)
    if load.failed:
        raise DemoFailedError(f"requests failed: {load.failed[0]}")


def main() -> int:
    """Shows all; takes down what it started, whatever happens."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("driver", nargs="?", choices=tuple(MACHINES), default="emulated", help="what cuts the GPUs")
    driver = parser.parse_args().driver
    began = time.monotonic()
    for folder in (WORK / "state", APP, STRIPS):
        shutil.rmtree(folder, ignore_errors=True)
    WORK.mkdir(exist_ok=True)
    try:
        gpus = MACHINES[driver](WORK)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    ENV.update(gpus.env)
    failure = ""
    try:
        show(gpus)
    except (DemoFailedError, subprocess.CalledProcessError) as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "broken off"
    finally:
        step("Down")
        run("down", check=False)
    if not failure:
        check_nothing_left(gpus)
        print(gpus.summary())
    print(f"\nthe demo {'failed: ' + failure if failure else 'is done'}, {time.monotonic() - began:.0f} s")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
