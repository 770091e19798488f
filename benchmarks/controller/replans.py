"""Changes of the plan under load: requests that fail, are refused, are executed twice, or are answered by a mix.

The application has two tasks: `detect` yields rows, and `classify` runs once for each of them. Its models say in their
outputs which variant they are, so that an answer shows who made it, and write down every request that they execute.
Ordinary clients send all the time, without a timeout. Each change leads to another of a few plans, which differ in
variants, instances, replicas and slices.
"""

import asyncio
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from benchmarks import system
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.system import System
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.core.order import ordered
from jigsaw_triton.gpus.model import Cluster, Placement
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.servers.installation import Installation, find_installation

CHANGES = 20
BOARD = "A30-24GB"
CLIENTS = 3
PAUSE_S = 0.15
ROWS = 3
SETTLE_S = 1.0
DEMAND_RPS = 20.0
"""Demand to plan for. The clients send less, so that each refused request is due to a change."""

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {{name: bench}}
spec:
  slo: {{latency_ms: {slo_ms}, accuracy: {accuracy}}}
  inputs:
    X: {{dtype: INT64, shape: [1]}}
  outputs: {{DETECTED: detect.V, CLASSIFIED: classify.V, N: classify.N}}
  tasks:
    detect:
      inputs: {{X: inputs.X}}
      outputs:
        V: {{dtype: INT64, shape: [1]}}
        ROWS: {{dtype: INT64, shape: [-1, 1]}}
      variants:
        - {{name: a, accuracy: 1.0, template: python, artifacts: {{model.py: model.py}}, yields: {{ROWS: {rows}}}, \
parameters: {{variant: '1', milliseconds: '40', log: '{log}'}}}}
        - {{name: b, accuracy: 0.9, template: python, artifacts: {{model.py: model.py}}, yields: {{ROWS: {rows}}}, \
parameters: {{variant: '2', milliseconds: '20', log: '{log}'}}}}
    classify:
      for_each: detect.ROWS
      inputs: {{X: detect.ROWS}}
      outputs:
        V: {{dtype: INT64, shape: [1]}}
        N: {{dtype: INT64, shape: [1]}}
      variants:
        - {{name: a, accuracy: 1.0, template: python, artifacts: {{model.py: model.py}}, \
parameters: {{variant: '1', milliseconds: '40'}}}}
        - {{name: b, accuracy: 0.9, template: python, artifacts: {{model.py: model.py}}, \
parameters: {{variant: '2', milliseconds: '20'}}}}
"""

MODEL = """\
import os
import time

import numpy as np


class Model:
    def __init__(self, folder, parameters, threads):
        self.variant = int(parameters["variant"])
        self.seconds = float(parameters["milliseconds"]) / 1000
        log = parameters.get("log")
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if log else None

    def __call__(self, inputs):
        time.sleep(self.seconds)
        x = inputs["X"]
        outputs = {"V": np.full((len(x), 1), self.variant, np.int64)}
        if self.log is None:
            return outputs | {"N": x}
        os.write(self.log, x.tobytes())
        return outputs | {"ROWS": np.repeat(x[:, None], ROWS, axis=1)}
