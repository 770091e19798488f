"""The core of the compiled backend for tests: engines, fronts and requests over its C functions."""

import ctypes
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.runtime.dtypes import to_numpy, to_triton
from native.build import build_testing

Array = NDArray[Any]

PATIENCE_S = 60.0
"""Seconds after which a test takes a request for stuck."""

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
}


@cache
def library() -> ctypes.CDLL:
    """The library that holds the core, built if something has changed."""
    loaded = ctypes.CDLL(str(build_testing()))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, f"jigsaw_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


def call(name: str, *arguments: Any) -> Any:
    """Calls a function of the library."""
    return getattr(library(), f"jigsaw_{name}")(*arguments)


def taken(pointer: int) -> str:
    """A text of the library, which is freed there."""
    text = ctypes.string_at(pointer).decode(errors="surrogateescape")
    call("text_free", pointer)
    return text


@dataclass(frozen=True)
class Failure:
    """Why a request failed, and whose fault it is: request, model, worker or cancelled."""

    blame: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """The answer to a request.

    Attributes:
        outputs: Output -> value; empty for a failure.
        failure: Failure, or None.
        sent_ns: When the first batch was sent; 0 for never.
        received_ns: When the last batch was answered; 0 for never.
        arrival_ns: When the request came.
        items: Items of the request's batch.
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
        """Whose fault the failure is."""
        assert self.failure is not None
        return self.failure.blame

    @property
    def message(self) -> str:
        """The failure's message."""
        assert self.failure is not None
        return self.failure.message


class Request:
    """A request under way."""

    def __init__(self, pointer: int, outputs: Sequence[str]) -> None:
        self._pointer: int | None = pointer
        self._outputs = outputs

    def __del__(self) -> None:
        if self._pointer is not None:
            call("request_free", self._pointer)

    def cancel(self) -> None:
        """The client goes away."""
        call("request_cancel", self._pointer)

    def ended(self, within_s: float = 0.0) -> bool:
        """Whether the core has answered it and needs it no more, at the latest after some seconds."""
        return bool(call("request_wait", self._pointer, within_s))

    def wait(self, within_s: float = PATIENCE_S) -> Outcome:
        """The answer."""
        assert self.ended(within_s), "the request is not answered"
        found = json.loads(taken(call("request_outcome", self._pointer)))
        assert found["responses"] == 1
        failure = Failure(**found["failure"]) if found["failure"] is not None else None
        outputs: dict[str, Array] = {}
        for place, output in enumerate(found["outputs"] if failure is None else []):
            name = self._outputs[output["index"]]
            assert name not in outputs, f"the output {name} came twice"
            data = ctypes.string_at(call("request_data", self._pointer, place), output["size"])
            outputs[name] = from_bytes(output["dtype"], output["shape"], data)
        return Outcome(outputs, failure, found["sent"], found["received"], found["arrival"], found["items"])


class Front:
    """A front in the engine. Leaving the `with` block waits until nothing of it is under way."""

    def __init__(self, engine: int, spec: Mapping[str, Any], model: str) -> None:
        text = json.dumps(spec).encode()
        error = _P()
        self._pointer = call("front_new", engine, model.encode(), text, len(text), ctypes.byref(error))
        if not self._pointer:
            assert error.value
            raise ValueError(taken(error.value))
        self._inputs = [item["name"] for item in spec["inputs"]]
        self._outputs = [item["name"] for item in spec["outputs"]]

    def __enter__(self) -> "Front":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits until nothing of it is under way, and ends it."""
        pointer, self._pointer = self._pointer, None
        if pointer:
            call("front_free", pointer)

    def send(self, inputs: Mapping[str, Array], **more: Any) -> Request:
        """Sends a request.

        Args:
            inputs: Input -> value with a batch dimension.
            more: What comes with it: `id`, `timeout_us`, `priority`, `wanted`, `arrival`, `deadline`, `refuse_output`.
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
        """Sends inputs that are described by `dtype`, `shape` and `size`, whatever their data are."""
        text = json.dumps({"inputs": inputs, **more}).encode()
        pointers = (_P * count)()
        error = call("submit", self._pointer, text, len(text), data, len(data), count, pointers)
        assert not error, taken(error)
        return [Request(pointer, self._outputs) for pointer in pointers if pointer]

    def ask(self, inputs: Mapping[str, Array], **more: Any) -> Outcome:
        """Sends a request and waits for its answer."""
        return self.send(inputs, **more).wait()


