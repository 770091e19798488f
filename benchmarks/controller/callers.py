"""Ordinary clients of the application of `replans`. They reconnect to a gateway that was gone and check each answer."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from benchmarks.controller.supervised import NAME

CLIENTS = 3
PAUSE_S = 0.1
ANSWER_S = 60.0
"""Timeout of a request, so that a late answer counts as one."""

_RECONNECT_S = 0.02
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
"""Options of a channel that shares no connection, and no backoff, with an earlier one."""

_UNSENT = ("failed to connect", "connection refused")
"""Parts, in lower case, of errors of connections that were never made. Their requests are sent again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without an answer.

    Attributes:
        sent_s: Time at which it was sent, by the monotonic clock.
        ended_s: Time at which it failed.
        error: Error message.
    """

    sent_s: float
    ended_s: float
    error: str


@dataclass(slots=True)
class Outcomes:
    """Outcomes of requests.

    Attributes:
        sent: Number of requests.
        wrong: Descriptions of wrong answers.
        failures: Requests without an answer.
        answered_s: Time of sending of the last answered request, and time of its answer, by the monotonic clock.
    """

    sent: int = 0
    wrong: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    answered_s: tuple[float, float] = (0.0, 0.0)

    def lost(self, outages: Sequence[tuple[float, float]]) -> list[Failure]:
        """Returns the failures, without those of requests in flight at a time when a gateway died.

        Args:
            outages: Beginning and end of each time without a gateway, by the monotonic clock.
        """
        return [f for f in self.failures if not any(f.sent_s <= end and f.ended_s >= begin for begin, end in outages)]


@contextmanager
def callers(url: str, pause_s: float = PAUSE_S) -> Iterator[Outcomes]:
    """Runs the clients inside the `with` block."""
    outcomes, stop, lock = Outcomes(), threading.Event(), threading.Lock()
    numbers = iter(range(1, 1 << 40))

    def client() -> None:
        connection = _connected(url, stop)
        while not stop.wait(pause_s):
            with lock:
                number = next(numbers)
                outcomes.sent += 1
            while not stop.is_set():
                sent_s, answer = time.monotonic(), _ask(connection, number)
                if isinstance(answer, str):
                    connection.close()
                    connection = _connected(url, stop)
                    if any(text in answer.lower() for text in _UNSENT):
                        continue
                    with lock:
                        outcomes.failures.append(Failure(sent_s, time.monotonic(), answer))
                else:
                    with lock:
                        outcomes.answered_s = max(outcomes.answered_s, (sent_s, time.monotonic()))
                        if (fault := _fault(number, answer)) is not None:
                            outcomes.wrong.append(fault)
                break
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _connected(url: str, stop: threading.Event) -> grpc.InferenceServerClient:
    """Returns a connection to a gateway that is ready to serve the graph, as a load balancer would."""
    while True:
        connection = grpc.InferenceServerClient(url, channel_args=_OWN_CONNECTION)
        try:
            if connection.is_model_ready(NAME, client_timeout=ANSWER_S) or stop.is_set():
                return connection
        except InferenceServerException:
            if stop.is_set():
                return connection
        connection.close()
        stop.wait(_RECONNECT_S)


def _ask(connection: grpc.InferenceServerClient, number: int) -> grpc.InferResult | str:
    """Sends a request. Returns the answer, or the error."""
    tensor = grpc.InferInput("X", [1, 1], "INT64")
    tensor.set_data_from_numpy(np.full((1, 1), number, np.int64))
    try:
        return connection.infer(NAME, [tensor], timeout=round(1e6 * ANSWER_S), client_timeout=ANSWER_S)
    except InferenceServerException as error:
        return str(error)


def _fault(number: int, answer: grpc.InferResult) -> str | None:
    """Describes an answer that belongs to another request, or that several variants of a task made."""
    named = set(answer.as_numpy("N").ravel().tolist())
    variants = set(answer.as_numpy("CLASSIFIED").ravel().tolist())
    if named == {number} and len(variants) == 1:
        return None
    return f"request {number} was answered for {sorted(named)} by variants {sorted(variants)}"
