"""Python wrapper of a fake tritonserver that has loaded the compiled backend."""

import ctypes
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jigsaw_triton.runtime.dtypes import to_triton
from tests.native.core import Array, from_bytes, library, take_text, to_bytes
from tests.waiting import WAIT_LIMIT_S

CODES = ("UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS", "CANCELLED")
API = (1, 19)

_P, _S, _I, _D = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_double
_PP = ctypes.POINTER(_P)
_FUNCTIONS: Mapping[str, tuple[Any, list[Any]]] = {
    "start": (_P, [ctypes.c_uint32, ctypes.c_uint32]),
    "fail": (None, [_S]),
    "load": (_P, [_S, _S, _PP]),
    "unload": (None, [_P]),
    "execute": (_P, [_P, _S, _I, _S, _I, _PP, _PP]),
    "cancel": (None, [_P]),
    "wait": (ctypes.c_int, [_P, _D, ctypes.c_int]),
    "answer": (_P, [_P]),
    "answer_data": (_P, [_P, _I]),
    "answer_free": (None, [_P]),
    "state": (_P, []),
    "statistics": (None, [_P, ctypes.POINTER(ctypes.c_int64)]),
}


@cache
def _functions() -> dict[str, Any]:
    found = {}
    for name, (result, arguments) in _FUNCTIONS.items():
        found[name] = getattr(library(), f"triton_{name}")
        found[name].restype, found[name].argtypes = result, arguments
    return found


def call(name: str, *arguments: Any) -> Any:
    """Calls a function of the fake server."""
    return _functions()[name](*arguments)


class ServerError(Exception):
    """The backend rejected a model, or failed to start."""


@dataclass(frozen=True)
class Answer:
    """A response: outputs, or an error code and a message."""

    outputs: Mapping[str, Array]
    code: str | None
    message: str

    def __getitem__(self, output: str) -> Array:
        assert self.code is None, self.message
        return self.outputs[output]


class Request:
    """A request that was handed to the backend."""

    def __init__(self, answer: int, request: int) -> None:
        self._answer = answer
        self._request = request

    def __del__(self) -> None:
        call("answer_free", self._answer)

    def cancel(self) -> None:
        """Cancels the request, which must not be answered yet."""
        call("cancel", self._request)

    def answered(self, within_s: float = 0.0, *, released: bool = False) -> bool:
        """Returns True if the response is sent (and, if `released`, the request released) within this time."""
        return bool(call("wait", self._answer, within_s, int(released)))

    def wait(self) -> Answer:
        """Waits for the response."""
        assert self.answered(WAIT_LIMIT_S, released=True), f"the request was not answered within {WAIT_LIMIT_S:g} s"
        found = json.loads(take_text(call("answer", self._answer)))
        assert found["responses"] == 1
        if found["error"] is not None:
            assert not found["outputs"]
            return Answer({}, CODES[found["error"][0]], found["error"][1])
        outputs = {}
        for place, output in enumerate(found["outputs"]):
            data = ctypes.string_at(call("answer_data", self._answer, place), output["size"])
            assert output["name"] not in outputs
            outputs[output["name"]] = from_bytes(output["dtype"], output["shape"], data)
        return Answer(outputs, None, "")


class Model:
    """A model that the server has loaded through the backend."""

    def __init__(self, config: Mapping[str, Any] | str, folder: Path = Path()) -> None:
        wrong = _P()
        text = config if isinstance(config, str) else json.dumps(config)
        self._pointer = call("load", text.encode(), str(folder).encode(), ctypes.byref(wrong))
        if wrong.value:
            raise ServerError(take_text(wrong.value))

    def unload(self) -> None:
        """Unloads the model even if requests are in flight; returns when they are answered."""
        pointer, self._pointer = self._pointer, None
        if pointer:
            call("unload", pointer)

    def execute(self, *requests: Mapping[str, Any]) -> list[Request]:
        """Executes requests in one call; each has `inputs` and may have `id`, `outputs`, `timeout_us`, `parameters`."""
        described, data = [], b""
        for request in requests:
            inputs = []
            for name, array in request["inputs"].items():
                part = to_bytes(array)
                if len(requests) == 1:
                    data += part
                inputs.append(
                    {
                        "name": name,
                        "dtype": to_triton(array.dtype),
                        "shape": list(array.shape),
                        "size": len(part),
                        "buffers": request.get("buffers", 1),
                        "on_gpu": request.get("input_on_gpu", 0),
                    }
                )
            data = data if len(requests) == 1 else b"".join(map(to_bytes, request["inputs"].values()))
            described.append({**{k: v for k, v in request.items() if k != "inputs"}, "inputs": inputs})
        count = len(requests)
        answers, pointers = (_P * count)(), (_P * count)()
        text = json.dumps(described).encode()
        wrong = call("execute", self._pointer, text, len(text), data, len(data), answers, pointers)
        assert not wrong, take_text(wrong)
        return [Request(a or 0, p or 0) for a, p in zip(answers, pointers, strict=True)]

    def ask(self, inputs: Mapping[str, Array], **more: Any) -> Answer:
        """Executes one request and waits for its response."""
        return self.execute({"inputs": inputs, **more})[0].wait()

    @property
    def statistics(self) -> tuple[int, ...]:
        """Numbers of succeeded requests, failed requests, batches, and items of all batches."""
        counts = (ctypes.c_int64 * 4)()
        call("statistics", self._pointer, counts)
        return tuple(counts)


def start(api: tuple[int, int] = API) -> None:
    """Starts the server, which initializes the backend.

    Raises:
        ServerError: The backend refuses to start.
    """
    if wrong := call("start", *api):
        raise ServerError(take_text(wrong))


def fail(function: str) -> None:
    """Makes a function of the server fail from now on; an empty name ends this."""
    call("fail", function.encode())


def state() -> dict[str, Any]:
    """Number of live objects of each kind, logs, and metrics."""
    found: dict[str, Any] = json.loads(take_text(call("state")))
    return found


def config(spec: Mapping[str, Any], name: str = "front") -> dict[str, Any]:
    """Configuration of a model as the server passes it to the backend."""
    return {"name": name, "backend": "jigsaw", "parameters": {"spec": {"string_value": json.dumps(spec)}}}


def leaks() -> Sequence[str]:
    """Kinds of objects that the backend should have freed and has not."""
    found = state()
    return [kind for kind in ("errors", "messages", "parameters", "arguments", "requests", "responses") if found[kind]]
