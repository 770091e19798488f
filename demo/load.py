"""Clients that send pages at a given rate with tritonclient, and count the answers."""

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
"""Requests that may wait for an answer at a time. There are enough to keep the rate if the system falls behind."""


@dataclass
class Load:
    """Requests that were sent, and their outcome.

    Attributes:
        sent: Number of requests sent.
        failed: Error message of each failed request.
        latencies_ms: Latency of each answered request, from the moment at which it was due.
    """

    sent: int = 0
    failed: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    def percentile_ms(self, percent: float) -> float:
        """Returns a percentile of the latencies so far."""
        return float(np.percentile(self.latencies_ms, percent))


_TIMEOUT_US = 120_000_000
"""Timeout of each request. While the load exceeds the plan's capacity, answers may come after the SLO; with this
timeout the gateway does not refuse these requests."""


def connect(protocol: str, address: str) -> Any:
    """Returns an ordinary client for `http` or `grpc`."""
    return (http if protocol == "http" else grpc).InferenceServerClient(address)


def ask(client: Any, protocol: str, page: NDArray[np.uint8]) -> Any:
    """Sends one page. Returns the answer."""
    triton = http if protocol == "http" else grpc
    tensor = triton.InferInput("IMAGE", [1, *page.shape], "UINT8")
    tensor.set_data_from_numpy(page[None])
    return client.infer("docread", [tensor], timeout=_TIMEOUT_US)


def ask_strip(client: Any, strip: NDArray[np.uint8]) -> Any:
    """Sends one strip of digits over HTTP. Returns the answer."""
    tensor = http.InferInput("STRIP", [1, *strip.shape], "UINT8")
    tensor.set_data_from_numpy(strip[None])
    return client.infer("digits-strip", [tensor], timeout=_TIMEOUT_US)


@contextmanager
def sending(address: str, pages: Sequence[NDArray[np.uint8]], rate_rps: float) -> Iterator[Load]:
    """Sends pages over HTTP during the `with` block, as Poisson arrivals, then waits for the last answer.

    Each request is due at its own time, whether or not earlier ones were answered, as with many independent users.

    Args:
        address: Address of the gateway.
        pages: Pages to send in turn.
        rate_rps: Mean number of requests a second.
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
