"""Runner that occupies its Triton instance for as long as the profiled model would, and answers with zeros."""

import time
from collections.abc import Callable, Sequence
from math import floor
from pathlib import Path

import numpy as np

from jigsaw_triton.runtime import draws
from jigsaw_triton.runtime.dtypes import Array, Arrays, to_numpy
from jigsaw_triton.runtime.outcome import Failure
from jigsaw_triton.runtime.runners.base import Runner
from jigsaw_triton.runtime.spec import ROWS_PREFIX, EmulationSpec, RunnerSpec, TensorSpec


class EmulatedRunner(Runner):
    """Imitates the execution time and output shapes of a variant without its model.

    Args:
        spec: Specification of the variant, with `emulation`.
        instance: Name of the model's instance, which seeds its random numbers.
        clock: Function that returns the current time in seconds.
        sleep: Function that sleeps for some seconds.

    Raises:
        RuntimeError: The spec has no `emulation`.
    """

    def __init__(
        self,
        spec: RunnerSpec,
        instance: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(spec)
        if spec.emulation is None:
            raise RuntimeError("runner emulated needs the service times in profiles.csv for its slice")
        self._chance = (_Even if spec.emulation.deterministic else _Random)(spec.emulation, instance)
        self._medians_s = [ms / 1000 for ms in spec.emulation.medians_ms]
        self._clock = clock
        self._sleep = sleep
        self._idle_s = clock()

    def answer(self, requests: Sequence[Arrays]) -> list[dict[str, Array] | Failure]:
        """Answers all requests after the time that a batch of all their items takes, even if they do not stack."""
        sizes = [len(next(iter(inputs.values()))) for inputs in requests]
        median_s = self._medians_s[min(sum(sizes), len(self._medians_s) - 1)]
        done_at = max(self._clock(), self._idle_s) + median_s * self._chance.factor()
        self._idle_s = done_at + median_s * self._chance.rest
        answers: list[dict[str, Array] | Failure] = [self._zeros(size) for size in sizes]
        while (left_s := done_at - self._clock()) > 0:
            self._sleep(left_s)
        return answers

    def run(self, inputs: Arrays) -> Arrays:
        """Returns zeros for one batch without a delay."""
        return self._zeros(len(next(iter(inputs.values()))))

    def _zeros(self, items: int) -> dict[str, Array]:
        outputs = {}
        for output in self.spec.outputs:
            padded = output.name in self.spec.pads
            rows = self._chance.rows(output.name, items if padded else 1)
            if padded:
                outputs[f"{ROWS_PREFIX}{output.name}"] = np.array(rows, np.int64).reshape(items, 1)
            outputs[output.name] = _zeros(output, items, max(rows, default=0))
        return outputs


class _Random:
    """Times and rows that are drawn; equal instances draw the same."""

    def __init__(self, spec: EmulationSpec, instance: str) -> None:
        self._spec = spec
        self._rng = np.random.default_rng(list(instance.encode()))
        self.rest = spec.rest

    def factor(self) -> float:
        """Returns the time of the next batch relative to its median."""
        return float(draws.factors(self._rng.standard_normal(1), self._spec.p95, self._spec.p99)[0])

    def rows(self, output: str, calls: int) -> list[int]:
        """Returns the rows of the next calls in an output. An output without expected rows has one for each call."""
        mean = self._spec.yields.get(output)
        return [1] * calls if mean is None else draws.rows(np.full(calls, mean), self._rng).tolist()


class _Even:
    """Times and rows that do not vary: the running mean of the rows is the expected number."""

    rest = 0.0

    def __init__(self, spec: EmulationSpec, _instance: str) -> None:
        self._yields = spec.yields
        self._made: dict[str, int] = {}

    def factor(self) -> float:
        """Returns 1."""
        return 1.0

    def rows(self, output: str, calls: int) -> list[int]:
        """Returns the rows of the next calls in an output."""
        mean, first = self._yields.get(output, 1.0), self._made.get(output, 0)
        self._made[output] = first + calls
        return [floor((call + 1) * mean) - floor(call * mean) for call in range(first, first + calls)]


def load(_folder: Path, spec: RunnerSpec, instance: str) -> EmulatedRunner:
    """Creates the runner, which needs no artifact."""
    return EmulatedRunner(spec, instance)


def _zeros(spec: TensorSpec, items: int, rows: int) -> Array:
    leading = tuple(rows if dim == -1 else dim for dim in spec.shape[:1])
    shape = (items, *leading, *(1 if dim == -1 else dim for dim in spec.shape[1:]))
    if spec.dtype == "BYTES":
        return np.full(shape, b"", np.object_)
    return np.zeros(shape, to_numpy(spec.dtype))