""".replace("ROWS, axis", f"{ROWS}, axis")


@dataclass(frozen=True, slots=True)
class Target:
    """A plan to change to.

    Attributes:
        accuracy: Accuracy SLO: 1 allows only variant a, 0.8 also b, which needs fewer slices.
        slo_ms: Latency SLO: the strict one is beyond variant a on the smallest slice.
        demand_rps: Demand to plan for.
        instances: Numbers of instances that the profiles offer.
    """

    accuracy: float
    slo_ms: int
    demand_rps: float = DEMAND_RPS
    instances: tuple[int, ...] = (1,)


TARGETS = (
    Target(0.8, 600),
    Target(1.0, 600),
    Target(1.0, 300),
    Target(0.8, 300),
    Target(0.8, 600, instances=(2,)),
)
"""Plans, in the order in which they follow each other. Consecutive ones differ in variants, slices or instances."""

MILLISECONDS = {("a", "1g"): 100.0, ("a", "2g"): 50.0, ("b", "1g"): 50.0, ("b", "2g"): 30.0}
"""(Variant, slice) -> 95th percentile of a batch. The models themselves take less on any slice."""


def profiles(target: Target) -> ProfileTable:
    """Returns the profile of all variants on all slices."""
    return ProfileTable(
        ProfileRow(
            ProfileKey(BOARD, task, variant, kind, instances, batch),
            ms,
            ms,
            ms,
            1000 * batch * instances / ms,
            100.0,
            "assumed",
        )
        for task in ("detect", "classify")
        for (variant, kind), ms in MILLISECONDS.items()
        for instances in target.instances
        for batch in (1, 4)
    )


@dataclass(slots=True)
class Outcome:
    """Counts of one run.

    Attributes:
        sent: Requests sent.
        failed: Requests that failed for another reason than a refusal.
        refused: Requests refused as UNAVAILABLE.
        wrong: Answers to another request.
        mixed: Answers by more than one variant of a task, or by a pair of variants that no generation has.
        reasons: Error message -> how often it occurred.
        pairs: Pairs of variants (detect, classify) of the generations so far.
        expected: Requests for which the stages, before each change, predicted no capacity.
    """

    sent: int = 0
    failed: int = 0
    refused: int = 0
    wrong: int = 0
    mixed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    pairs: set[tuple[int, int]] = field(default_factory=set)
    expected: float = 0.0


@contextmanager
def clients(url: str, outcome: Outcome) -> Iterator[None]:
    """Runs ordinary clients, without timeouts, inside the `with` block."""
    stop, lock = threading.Event(), threading.Lock()
    numbers = iter(range(1, 1 << 40))

    def client() -> None:
        connection = grpc.InferenceServerClient(url)
        while not stop.wait(PAUSE_S):
            with lock:
                number = next(numbers)
                outcome.sent += 1
            tensor = grpc.InferInput("X", [1, 1], "INT64")
            tensor.set_data_from_numpy(np.full((1, 1), number, np.int64))
            try:
                answer = connection.infer("bench", [tensor])
            except InferenceServerException as failure:
                with lock:
                    if failure.status() == "StatusCode.UNAVAILABLE":
                        outcome.refused += 1
                    else:
                        outcome.failed += 1
                    outcome.reasons[str(failure)] += 1
                continue
            detected = int(answer.as_numpy("DETECTED").item())
            classified = set(answer.as_numpy("CLASSIFIED").ravel().tolist())
            with lock:
                outcome.wrong += set(answer.as_numpy("N").ravel().tolist()) != {number}
                outcome.mixed += len(classified) != 1 or (detected, *classified) not in outcome.pairs
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wanted(folder: Path, target: Target, cluster: Cluster) -> Wanted:
    """Returns the deployment input that leads to a target."""
    document = GRAPH.format(slo_ms=target.slo_ms, accuracy=target.accuracy, rows=ROWS, log=folder / "executed")
    graph = system.read_graph(folder, document, {"model.py": MODEL})
    return Wanted(
        {graph.name: graph},
        {graph.name: target.demand_rps},
        {graph.name: profiles(target)},
        cluster,
        latency_model=system.BY_HAND,
    )


def pairs_of(generation: Generation) -> set[tuple[int, int]]:
    """Returns the pairs of variants (detect, classify) with which a generation may answer."""
    found: dict[str, set[int]] = {"detect": set(), "classify": set()}
    for worker in generation.bundle.workers.values():
        for model in worker.models:
            found[model.task].add({"a": 1, "b": 2}[model.variant])
    return {(detect, classify) for detect in found["detect"] for classify in found["classify"]}


async def one_run(
    folder: Path, cluster: Cluster, installation: Installation, changes: int, progress: Progress
) -> tuple[Outcome, int]:
    """Makes the changes under load.

    Returns:
        The counts, and the number of requests that were executed more than once.
    """
    outcome = Outcome()
    async with system.system(installation) as running:
        await running.deploy(wanted(folder, TARGETS[0], cluster))
        outcome.pairs = pairs_of(running.generation)
        with clients(f"127.0.0.1:{cluster.gateway.grpc}", outcome):
            for number in range(1, changes + 1):
                await asyncio.sleep(SETTLE_S)
                began, refused = time.monotonic(), outcome.refused
                await change(running, wanted(folder, TARGETS[number % len(TARGETS)], cluster), outcome)
                took_s, refused = time.monotonic() - began, outcome.refused - refused
                progress(f"change {number} of {changes}: {took_s:.1f} s, {refused} refused; {_layout(running)}")
            await asyncio.sleep(SETTLE_S)
    executed = np.fromfile(folder / "executed", np.int64)
    counts = Counter(executed[executed > 0].tolist())
    for reason, count in outcome.reasons.most_common(5):
        progress(f"{count} x {reason}")
    return outcome, sum(count > 1 for count in counts.values())


async def change(running: System, target: Wanted, outcome: Outcome) -> None:
    """Changes to another plan, and notes its pairs of variants as soon as they may answer."""
    before, actual = running.generation, running.controller.state.actual
    task = asyncio.create_task(running.deploy(target))
    while not task.done():
        pending = running.controller.state.pending
        if pending is not None:
            outcome.pairs |= pairs_of(pending)
        await asyncio.wait({task}, timeout=0.02)
    await task
    after = running.generation
    outcome.expected += sum(shortfall.requests for shortfall in ordered(actual, before, after).shortfalls)
    outcome.pairs = pairs_of(after)


def _layout(running: System) -> str:
    return ", ".join(
        f"{worker.place.placement} {model.task} {model.variant} {model.instances}x"
        for worker in running.generation.bundle.workers.values()
        for model in worker.models
        if worker.place is not None
    )


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Makes the changes with room for one more slice, and without."""
    installation = find_installation()
    changes = max(2, effort.count(CHANGES))
    figures: list[Figure] = []
    full, tight = system.cluster(BOARD, 2), system.cluster(BOARD)
    # Others occupy the second board, except for one slice.
    others = replace(full.gpus[1], foreign=(Placement(0, "2g"), Placement(2, "1g")))
    for name, cluster in (("under_load", replace(full, gpus=(full.gpus[0], others))), ("no_room", tight)):
        progress(f"{name}: {changes} changes")
        with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as folder:
            outcome, twice = await one_run(Path(folder), cluster, installation, changes, progress)
        figures += list(_figures(f"controller.replans_{changes}_{name}", outcome, twice))
    return figures


def _figures(name: str, outcome: Outcome, twice: int) -> Iterator[Figure]:
    note = f"of {outcome.sent} requests of {CLIENTS} gRPC clients without timeouts"
    yield figure(f"{name}.failed", outcome.failed, "requests", note, at_most=0)
    beyond = max(0.0, outcome.refused - outcome.expected)
    said = f"{outcome.refused} refused, {outcome.expected:.0f} predicted by the stages; {note}"
    yield figure(f"{name}.refused", beyond, "requests", said, at_most=0)
    yield figure(f"{name}.wrong", outcome.wrong, "requests", note, at_most=0)
    yield figure(f"{name}.mixed", outcome.mixed, "requests", note, at_most=0)
    yield figure(f"{name}.duplicated", twice, "requests", note, at_most=0)