class Engine:
    """The core, with a run directory."""

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
        """Waits until nothing of any front is under way, and ends them."""
        for front in self._fronts:
            front.close()

    def front(self, spec: Mapping[str, Any], model: str = "front") -> Front:
        """Makes a front, which ends with the engine unless it ended before."""
        front = Front(self._pointer, spec, model)
        self._fronts.append(front)
        return front

    @property
    def logs(self) -> list[str]:
        """Lines that were logged, beginning with their level."""
        return [f"{level}: {text}" for level, text in self._state()["logs"]]

    @property
    def series(self) -> list[dict[str, Any]]:
        """All series of all metrics: kind, name, labels, value and count."""
        return list(self._state()["metrics"])

    def metric(self, name: str, **labels: str) -> float:
        """Value of a metric: the sum over all series that have these labels."""
        return float(sum(series["value"] for series in self._series(name, labels)))

    def count(self, name: str, **labels: str) -> int:
        """Number of values that a histogram observed."""
        return int(sum(series["count"] for series in self._series(name, labels)))

    def _series(self, name: str, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        found = [series for series in self.series if series["name"] == name]
        assert found, f"there is no metric {name}"
        return (series for series in found if labels.items() <= series["labels"].items())

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(taken(call("engine_state", self._pointer)))
        return state


class ServiceTimes:
    """Service times of one model at one worker, in milliseconds."""

    def __init__(self, profile_ms: Mapping[int, float]) -> None:
        self._pointer = call("times_new", json.dumps(profile_ms).encode())

    def __del__(self) -> None:
        call("times_free", self._pointer)

    def add(self, items: int, took_ms: float) -> None:
        """A batch took that long."""
        call("times_add", self._pointer, items, int(took_ms * 1e6))

    def mean(self, items: int) -> float:
        """Expected time of a batch."""
        return float(call("times_mean", self._pointer, items)) / 1e6

    def high(self, items: int) -> float:
        """Time that few batches exceed."""
        return float(call("times_high", self._pointer, items)) / 1e6


def parse_spec(text: str | bytes) -> dict[str, Any]:
    """What the reader of specifications says: {"tasks", "tensors"} or {"error"}."""
    return _parsed("parse_spec", text)


def parse_route(text: str | bytes) -> dict[str, Any]:
    """What the reader of routes says: {"entries"} or {"error"}."""
    return _parsed("parse_route", text)


def read_answer(data: bytes, sizes: Sequence[int] = (1 << 30,), *, inference: bool = True) -> dict[str, Any]:
    """What the reader of answers says of bytes that come in pieces of these sizes, over and over."""
    found = call("read_answer", data, len(data), (_I * len(sizes))(*sizes), len(sizes), int(inference))
    answer: dict[str, Any] = json.loads(taken(found))
    return answer


def _parsed(name: str, text: str | bytes) -> dict[str, Any]:
    data = text if isinstance(text, bytes) else text.encode()
    parsed: dict[str, Any] = json.loads(taken(call(name, data, len(data))))
    return parsed


def to_bytes(array: Array) -> bytes:
    """The bytes of a tensor as they travel."""
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(len(element).to_bytes(4, "little") + element for element in array.ravel())


def from_bytes(dtype: str, shape: Sequence[int], data: bytes) -> Array:
    """A tensor of its bytes."""
    if dtype != "BYTES":
        return np.frombuffer(data, to_numpy(dtype)).reshape(shape)
    elements = []
    while data:
        size = int.from_bytes(data[:4], "little")
        elements.append(data[4 : 4 + size])
        data = data[4 + size :]
    return texts(*elements).reshape(shape)


def texts(*elements: bytes) -> Array:
    """A tensor of BYTES with one dimension."""
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array


def eventually(holds: Callable[[], bool]) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.002)
