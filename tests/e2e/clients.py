"""Triton's own clients, and a crowd of them that asks all the time and checks every answer."""

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

from tests.e2e.system import PATIENCE_S, System

Array = NDArray[Any]
PROTOCOLS = ("http", "grpc")

_ANSWER_S = 60.0
_MOST_TOLD = 5


class Client:
    """A client of the gateway; for one thread.

    Args:
        system: Whose gateway.
        protocol: `http` or `grpc`.
    """

    def __init__(self, system: System, protocol: str) -> None:
        self._module: ModuleType = tritonclient.http if protocol == "http" else tritonclient.grpc
        # What is asked for here is wanted however late it comes: without a timeout of its own a late one is refused.
        self._limit: dict[str, float] = {"timeout": round(1e6 * _ANSWER_S)}
        if protocol == "grpc":
            self._limit["client_timeout"] = _ANSWER_S
        timeouts = {"connection_timeout": _ANSWER_S, "network_timeout": _ANSWER_S} if protocol == "http" else {}
        port = system.http if protocol == "http" else system.grpc
        self.triton = self._module.InferenceServerClient(f"127.0.0.1:{port}", **timeouts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.triton.close()

    def ask(
        self, model: str, inputs: Mapping[str, Array], outputs: tuple[str, ...], *, request_id: str = ""
    ) -> dict[str, Array]:
        """One inference, of all outputs; those named are returned."""
        answer = self.triton.infer(model, self._tensors(inputs), request_id=request_id, **self._limit)
        return {name: answer.as_numpy(name) for name in outputs}

    def some(self, model: str, inputs: Mapping[str, Array], output: str) -> Array:
        """One inference of one output alone."""
        asked = [self._module.InferRequestedOutput(output)]
        array: Array = self.triton.infer(model, self._tensors(inputs), outputs=asked, **self._limit).as_numpy(output)
        return array

    def _tensors(self, inputs: Mapping[str, Array]) -> list[Any]:
        tensors = []
        for name, array in inputs.items():
            tensor = self._module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        return tensors

    def squares(self, numbers: list[int], model: str = "words") -> tuple[list[int], int]:
        """What the graph of `app` makes of numbers: their squares and the total of these."""
        given = {"NUMBERS": np.array([numbers], np.int64).reshape(1, len(numbers))}
        answer = self.ask(model, given, ("SQUARES", "TOTAL"))
        assert answer["SQUARES"].shape == (1, len(numbers), 1)
        assert answer["TOTAL"].shape == (1, 1)
        return answer["SQUARES"][0, :, 0].tolist(), int(answer["TOTAL"][0, 0])


def expected(numbers: list[int]) -> tuple[list[int], int]:
    """What `squares` must answer."""
    squares = [number**2 for number in numbers]
    return squares, sum(squares)


class Crowd:
    """Clients of the graph of `app` that ask all the time, no two the same; half over HTTP, half over gRPC.

    By default they ask at most 33 times a second, which one worker is good for: what changes is what a test changes.

    Args:
        system: Whose gateway.
        clients: How many.
        pause_s: Of each between an answer and the next question.
        model: To ask.
    """

    def __init__(self, system: System, clients: int = 6, *, pause_s: float = 0.18, model: str = "words") -> None:
        self._system = system
        self._pause_s = pause_s
        self._model = model
        self._stop = threading.Event()
        self._told = threading.Condition()
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
        """Waits until so many more questions were answered rightly."""
        with self._told:
            goal = self.answers + count
            come = self._told.wait_for(lambda: self.answers >= goal, PATIENCE_S)
        assert come, f"no {count} answers within {PATIENCE_S:g} s; failures: {self.failures[:_MOST_TOLD]}"

    def assert_none_failed(self) -> None:
        """Every question so far was answered, and rightly."""
        assert self.failures == [], f"{len(self.failures)} of {self.answers + len(self.failures)} requests failed"

    def _end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        with Client(self._system, PROTOCOLS[number % 2]) as client:
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
        except Exception as error:  # Whatever it is, it is what the test is about.
            failure = f"{type(error).__name__}: {error}"
        with self._told:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if failure:
                self.failures.append(failure)
            else:
                self.answers += 1
            self._told.notify_all()
