"""Python wrapper of the compiled backend's core for tests: engines, fronts and requests over its C functions."""

import ctypes
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.runtime.dtypes import to_numpy, to_triton
from native.build import build_testing
from tests.waiting import WAIT_LIMIT_S

Array = NDArray[Any]


_P, _S, _I, _D = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_double
_FUNCTIONS: Mapping[str, tuple[Any, list[Any]]] = {
    "text_free": (None, [_P]),
    "engine_new": (_P, [_S, _S, _S]),
    "engine_free": (None, [_P]),
    "engine_state": (_P, [_P]),
    "front_new": (_P, [_P, _S, _S, _I, ctypes.POINTER(_P)]),
    "front_free": (None, [_P]),
    "submit": (_P, [_P, _S, _I, _S, _I, _I, ctypes.POINTER(_P)]),
    "request_cancel": (None, [_P]),
    "request_wait": (ctypes.c_int, [_P, _D]),
    "request_outcome": (_P, [_P]),
    "request_data": (_P, [_P, _I]),
    "request_free": (None, [_P]),
    "parse_spec": (_P, [_S, _I]),
    "parse_route": (_P, [_S, _I]),
    "read_answer": (_P, [_S, _I, ctypes.POINTER(_I), _I, ctypes.c_int]),
    "times_new": (_P, [_S]),
    "times_free": (None, [_P]),
    "times_add": (None, [_P, ctypes.c_int64, ctypes.c_uint64]),
    "times_mean": (_D, [_P, ctypes.c_int64]),
    "times_high": (_D, [_P, ctypes.c_int64]),
    "delay_new": (_P, []),
    "delay_free": (None, [_P]),
    "delay_waits": (ctypes.c_int, [_P, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64, ctypes.c_uint64]),
    "delay_reset": (None, [_P]),
    "delay_end": (ctypes.c_uint64, [_P]),
    "delay_announce": (None, [_P, ctypes.c_int64, ctypes.c_uint64]),
    "delay_arrived": (None, [_P, ctypes.c_uint64]),
    "delay_call_ended": (None, [_P]),
    "running_new": (_P, []),
    "running_free": (None, [_P]),
    "running_step": (ctypes.c_int, [_P, ctypes.c_uint64]),
    "running_at": (ctypes.c_uint64, [_P, ctypes.c_uint64]),
    "locks_new": (_P, []),
    "locks_free": (None, [_P]),
    "locks_release": (ctypes.c_uint64, [_P, ctypes.c_uint64]),
    "locks_due": (ctypes.c_uint64, [_P]),
    "users_new": (_P, [_P, _S]),
    "users_free": (None, [_P]),
    "users_add": (ctypes.c_int, [_P, ctypes.c_uint64]),
    "users_remove": (None, [_P, ctypes.c_uint64]),
}


@cache
def library() -> ctypes.CDLL:
    """Loads the library that contains the core; builds it if a source has changed."""
    loaded = ctypes.CDLL(str(build_testing()))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, f"jigsaw_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


def call(name: str, *arguments: Any) -> Any:
    """Calls a function of the library."""
    return getattr(library(), f"jigsaw_{name}")(*arguments)


def take_text(pointer: int) -> str:
    """Copies a text that the library returned, and frees it."""
    text = ctypes.string_at(pointer).decode(errors="surrogateescape")
    call("text_free", pointer)
    return text


@dataclass(frozen=True)
class Failure:
    """Reason why a request failed.

    Attributes:
        blame: Side at fault: `request`, `model`, `worker` or `cancelled`.
        message: Message for the client.
    """

    blame: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """Result of a request. Times are nanoseconds of CLOCK_MONOTONIC.

    Attributes:
        outputs: Value of each output; empty for a failure.
        failure: Failure, or None.
        sent_ns: Time at which the first batch was sent; 0 for never.
        received_ns: Time at which the last batch was answered; 0 for never.
        arrival_ns: Time at which the request arrived.
        items: Number of items in the request's batch.
    """

    outputs: Mapping[str, Array]
    failure: Failure | None
    sent_ns: int
    received_ns: int
    arrival_ns: int
    items: int

    def __getitem__(self, output: str) -> Array:
        assert self.failure is None, self.failure
        return self.outputs[output]

    @property
    def blame(self) -> str:
        """Side at fault for the failure."""
        assert self.failure is not None
        return self.failure.blame

    @property
    def message(self) -> str:
        """Message of the failure."""
        assert self.failure is not None
        return self.failure.message


class Request:
    """A request that was sent to a front."""

    def __init__(self, pointer: int, outputs: Sequence[str]) -> None:
        self._pointer: int | None = pointer
        self._outputs = outputs

    def __del__(self) -> None:
        if self._pointer is not None:
            call("request_free", self._pointer)

    def cancel(self) -> None:
        """Cancels the request, as a client that disconnects does."""
        call("request_cancel", self._pointer)

    def ended(self, within_s: float = 0.0) -> bool:
        """Returns True if the core answers and releases the request within this time."""
        return bool(call("request_wait", self._pointer, within_s))

    def wait(self, within_s: float = WAIT_LIMIT_S) -> Outcome:
        """Waits for the result."""
        assert self.ended(within_s), f"the request was not answered within {within_s:g} s"
        found = json.loads(take_text(call("request_outcome", self._pointer)))
        assert found["responses"] == 1
        failure = Failure(**found["failure"]) if found["failure"] is not None else None
        outputs: dict[str, Array] = {}
        for place, output in enumerate(found["outputs"] if failure is None else []):
            name = self._outputs[output["index"]]
            assert name not in outputs, f"output {name} was returned twice"
            data = ctypes.string_at(call("request_data", self._pointer, place), output["size"])
            outputs[name] = from_bytes(output["dtype"], output["shape"], data)
        return Outcome(outputs, failure, found["sent"], found["received"], found["arrival"], found["items"])


