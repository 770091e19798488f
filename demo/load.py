"""Clients that send pages at a given rate with Triton's own client, and keep count."""

import itertools
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from numpy.typing import NDArray

_CLIENTS = 64
"""So many may wait for an answer at a time, so that the load does not fall off where the system falls behind."""


@dataclass
class Load:
    """What was sent and what came back.

    Attributes:
        sent: Requests.
        failed: What the client said, one entry a failed request.
        latencies_ms: Of those answered, from the moment each was due.
    """

    sent: int = 0
    failed: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    def percentile_ms(self, percent: float) -> float:
        """Of the latencies so far."""
        return float(np.percentile(self.latencies_ms, percent))


_TIMEOUT_US = 120_000_000
"""So long a request is good for: while the load is above what the plan can carry, an answer may come after the SLO, and
none is to be refused for that."""


def connect(protocol: str, address: str) -> Any:
    """An ordinary client of `http` or `grpc`."""
    return (http if protocol == "http" else grpc).InferenceServerClient(address)


def ask(client: Any, protocol: str, page: NDArray[np.uint8]) -> Any:
    """Sends one page; the answer."""
    triton = http if protocol == "http" else grpc
    tensor = triton.InferInput("IMAGE", [1, *page.shape], "UINT8")
    tensor.set_data_from_numpy(page[None])
    return client.infer("docread", [tensor], timeout=_TIMEOUT_US)


def ask_strip(client: Any, strip: NDArray[np.uint8]) -> Any:
    """Sends one strip of digits over HTTP; the answer."""
    tensor = http.InferInput("STRIP", [1, *strip.shape], "UINT8")
    tensor.set_data_from_numpy(strip[None])
    return client.infer("digits-strip", [tensor], timeout=_TIMEOUT_US)


@contextmanager
def sending(address: str, pages: Sequence[NDArray[np.uint8]], rate_rps: float) -> Iterator[Load]:
    """Sends pages over HTTP inside the `with` block, at Poisson times of this mean rate, and waits for the last answer.

    A request is due at its time whether or not earlier ones were answered, as of many independent users.
    """
    load = Load()
    lock = threading.Lock()
    due: queue.Queue[tuple[float, NDArray[np.uint8]] | None] = queue.Queue()
    stop = threading.Event()

    def schedule() -> None:
        rng = np.random.default_rng(1)
        at = time.monotonic()
        for page in itertools.cycle(pages):
            at += rng.exponential(1.0 / rate_rps)
            if stop.wait(max(0.0, at - time.monotonic())):
                return
            due.put((at, page))

    def client() -> None:
        connection = connect("http", address)
        while (item := due.get()) is not None:
            at, page = item
            with lock:
                load.sent += 1
            try:
                ask(connection, "http", page)
            except Exception as error:
                with lock:
                    load.failed.append(str(error))
            else:
                with lock:
                    load.latencies_ms.append((time.monotonic() - at) * 1e3)
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(_CLIENTS)]
    scheduler = threading.Thread(target=schedule)
    for thread in (*clients, scheduler):
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        scheduler.join()
        for _ in clients:
            due.put(None)
        for thread in clients:
            thread.join()
