"""Python wrapper of the compiled backend's ONNX models, over its C functions."""

import ctypes
import json
import site
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from jigsaw_triton.runtime.dtypes import to_triton
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec, to_json
from tests.native.core import Array, Failure, from_bytes, library, take_text, to_bytes

_P, _S, _I = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
_PP = ctypes.POINTER(_P)
_FUNCTIONS: Mapping[str, tuple[Any, list[Any]]] = {
    "find": (_P, [_S, _PP]),
    "load": (_P, [_S, _S, _S, ctypes.c_int, ctypes.c_int, _PP]),
    "free": (None, [_P]),
    "answer": (_P, [_P, _S, _S, _I, ctypes.c_int]),
    "answer_text": (_P, [_P, _I]),
    "answer_data": (_P, [_P, _I, _I]),
    "answer_free": (None, [_P]),
}

PACKAGES = ":".join(site.getsitepackages())
"""Folders of this interpreter's packages."""


class LoadError(Exception):
    """The library or a model was refused."""


@cache
def _functions() -> dict[str, Any]:
    found = {}
    for name, (result, arguments) in _FUNCTIONS.items():
        found[name] = getattr(library(), f"jigsaw_onnx_{name}")
        found[name].restype, found[name].argtypes = result, arguments
    return found


def call(name: str, *arguments: Any) -> Any:
    """Calls a function of the library."""
    return _functions()[name](*arguments)


def find_library(folders: str = PACKAGES) -> Path:
    """Returns the path of ONNX Runtime's library in one of the folders.

    Raises:
        LoadError: It is in none of them.
    """
    wrong = _P()
    found = call("find", folders.encode(), ctypes.byref(wrong))
    if wrong.value:
        raise LoadError(take_text(wrong.value))
    return Path(take_text(found))


def runner(inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], **more: Any) -> RunnerSpec:
    """Specification of a variant; the names of the tensors are the keys."""
    return RunnerSpec("onnxruntime", _named(inputs), _named(outputs), **more)


def _named(tensors: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())


class OnnxModel:
    """A loaded ONNX model."""

    def __init__(self, path: Path, spec: RunnerSpec | str, at: Path | None = None, *, gpu: bool = False) -> None:
        text = spec if isinstance(spec, str) else to_json(spec)
        self._inputs = [] if isinstance(spec, str) else [tensor.name for tensor in spec.inputs]
        wrong = _P()
        arguments = (str(at or find_library()).encode(), str(path).encode(), text.encode())
        self._pointer = call("load", *arguments, 1, int(gpu), ctypes.byref(wrong))
        if wrong.value:
            raise LoadError(take_text(wrong.value))

    def free(self) -> None:
        """Unloads the model."""
        pointer, self._pointer = self._pointer, None
        if pointer:
            call("free", pointer)

    def __del__(self) -> None:
        self.free()

    def answer(
        self, *requests: Mapping[str, Array], odd: bool = False, cut: int = 0
    ) -> list[dict[str, Array] | Failure]:
        """Answers the requests of a batch.

        Args:
            requests: Inputs by name of each request.
            odd: True if the data of the inputs begins at odd addresses.
            cut: Number of bytes that are missing at the end of the last input of the last request.
        """
        described, data = [], []
        for number, request in enumerate(requests, 1):
            arrays = [request[name] for name in self._inputs]
            parts = [to_bytes(array) for array in arrays]
            if cut and number == len(requests):
                parts[-1] = parts[-1][:-cut]
            data += parts
            described.append(
                [
                    {"dtype": to_triton(array.dtype), "shape": list(array.shape), "size": len(part)}
                    for array, part in zip(arrays, parts, strict=True)
                ]
            )
        joined = b"".join(data)
        found = call("answer", self._pointer, json.dumps(described).encode(), joined, len(joined), int(odd))
        try:
            return [self._result(found, index) for index in range(len(requests))]
        finally:
            call("answer_free", found)

    def ask(self, **inputs: Array) -> dict[str, Array]:
        """Answers one request, which must succeed."""
        (found,) = self.answer(inputs)
        assert isinstance(found, dict), found
        return found

    def _result(self, answers: int, index: int) -> dict[str, Array] | Failure:
        found = json.loads(take_text(call("answer_text", answers, index)))
        if "blame" in found:
            return Failure(found["blame"], found["message"])
        return {
            output["name"]: from_bytes(
                output["dtype"],
                output["shape"],
                ctypes.string_at(call("answer_data", answers, index, place), output["size"]),
            )
            for place, output in enumerate(found["outputs"])
        }


def in_threads(count: int, function: Any) -> None:
    """Calls a function in several threads at once, and raises the first exception."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def tensor(dtype: str, *shape: int) -> TensorSpec:
    """Type of a tensor of one item."""
    return TensorSpec("", dtype, shape)


def texts_of(rows: Sequence[Sequence[bytes]]) -> Array:
    """BYTES tensor of the given rows."""
    array = np.empty((len(rows), len(rows[0])), np.object_)
    for index, row in enumerate(rows):
        array[index, :] = row
    return array
