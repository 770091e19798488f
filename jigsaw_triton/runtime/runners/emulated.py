"""Runner that occupies its Triton instance for as long as the profiled model would, and answers with zeros."""

import time
from collections.abc import Callable, Mapping, Sequence
from math import floor
from pathlib import Path

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays, to_numpy
from jigsaw_triton.runtime.outcome import Failure
from jigsaw_triton.runtime.runners.base import Runner
from jigsaw_triton.runtime.spec import ROWS_PREFIX, RunnerSpec, TensorSpec


class EmulatedRunner(Runner):
    """Imitates the execution time and output shapes of a variant without its model.

    Args:
        spec: Specification of the variant, with `latency_ms` and `yields`.
        clock: Function that returns the current time in seconds.
        sleep: Function that sleeps for some seconds.

    Raises:
        RuntimeError: The spec has no latencies.
    """

    def __init__(
        self,
        spec: RunnerSpec,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(spec)
        self._latency_s = sorted((int(size), ms / 1000) for size, ms in spec.latency_ms.items())
        if not self._latency_s:
            raise RuntimeError("runner emulated needs latency_ms, from the rows of profiles.csv for its slice")
        self._clock = clock
        self._sleep = sleep
        self._answered = 0

    def answer(self, requests: Sequence[Arrays]) -> list[dict[str, Array] | Failure]:
        """Answers all requests after the time that a batch of all their items takes, even if they do not stack."""
        sizes = [len(next(iter(inputs.values()))) for inputs in requests]
        done_at = self._clock() + self._seconds(sum(sizes))
        answers: list[dict[str, Array] | Failure] = [self._zeros(size) for size in sizes]
        while (left_s := done_at - self._clock()) > 0:
            self._sleep(left_s)
        return answers

    def run(self, inputs: Arrays) -> Arrays:
        """Returns zeros for one batch without a delay."""
        return self._zeros(len(next(iter(inputs.values()))))

    def _seconds(self, items: int) -> float:
        return next((seconds for size, seconds in self._latency_s if size >= items), self._latency_s[-1][1])

    def _zeros(self, items: int) -> dict[str, Array]:
        first = self._answered
        self._answered += items if self.spec.pads else 1
        outputs = {}
        for output in self.spec.outputs:
            rows = [_rows(self.spec.yields, output.name, first)]
            if output.name in self.spec.pads:
                rows = [_rows(self.spec.yields, output.name, first + item) for item in range(items)]
                outputs[f"{ROWS_PREFIX}{output.name}"] = np.array(rows, np.int64).reshape(items, 1)
            outputs[output.name] = _zeros(output, items, max(rows, default=0))
        return outputs


def load(folder: Path, spec: RunnerSpec) -> EmulatedRunner:
    """Creates the runner, which needs no artifact."""
    return EmulatedRunner(spec)


def _rows(yields: Mapping[str, float], name: str, count: int) -> int:
    """Returns the number of rows of the count-th answer; their running mean converges to the expected number."""
    expected = yields.get(name, 1.0)
    return floor((count + 1) * expected) - floor(count * expected)


def _zeros(spec: TensorSpec, items: int, rows: int) -> Array:
    leading = tuple(rows if dim == -1 else dim for dim in spec.shape[:1])
    shape = (items, *leading, *(1 if dim == -1 else dim for dim in spec.shape[1:]))
    if spec.dtype == "BYTES":
        return np.full(shape, b"", np.object_)
    return np.zeros(shape, to_numpy(spec.dtype))
