"""Time to deploy, to update under load, and to recover from the death of a worker.

The deployment serves a chain of two tasks with emulated variants on an emulated A100-80GB. Tritonservers, clients and
controller are real.
"""

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from benchmarks import system
from benchmarks.effort import Effort
from benchmarks.emulated import chain
from benchmarks.harness import Figure, Progress, figure, spread
from benchmarks.system import System
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import Installation, find_installation

BOARD = "A100-80GB"
DEMAND_RPS = 50.0
CLIENTS = 4
PAUSE_S = 0.08
"""Seconds between an answer and the next request of a client. All clients together stay below the planned demand."""

SETTLE_S = 1.0
ANSWER_S = 60.0
_POLL_S = 0.01

LOOSE_MS, STRICT_MS = 60, 25
"""Latency SLOs. By 2 x p95, the first has room for the large detector, the second only for the small one."""


def document(slo_ms: float) -> str:
    """Returns the graph.yaml, given its latency SLO in milliseconds."""
    return chain(slo_ms, 0.9, detect={"large": 1.0, "small": 0.95})


PROFILES = ProfileTable(
    system.profile(BOARD, task, variant, batch, ms * (1 + batch) / 2, 2000 * batch / (ms * (1 + batch)))
    for task, variant, ms in (("detect", "large", 10.0), ("detect", "small", 4.0), ("classify", "only", 5.0))
    for batch in (1, 4)
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcome of a request.

    Attributes:
        sent_s: Time at which it was sent, by the monotonic clock.
        ended_s: Time at which it was answered or failed.
        error: Error message; empty if it was answered.
    """

    sent_s: float
    ended_s: float
    error: str


@contextmanager
def clients(url: str) -> Iterator[list[Answer]]:
    """Runs clients that send over gRPC inside the `with` block. The list grows as their requests end.

    Their requests have a long timeout, so none is refused as late. A failed request was lost by the change.
    """
    answers: list[Answer] = []
    stop = threading.Event()

    def client() -> None:
        connection = grpc.InferenceServerClient(url)
        tensor = grpc.InferInput("X", [1, 16], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
        while not stop.wait(PAUSE_S):
            sent_s, error = time.monotonic(), ""
            try:
                connection.infer("bench", [tensor], timeout=round(1e6 * ANSWER_S), client_timeout=ANSWER_S)
            except InferenceServerException as failure:
                error = str(failure)
            answers.append(Answer(sent_s, time.monotonic(), error))
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@dataclass(frozen=True, slots=True)
class Round:
    """Measurements of one deployment.

    Attributes:
        deploy_s: Seconds from the request to deploy until ready.
        update_s: Seconds from the request to update until ready, when all requests go to the new generation.
        update_sent: Requests during the update.
        update_failed: Failed requests during the update.
        death_s: Seconds from the kill to the first answer to a request sent after it.
        death_sent: Requests from the kill until the worker was back.
        death_failed: Failed requests from the kill until the worker was back.
    """

    deploy_s: float
    update_s: float
    update_sent: int
    update_failed: int
    death_s: float
    death_sent: int
    death_failed: int


async def one_round(folder: Path, installation: Installation, progress: Progress) -> Round:
    """Deploys, updates, kills a worker, and measures each."""
    cluster = system.cluster(BOARD)
    async with system.system(installation) as running:
        began = time.monotonic()
        await running.deploy(_wanted(folder, LOOSE_MS, cluster))
        deploy_s = time.monotonic() - began
        progress(f"deployed in {deploy_s:.1f} s")
        with clients(f"127.0.0.1:{cluster.gateway.grpc}") as answers:
            await asyncio.sleep(SETTLE_S)
            before = running.generation
            began = time.monotonic()
            await running.deploy(_wanted(folder, STRICT_MS, cluster))
            update = (began, time.monotonic())
            _check_swapped(before, running.generation)
            progress(f"updated in {update[1] - began:.1f} s")
            await asyncio.sleep(SETTLE_S)
            killed_s, death_s = await _kill(running, answers)
            await running.settled()
            death = (killed_s, time.monotonic())
            progress(f"served again {death_s:.1f} s after the kill")
    updated, died = _sent(answers, *update), _sent(answers, *death)
    return Round(deploy_s, update[1] - update[0], *_counts(updated), death_s, *_counts(died))


def _wanted(folder: Path, slo_ms: int, cluster: Cluster) -> Wanted:
    graph = system.read_graph(folder, document(slo_ms))
    return Wanted(
        {graph.name: graph},
        {graph.name: DEMAND_RPS},
        {graph.name: PROFILES},
        cluster,
        latency_model=system.BY_HAND,
    )


def _check_swapped(before: Generation, after: Generation) -> None:
    """Checks that the update swapped one variant in the same slices.

    Raises:
        ServerError: The update changed something else.
    """
    old, new = (
        {(worker.name, model.variant) for worker in g.bundle.workers.values() for model in worker.models}
        for g in (before, after)
    )
    if before.bundle.workers.keys() != after.bundle.workers.keys() or len(old ^ new) != 2:
        raise ServerError(f"the update was not a swap of one variant in place: from {sorted(old)} to {sorted(new)}")


async def _kill(running: System, answers: list[Answer]) -> tuple[float, float]:
    """Kills the only worker of a task.

    Returns:
        Time of the kill, and seconds from then to the first answer to a request sent after it.
    """
    workers = running.generation.bundle.workers.values()
    (name,) = [worker.name for worker in workers if worker.models[0].task == "classify"]
    server = running.fleet.server(name)
    assert server is not None
    assert server.process.pid is not None
    seen = len(answers)
    os.kill(server.process.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    while True:
        for answer in answers[seen:]:
            if answer.sent_s >= killed_s and not answer.error:
                return killed_s, answer.ended_s - killed_s
        await asyncio.sleep(_POLL_S)


def _sent(answers: Sequence[Answer], begin_s: float, end_s: float) -> list[Answer]:
    """Returns the requests that were in flight at any time between the two."""
    return [answer for answer in answers if answer.ended_s >= begin_s and answer.sent_s <= end_s]


def _counts(answers: Sequence[Answer]) -> tuple[int, int]:
    return len(answers), sum(bool(answer.error) for answer in answers)


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Runs all rounds."""
    installation = find_installation()
    rounds = []
    for number in range(effort.rounds):
        progress(f"round {number + 1} of {effort.rounds}")
        with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as folder:
            rounds.append(await one_round(Path(folder), installation, progress))
    return figures(rounds)


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """Computes the figures from the rounds."""

    def seconds(name: str, values: Sequence[float], note: str) -> Figure:
        return figure(name, median(values), "s", f"median of {len(values)}, {spread(values)}; {note}")

    def failed(name: str, failures: Sequence[int], sent: Sequence[int], note: str) -> Figure:
        return figure(name, sum(failures), "requests", f"of {sum(sent)} in {len(sent)} rounds; {note}", at_most=0)

    load = f"{CLIENTS} gRPC clients"
    updated, died = [r.update_sent for r in rounds], [r.death_sent for r in rounds]
    return [
        seconds("controller.deploy_s", [r.deploy_s for r in rounds], "request to ready: plan, gateway, two workers"),
        seconds(
            "controller.update_s", [r.update_s for r in rounds], "swap of a variant in its slice, request to ready"
        ),
        failed("controller.update_failed", [r.update_failed for r in rounds], updated, f"under {load}"),
        seconds("controller.kill9_s", [r.death_s for r in rounds], "kill of a task's only worker to the next answer"),
        failed("controller.kill9_failed", [r.death_failed for r in rounds], died, f"{load}, until the worker was back"),
    ]
