"""Fake of the part of `triton_python_backend_utils` that the runtime uses; the real one exists only in tritonserver."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any, ClassVar

from jigsaw_triton.runtime.dlpack import from_capsule, to_capsule
from jigsaw_triton.runtime.dtypes import BF16, Array

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


class TritonError(Exception):
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE = range(5)

    def __init__(self, message: str, code: int = UNKNOWN) -> None:
        super().__init__(message)
        message.encode()  # The real one raises UnicodeEncodeError too.
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class TritonModelException(Exception):
    pass


class Metric:
    def __init__(self) -> None:
        self.total = 0.0

    def increment(self, value: float) -> None:
        self.total += value


class MetricFamily:
    """Shares metrics like the server: equal names and labels give the same metric, which outlives its model."""

    COUNTER = "counter"
    made: ClassVar[dict[tuple[str, ...], Metric]] = {}

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert kind == self.COUNTER
        self._name = name

    def Metric(self, labels: dict[str, str]) -> Metric:
        key = (self._name, *(f"{label}={value}" for label, value in sorted(labels.items())))
        return self.made.setdefault(key, Metric())


class Tensor:
    def __init__(self, name: str, array: Array) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    @classmethod
    def from_dlpack(cls, name: str, capsule: object) -> "Tensor":
        return cls(name, from_capsule(capsule))

    def as_numpy(self) -> Array:
        if self._array.dtype == BF16:
            raise TritonModelException("Tensor dtype is BF16 and cannot be converted to NumPy.")
        return self._array

    def to_dlpack(self) -> object:
        return to_capsule(self.values())

    def values(self) -> Array:
        """Returns the array, whatever its type. For tests only."""
        return self._array


class InferenceResponse:
    def __init__(self, tensors: list[Tensor], error: TritonError | None = None) -> None:
        self._tensors, self._error = tensors, error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error


@dataclass
class Sender:
    """A response sender that records what it sends."""

    sent: list[InferenceResponse] = field(default_factory=list)
    flags: int = 0
    event: Event = field(default_factory=Event)

    def send(self, response: InferenceResponse, flags: int) -> None:
        self.sent.append(response)
        self.flags = flags
        self.event.set()


class Request:
    """A request that `execute` receives."""

    def __init__(
        self,
        inputs: dict[str, Array],
        outputs: tuple[str, ...],
        timeout: int = 0,
        request_id: str = "",
        parameters: str = "",
    ) -> None:
        self._inputs, self._outputs, self._timeout, self._id = inputs, outputs, timeout, request_id
        self._parameters = parameters
        self.sender = Sender()

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, array) for name, array in self._inputs.items()]

    def requested_output_names(self) -> list[str]:
        return list(self._outputs)

    def request_id(self) -> str:
        return self._id

    def timeout(self) -> int:
        return self._timeout

    def parameters(self) -> str:
        return self._parameters

    def get_response_sender(self) -> Sender:
        return self.sender


class InferenceRequest:
    """A BLS request, which a function in `models` answers."""

    models: ClassVar[dict[str, Callable[["InferenceRequest"], InferenceResponse]]] = {}

    def __init__(self, **fields: Any) -> None:
        self.model_name: str = fields["model_name"]
        self.arrays = {tensor.name(): tensor.values() for tensor in fields["inputs"]}
        self.outputs: list[str] = fields["requested_output_names"]
        self.timeout: int = fields["timeout"]
        self.request_id: str = fields["request_id"]
        self.parameters: dict[str, str] = fields["parameters"]

    def exec(self) -> InferenceResponse:
        if self.model_name not in self.models:
            raise TritonModelException(f"model {self.model_name} is not ready")
        return self.models[self.model_name](self)
