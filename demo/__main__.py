"""Demonstration on real input: deploys two applications, swaps a variant under load, and takes everything down.

`python -m demo` emulates MIG. `python -m demo nvml-standin` uses the MIG driver for real GPUs, on a stand-in for
NVIDIA's library.
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
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.servers.command import shm_prefix

ROOT = Path(__file__).parent.parent
WORK = ROOT / ".demo"
APP = WORK / "docread"
STRIPS = WORK / "digits-strip"
DEMAND_RPS = 1.0
"""Pages a second that the plan is made for. The models really run: two cores read a few pages a second."""

STRIPS_RPS = 2.0
"""Strips a second that the plan is made for."""

USUAL_RPS = 0.6
"""Pages a second that clients send at first."""

RAISED_RPS = 3.2
"""Pages a second that exceed the capacity of the first plan."""

PAGES = 8
LINES_SHOWN = 2
CHANGE_TIMEOUT_S = 90.0
AFTER_SWAP_S = 5.0

MACHINES: dict[str, Callable[[Path], Gpus]] = {"emulated": EmulatedGpus, "nvml-standin": StandInGpus}

ENV = {**os.environ, "JIGSAW_STATE": str(WORK / "state"), "PYTHONUNBUFFERED": "1"}


class DemoFailedError(Exception):
    """A step of the demo had an unexpected result."""


def step(text: str) -> None:
    """Prints the heading of a step."""
    bold = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold[0]}## {text}{bold[1]}", flush=True)


def command(*args: str) -> list[str]:
    """Prints a command as a user would type it. Returns the arguments that run it."""
    print(f"$ jigsaw-triton {' '.join(args)}", flush=True)
    return [sys.executable, "-m", "jigsaw_triton.cli.main", *args]


def run(*args: str, check: bool = True) -> int:
    """Runs a command and shows its output. Returns its exit code.

    Raises:
        DemoFailedError: The command failed and `check` is set.
    """
    status = subprocess.run(command(*args), env=ENV, cwd=WORK).returncode
    if check and status != 0:
        raise DemoFailedError(f"jigsaw-triton {args[0]} ended with {status}")
    return status


def query(*args: str) -> Any:
    """Runs a command with `-o json`. Returns the JSON value that it prints."""
    argv = [sys.executable, "-m", "jigsaw_triton.cli.main", *args, "-o", "json"]
    return json.loads(subprocess.run(argv, env=ENV, cwd=WORK, check=True, capture_output=True, text=True).stdout)


def free_ports(wanted: Sequence[int]) -> list[int]:
    """Returns these ports, with each one that is in use replaced by a free one."""
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
    """Imports the application's module that renders pages with known text."""
    sys.path.insert(0, str(APP))
    return import_module("pages")


