"""Time from an ONNX file to an answer of its deployment, by the commands that a user types."""

import tempfile
import time
from pathlib import Path

import numpy as np
import tritonclient.http as http

from benchmarks import system
from benchmarks.dataplane.onnx import SIZE, classifier
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.profiles.command import run
from jigsaw_triton.gpus.gateway import GatewayPorts

BUDGET_S = 60.0
SMALL_GRID = ("--slices", "1g", "--instances", "1", "--batches", "1,2", "--seconds", "0.2")
"""Sweep of a smoke run, which ends long before its budget."""

DEMAND_RPS = 5


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures the figure."""
    budget_s = effort.seconds(BUDGET_S, least_s=10.0)
    grid = () if effort.load_share == 1 else SMALL_GRID
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        folder = Path(path)
        (folder / "classifier.onnx").write_bytes(classifier())
        ports = system.cluster("cpu").gateway
        (folder / "cluster.yaml").write_text(
            "apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  driver: emulated\n"
            "  nodes: [{name: local, gpus: [{model: cpu}]}]\n"
            f"  gateway: {{http: {ports.http}, grpc: {ports.grpc}, metrics: {ports.metrics}}}\n",
            encoding="utf-8",
        )
        model, app, cluster = (str(folder / name) for name in ("classifier.onnx", "app", "cluster.yaml"))
        state = {"JIGSAW_STATE": str(folder / "state")}
        began, steps = time.monotonic(), {}
        try:
            for arguments in (
                ("add", model, "--task", "classify", "--graph", app),
                ("profile", app, "--budget", f"{budget_s:g}s", *grid),
                ("deploy", app, "--cluster", cluster, "--demand", str(DEMAND_RPS), "--detach"),
            ):
                progress(f"bring: {arguments[0]}")
                before = time.monotonic()
                run(*arguments, **state)
                steps[arguments[0]] = time.monotonic() - before
            _ask(ports)
            seconds = time.monotonic() - began
        finally:
            run("down", **state)
    parts = ", ".join(f"{name} {taken:.0f} s" for name, taken in steps.items())
    note = f"ONNX file -> `add`, `profile --budget {budget_s:g}s`, `deploy`, one answer: {parts}"
    return [figure("profiles.bring_s", seconds, "s", note, at_most=150)]


def _ask(ports: GatewayPorts) -> None:
    """Sends one request. Raises an error of the client unless it is answered."""
    client = http.InferenceServerClient(f"{ports.address}:{ports.http}")
    image = http.InferInput("IMAGE", [1, SIZE, SIZE], "FP32")
    image.set_data_from_numpy(np.ones((1, SIZE, SIZE), np.float32))
    client.infer("app", [image])
    client.close()
