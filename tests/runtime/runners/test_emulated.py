from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.runners.emulated import EmulatedRunner
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec

X = (TensorSpec("X", "FP32", (-1,)),)
OUTPUTS = (
    TensorSpec("CROPS", "FP32", (-1, 3, -1)),
    TensorSpec("SCORE", "FP64", (1,)),
    TensorSpec("TEXT", "BYTES", (-1,)),
)


class Clock:
    """A clock that moves only by sleeping, which always ends too early."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds / 2, 1e-6)


def runner(clock: Clock, **yields: float) -> EmulatedRunner:
    spec = RunnerSpec("emulated", X, OUTPUTS, False, latency_ms={"10": 50.0, "1": 10.0, "4": 20.0}, yields=yields)
    return EmulatedRunner(spec, clock, clock.sleep)


@pytest.mark.parametrize(
    ("sizes", "seconds"), [([1], 0.01), ([2], 0.02), ([1, 3], 0.02), ([5], 0.05), ([4, 4, 2], 0.05), ([12], 0.05)]
)
def test_a_batch_takes_the_time_of_its_size_rounded_up(sizes: list[int], seconds: float) -> None:
    clock = Clock()
    runner(clock).answer([{"X": np.zeros((size, size + 1))} for size in sizes])
    assert seconds <= clock.now < seconds + 1e-5


def test_outputs_are_zeros_of_the_declared_shapes() -> None:
    (result,) = runner(Clock()).answer([{"X": np.zeros((2, 1))}])
    assert isinstance(result, dict)
    assert {name: (a.shape, str(a.dtype)) for name, a in result.items()} == {
        "CROPS": ((2, 1, 3, 1), "float32"),
        "SCORE": ((2, 1), "float64"),
        "TEXT": ((2, 1), "object"),
    }
    assert not result["CROPS"].any()
    assert result["TEXT"].tolist() == [[b""], [b""]]


@pytest.mark.parametrize("expected", [0.0, 0.3, 1.0, 2.6])
def test_the_mean_number_of_rows_is_the_expected_one(expected: float) -> None:
    one = runner(Clock(), CROPS=expected)
    results = one.answer([{"X": np.zeros((1, 1))} for _ in range(100)])
    rows = [r["CROPS"].shape[1] for r in results if isinstance(r, dict)]
    assert sum(rows) == pytest.approx(100 * expected, abs=1)
    assert max(rows) - min(rows) <= 1
    again = runner(Clock(), CROPS=expected).answer([{"X": np.zeros((1, 1))} for _ in range(100)])
    assert [r["CROPS"].shape[1] for r in again if isinstance(r, dict)] == rows


def test_a_spec_without_latencies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="needs latency_ms"):
        load_runner(tmp_path, RunnerSpec("emulated", X, OUTPUTS))


def test_items_with_different_numbers_of_rows_are_padded_to_one_batch() -> None:
    outputs = (*OUTPUTS, TensorSpec("BOX", "FP32", (4,)))
    spec = RunnerSpec("emulated", X, outputs, False, latency_ms={"4": 20.0}, yields={"CROPS": 1.5}, pads=("CROPS",))
    one = EmulatedRunner(spec, clock := Clock(), clock.sleep)
    first, second = one.answer([{"X": np.zeros((3, 1))}, {"X": np.zeros((1, 1))}])
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["JIGSAW_ROWS.CROPS"].tolist() == [[1], [2], [1]]
    assert second["JIGSAW_ROWS.CROPS"].tolist() == [[2]]
    assert (first["CROPS"].shape, second["CROPS"].shape) == ((3, 2, 3, 1), (1, 2, 3, 1))
    assert first["BOX"].shape == (3, 4)
