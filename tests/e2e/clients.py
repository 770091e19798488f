"""Triton's own clients, and a crowd of them that sends requests all the time and checks every answer."""

import threading
import time
from collections.abc import Mapping
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from tests.e2e.system import System
from tests.waiting import WAIT_LIMIT_S

Array = NDArray[Any]
PROTOCOLS = ("http", "grpc")

_ANSWER_S = 60.0
_MAX_SHOWN = 5


class Client:
    """A client of the gateway, for use in one thread.

    Args:
        system: Deployment to send requests to.
        protocol: Protocol, `http` or `grpc`.
        address: Address of the gateway.
    """

    def __init__(self, system: System, protocol: str, address: str = "127.0.0.1") -> None:
        self._module: ModuleType = tritonclient.http if protocol == "http" else tritonclient.grpc
        # These tests want every answer, however late. Without its own timeout a late request would be refused.
        self._limit: dict[str, float] = {"timeout": round(1e6 * _ANSWER_S)}
        if protocol == "grpc":
            self._limit["client_timeout"] = _ANSWER_S
        timeouts = {"connection_timeout": _ANSWER_S, "network_timeout": _ANSWER_S} if protocol == "http" else {}
        port = system.http if protocol == "http" else system.grpc
        self.triton = self._module.InferenceServerClient(f"{address}:{port}", **timeouts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.triton.close()

    def ask(
        self, model: str, inputs: Mapping[str, Array], outputs: tuple[str, ...], *, request_id: str = ""
    ) -> dict[str, Array]:
        """Sends a request for all outputs. Returns the named ones."""
        answer = self.triton.infer(model, self._tensors(inputs), request_id=request_id, **self._limit)
        return {name: answer.as_numpy(name) for name in outputs}

    def some(self, model: str, inputs: Mapping[str, Array], output: str) -> Array:
        """Sends a request for only one output, and returns it."""
        wanted = [self._module.InferRequestedOutput(output)]
        array: Array = self.triton.infer(model, self._tensors(inputs), outputs=wanted, **self._limit).as_numpy(output)
        return array

    def _tensors(self, inputs: Mapping[str, Array]) -> list[Any]:
        tensors = []
        for name, array in inputs.items():
            tensor = self._module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        return tensors

    def squares(self, numbers: list[int], model: str = "words") -> tuple[list[int], int]:
        """Asks the graph of `app` for the squares of numbers and their total."""
        given = {"NUMBERS": np.array([numbers], np.int64).reshape(1, len(numbers))}
        answer = self.ask(model, given, ("SQUARES", "TOTAL"))
        assert answer["SQUARES"].shape == (1, len(numbers), 1)
        assert answer["TOTAL"].shape == (1, 1)
        return answer["SQUARES"][0, :, 0].tolist(), int(answer["TOTAL"][0, 0])


def expected(numbers: list[int]) -> tuple[list[int], int]:
    """Returns the right answer of `squares`."""
    squares = [number**2 for number in numbers]
    return squares, sum(squares)


class Crowd:
    """Clients that send different requests to the graph of `app` all the time, half over HTTP and half over gRPC.

    By default they send at most 33 requests per second, which one worker can carry, so that the load itself triggers no
    change.

    Args:
        system: Deployment to send requests to.
        clients: Number of clients.
        pause_s: Seconds that each client waits between an answer and its next request.
        model: Name of the graph.
        address: Address of the gateway.
    """

    def __init__(
        self,
        system: System,
        clients: int = 6,
        *,
        pause_s: float = 0.18,
        model: str = "words",
        address: str = "127.0.0.1",
    ) -> None:
        self.clients = clients
        self._system = system
        self._address = address
        self._pause_s = pause_s
        self._model = model
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._client, args=(i,)) for i in range(clients)]
        self.answers = 0
        self.failures: list[str] = []
        self.slowest_s = 0.0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        try:
            self.wait_answers(len(self._threads))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def wait_answers(self, count: int) -> None:
        """Waits for a number of further right answers."""
        with self._changed:
            goal = self.answers + count
            reached = self._changed.wait_for(lambda: self.answers >= goal, WAIT_LIMIT_S)
        assert reached, f"no {count} answers within {WAIT_LIMIT_S:g} s; failures: {self.failures[:_MAX_SHOWN]}"

    def assert_none_failed(self) -> None:
        """Checks that every request so far has had the right answer."""
        count = f"{len(self.failures)} of {self.answers + len(self.failures)} requests failed"
        assert self.failures == [], f"{count}: {self.failures[:_MAX_SHOWN]}"

    def _end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        with Client(self._system, PROTOCOLS[number % 2], self._address) as client:
            turn = 0
            while not self._stop.wait(self._pause_s):
                turn += 1
                numbers = [1000 * number + turn + row for row in range(turn % 8)]
                self._ask(client, numbers)

    def _ask(self, client: Client, numbers: list[int]) -> None:
        began = time.monotonic()
        failure = ""
        try:
            answer = client.squares(numbers, self._model)
            if answer != expected(numbers):
                failure = f"{numbers} became {answer}"
        except Exception as error:  # Any error counts as a failed request.
            failure = f"{type(error).__name__}: {error}"
        with self._changed:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if failure:
                self.failures.append(failure)
            else:
                self.answers += 1
            self._changed.notify_all()