class Front:
    """A front of an engine. Leaving the `with` block waits for its requests."""

    def __init__(self, engine: int, spec: Mapping[str, Any], model: str) -> None:
        text = json.dumps(spec).encode()
        error = _P()
        self._pointer = call("front_new", engine, model.encode(), text, len(text), ctypes.byref(error))
        if not self._pointer:
            assert error.value
            raise ValueError(take_text(error.value))
        self._inputs = [item["name"] for item in spec["inputs"]]
        self._outputs = [item["name"] for item in spec["outputs"]]

    def __enter__(self) -> "Front":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the requests in flight, and deletes the front."""
        pointer, self._pointer = self._pointer, None
        if pointer:
            call("front_free", pointer)

    def send(self, inputs: Mapping[str, Array], **more: Any) -> Request:
        """Sends a request.

        Args:
            inputs: Value of each input, batch dimension included.
            more: Options: `id`, `timeout_us`, `priority`, `traceparent`, `tracestate`, `wanted`, `arrival`, `deadline`,
                `refuse_output`.
        """
        return self.send_many(1, inputs, **more)[0]

    def send_many(self, count: int, inputs: Mapping[str, Array], **more: Any) -> list[Request]:
        """Sends the same request several times."""
        data = [to_bytes(inputs[name]) for name in self._inputs]
        described = [
            {"dtype": to_triton(inputs[name].dtype), "shape": list(inputs[name].shape), "size": len(part)}
            for name, part in zip(self._inputs, data, strict=True)
        ]
        return self.send_raw(count, described, b"".join(data), **more)

    def send_raw(self, count: int, inputs: Sequence[Mapping[str, Any]], data: bytes, **more: Any) -> list[Request]:
        """Sends inputs with any description (`dtype`, `shape`, `size`), which need not match the data."""
        assert self._pointer, "the front is closed"
        text = json.dumps({"inputs": inputs, **more}).encode()
        pointers = (_P * count)()
        error = call("submit", self._pointer, text, len(text), data, len(data), count, pointers)
        assert not error, take_text(error)
        return [Request(pointer, self._outputs) for pointer in pointers if pointer]

    def ask(self, inputs: Mapping[str, Array], **more: Any) -> Outcome:
        """Sends a request and waits for its result."""
        return self.send(inputs, **more).wait()


class Engine:
    """An engine of the core with a run directory."""

    def __init__(self, run_dir: Path, secret: str = "", region_prefix: str = "") -> None:
        self.run_dir = run_dir
        self._pointer = call("engine_new", str(run_dir).encode(), secret.encode(), region_prefix.encode())
        self._fronts: list[Front] = []

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_fronts()
        call("engine_free", self._pointer)

    def close_fronts(self) -> None:
        """Waits for the requests of all fronts, and deletes the fronts."""
        for front in self._fronts:
            front.close()

    def front(self, spec: Mapping[str, Any], model: str = "front") -> Front:
        """Makes a front; the engine closes it at the latest."""
        front = Front(self._pointer, spec, model)
        self._fronts.append(front)
        return front

    @property
    def logs(self) -> list[str]:
        """Lines of the log, each with its level in front."""
        return [f"{level}: {text}" for level, text in self._state()["logs"]]

    @property
    def series(self) -> list[dict[str, Any]]:
        """All series of all metrics: kind, name, help, labels, value and count."""
        return list(self._state()["metrics"])

    def metric(self, name: str, **labels: str) -> float:
        """Sums a metric over all series with these labels."""
        return float(sum(series["value"] for series in self._series(name, labels)))

    def count(self, name: str, **labels: str) -> int:
        """Counts the values that a histogram has observed."""
        return int(sum(series["count"] for series in self._series(name, labels)))

    def _series(self, name: str, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        found = [series for series in self.series if series["name"] == name]
        assert found, f"there is no metric {name}"
        return (series for series in found if labels.items() <= series["labels"].items())

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(take_text(call("engine_state", self._pointer)))
        return state


def to_bytes(array: Array) -> bytes:
    """Encodes a tensor as Triton's binary tensor extension does."""
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(len(element).to_bytes(4, "little") + element for element in array.ravel())


def from_bytes(dtype: str, shape: Sequence[int], data: bytes) -> Array:
    """Decodes a tensor from Triton's binary tensor extension."""
    if dtype != "BYTES":
        return np.frombuffer(data, to_numpy(dtype)).reshape(shape)
    elements = []
    while data:
        size = int.from_bytes(data[:4], "little")
        elements.append(data[4 : 4 + size])
        data = data[4 + size :]
    return texts(*elements).reshape(shape)


def texts(*elements: bytes) -> Array:
    """One-dimensional tensor of BYTES."""
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array