def read_pages(addresses: dict[str, str]) -> list[Any]:
    """Sends rendered pages over HTTP and gRPC, and prints each answer beside the true text. Returns the images."""
    rendered = [page_renderer().render(seed, flavour) for seed in range(PAGES // 2) for flavour in ("easy", "hard")]
    total = exact = 0
    for number, page in enumerate(rendered):
        # Stay below the planned demand: the controller would follow a higher load.
        time.sleep(1 / USUAL_RPS)
        protocol = ("http", "grpc")[number % 2]
        answer = ask(connect(protocol, addresses[protocol]), protocol, page.image)
        boxes, texts = answer.as_numpy("BOXES")[0], [text.decode() for text in answer.as_numpy("TEXT")[0, :, 0]]
        read = [text_at(line.box, boxes, texts) for line in page.lines]
        right = [line.text == text for line, text in zip(page.lines, read, strict=True)]
        total += len(right)
        exact += sum(right)
        print(f"page {number} over {protocol}: {sum(right)} of {len(right)} lines are exactly right; the first ones:")
        for line, text in list(zip(page.lines, read, strict=True))[:LINES_SHOWN]:
            print(f"   truth {line.text}\n   read  {text}")
    print(f"all pages: {exact / total:.3f} of {total} lines are read without a mistake")
    return [page.image for page in rendered]


def make_ensemble(app: Path) -> None:
    """Edits graph.yaml, as a user would, so that the application is compiled to a native Triton ensemble."""
    graph = app / "graph.yaml"
    graph.write_text(graph.read_text().replace("\nspec:\n", "\nspec:\n  target: ensemble\n", 1))
    print(f"edited {app.name}/graph.yaml: target: ensemble")


def compare_targets(address: str) -> None:
    """Shows the gateway's models of both applications, and sends the golden strip to the ensemble.

    Raises:
        DemoFailedError: A model does not have the requested target, or the answer is wrong.
    """
    client = connect("http", address)
    page = client.get_model_config("docread")
    tasks = len(query("status")["plan"]["graphs"]["docread"]["tasks"])
    print(f"docread: backend {page['backend']}, a front that executes the whole graph of {tasks} tasks")
    strip = client.get_model_config("digits-strip")
    if page["backend"] != "jigsaw" or strip.get("platform") != "ensemble":
        raise DemoFailedError("the models do not have the requested targets")
    steps = [step["model_name"] for step in strip["ensemble_scheduling"]["step"]]
    print(f"digits-strip: a native Triton ensemble of {', '.join(steps)}")
    backends = {name: client.get_model_config(name)["backend"] for name in steps}
    print(f"   each step is a front of one task: backend {', '.join(sorted(set(backends.values())))}")
    truth = json.loads((STRIPS / "golden" / "strip.json").read_text())
    answer = ask_strip(client, np.load(STRIPS / "golden" / "strip.npy"))
    digits = answer.as_numpy("DIGIT")[0, :, 0].tolist()
    print(f"a strip with the digits {truth['DIGIT']} is read as {digits}")
    if digits != truth["DIGIT"]:
        raise DemoFailedError("the strip is not read correctly")


def text_at(place: Sequence[float], boxes: Any, texts: Sequence[str]) -> str:
    """Returns the text of the box whose centre is nearest to the centre of `place`."""
    if not texts:
        return ""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    centre = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
    return texts[int(((centres - centre) ** 2).sum(axis=1).argmin())]


def wait_for_generation(before: int, last_event: int) -> None:
    """Prints new events until a newer generation serves.

    Args:
        before: Number of the generation that serves.
        last_event: Number of the last event that was printed.

    Raises:
        DemoFailedError: No newer generation served in time.
    """
    give_up_at = time.monotonic() + CHANGE_TIMEOUT_S
    while time.monotonic() < give_up_at:
        status = query("status")
        for event in query("events", "-n", "200")["events"]:
            if event["id"] > last_event:
                last_event = event["id"]
                print(f"   {event['at'][11:19]} {event['kind']:10} {event['text']}", flush=True)
        if status["generation"] > before and status["state"] == "ready":
            return
        time.sleep(0.5)
    raise DemoFailedError("the controller did not follow the load in time")


def load_and_swap(address: str, images: list[Any]) -> Load:
    """Sends more pages than the plan can serve, until the controller has swapped to a new plan."""
    last_event = query("events", "-n", "1")["events"][-1]["id"]
    before = query("status")["generation"]
    print(f"{RAISED_RPS:g} pages/s from ordinary clients; the plan is made for {DEMAND_RPS:g}", flush=True)
    with sending(address, images, RAISED_RPS) as load:
        wait_for_generation(before, last_event)
        time.sleep(AFTER_SWAP_S)
    return load


def check_nothing_left(gpus: Gpus) -> None:
    """Checks that no process, shared memory or MIG instance of the demo is left.

    Raises:
        DemoFailedError: Something is left.
    """
    paths = deployment_paths(WORK / "state")
    mark = str(paths.run).encode()
    processes = [p.parent.name for p in Path("/proc").glob("[0-9]*/cmdline") if mark in _bytes(p)]
    prefix = shm_prefix(paths.run, "").rstrip("-")
    regions = [p.name for p in Path("/dev/shm").iterdir() if p.name.startswith(prefix)]
    instances = gpus.left()
    print(f"left: {len(processes)} processes, {len(regions)} regions in /dev/shm, {len(instances)} MIG instances")
    if processes or regions or instances:
        raise DemoFailedError(f"these are left: {processes} {regions} {instances}")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def show(gpus: Gpus) -> None:
    """Runs all steps except the final `down`."""
    step("Check this machine")
    run("doctor", check=False)
    step("First application: page image -> detect lines -> recognise each line -> text and boxes")
    run("init", "docread", "--from", "docread")
    step("Second application, compiled to a Triton ensemble: strip -> locate digits -> classify each digit")
    run("init", "digits-strip", "--from", "digits-strip")
    make_ensemble(STRIPS)
    step(f"Plan {DEMAND_RPS:g} pages/s and {STRIPS_RPS:g} strips/s on two boards: {gpus.disclosure}")
    for args in gpus.inspections:
        run(*args)
    demand = f"docread={DEMAND_RPS:g},digits-strip={STRIPS_RPS:g}"
    run("plan", "docread", "digits-strip", *gpus.flags, "--demand", demand)
    step("Deploy: MIG instances, a real tritonserver on each, and the gateway in front")
    ports = free_ports((8000, 8001, 8002))
    flags = [f"--{name}={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    run("deploy", "docread", "digits-strip", *gpus.flags, "--demand", demand, "--detach", *flags)
    addresses = {"http": f"127.0.0.1:{ports[0]}", "grpc": f"127.0.0.1:{ports[1]}"}
    step("Two targets at one gateway: docread is a front, digits-strip is an ensemble")
    compare_targets(addresses["http"])
    step("Send pages with known text with ordinary Triton clients")
    images = read_pages(addresses)
    slo = query("status")["graphs"]["docread"]
    print(f"the plan promises {slo['accuracy']:.3f} of the best variants' accuracy; the SLO is {slo['slo_accuracy']:g}")
    step("Run perf_analyzer below the planned demand: a few Poisson arrivals may come at nearly twice their mean rate")
    run("bench", "docread", "--protocol", "grpc", "--rate", str(USUAL_RPS), "--duration", "25")
    step("Send more load than the plan can serve: the controller measures it, plans again and swaps under load")
    load = load_and_swap(addresses["http"], images)
    print(f"{load.sent} requests were sent meanwhile, {len(load.failed)} failed", flush=True)
    print(f"latency p50 {load.percentile_ms(50):.0f} ms, p99 {load.percentile_ms(99):.0f} ms, including the swap")
    step("Run perf_analyzer again, on the new generation")
    run("bench", "docread", "--protocol", "grpc", "--concurrency", "1", "--duration", "6")
    step("Show what runs now")
    run("status")
    for args in gpus.inspections:
        run(*args)
    if load.failed:
        raise DemoFailedError(f"requests failed: {load.failed[0]}")


def main() -> int:
    """Runs the demo, and takes down everything that it started. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("driver", nargs="?", choices=tuple(MACHINES), default="emulated", help="MIG driver")
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
        failure = "interrupted"
    finally:
        step("Take everything down")
        run("down", check=False)
    if not failure:
        check_nothing_left(gpus)
        print(gpus.summary())
    print(f"\nthe demo {'failed: ' + failure if failure else 'succeeded'}, {time.monotonic() - began:.0f} s")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
