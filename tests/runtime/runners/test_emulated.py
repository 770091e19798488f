from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.profiles.service import ServiceTime
from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.runners.emulated import EmulatedRunner
from jigsaw_triton.runtime.spec import EmulationSpec, RunnerSpec, TensorSpec

X = (TensorSpec("X", "FP32", (-1,)),)
OUTPUTS = (
    TensorSpec("CROPS", "FP32", (-1, 3, -1)),
    TensorSpec("SCORE", "FP64", (1,)),
    TensorSpec("TEXT", "BYTES", (-1,)),
)
TIME = ServiceTime((1, 2, 4), (10.0, 15.0, 25.0), p95=1.4, p99=2.0, rest=0.1)
EVEN = EmulationSpec(tuple(TIME.medians_ms), TIME.p95, TIME.p99, TIME.rest, deterministic=True)
DRAWN = replace(EVEN, deterministic=False)
MANY = 4000


class Clock:
    """A clock that moves only by sleeping, which always ends too early."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds / 2, 1e-6)


def runner(
    clock: Clock, emulation: EmulationSpec = EVEN, *, instance: str = "a/m_0", pads: tuple[str, ...] = (), **rows: float
) -> EmulatedRunner:
    spec = RunnerSpec("emulated", X, OUTPUTS, False, pads=pads, emulation=replace(emulation, yields=rows))
    return EmulatedRunner(spec, instance, clock, clock.sleep)


def times_s(
    one: EmulatedRunner, clock: Clock, size: int = 1, *, batches: int = MANY, pause_s: float = 9.0
) -> list[float]:
    """Returns the times of batches with a pause before each."""
    found = []
    for _ in range(batches):
        clock.now += pause_s
        began = clock.now
        one.answer([{"X": np.zeros((size, 1))}])
        found.append(clock.now - began)
    return found


def rows_of(one: EmulatedRunner, calls: int = MANY) -> list[int]:
    results = one.answer([{"X": np.zeros((1, 1))} for _ in range(calls)])
    return [r["CROPS"].shape[1] for r in results if isinstance(r, dict)]


@pytest.mark.parametrize(
    ("sizes", "seconds"), [([1], 0.01), ([2], 0.015), ([1, 2], 0.02), ([4], 0.025), ([2, 2, 2], 0.025)]
)
def test_a_deterministic_batch_takes_the_median_of_its_size(sizes: list[int], seconds: float) -> None:
    clock = Clock()
    for number in (1, 2):
        runner(clock).answer([{"X": np.zeros((size, size + 1))} for size in sizes])
        assert number * seconds <= clock.now < number * seconds + 1e-4


def test_batches_take_times_of_the_profiles_distribution() -> None:
    found = times_s(runner(clock := Clock(), DRAWN), clock, size=2)
    percentiles = np.percentile(found, (50, 95, 99))
    assert percentiles == pytest.approx([0.015, 0.015 * 1.4, 0.015 * 2.0], rel=0.06)
    assert np.mean(found) == pytest.approx(0.015 * TIME.mean, rel=0.02)


def test_a_busy_instance_rests_as_long_as_the_profiles_throughput_demands() -> None:
    one = runner(clock := Clock(), DRAWN)
    assert sum(times_s(one, clock, size=4, pause_s=0.0)) == pytest.approx(MANY * TIME.occupied_ms / 1000, rel=0.02)


def test_instances_draw_independently_and_equal_ones_alike() -> None:
    def drawn(instance: str) -> tuple[list[float], list[int]]:
        one = runner(clock := Clock(), DRAWN, instance=instance, CROPS=2.6)
        return times_s(one, clock, batches=20), rows_of(one, 20)

    assert drawn("a/m_0") == drawn("a/m_0")
    assert drawn("a/m_0") != drawn("a/m_1")
    assert drawn("a/m_0") != drawn("b/m_0")


def test_outputs_are_zeros_of_the_declared_shapes() -> None:
    (result,) = runner(Clock(), DRAWN).answer([{"X": np.zeros((2, 1))}])
    assert isinstance(result, dict)
    assert {name: (a.shape, str(a.dtype)) for name, a in result.items()} == {
        "CROPS": ((2, 1, 3, 1), "float32"),
        "SCORE": ((2, 1), "float64"),
        "TEXT": ((2, 1), "object"),
    }
    assert not result["CROPS"].any()
    assert result["TEXT"].tolist() == [[b""], [b""]]


@pytest.mark.parametrize("expected", [0.0, 0.3, 1.0, 2.6])
def test_rows_are_poisson(expected: float) -> None:
    rows = rows_of(runner(Clock(), DRAWN, CROPS=expected))
    assert np.mean(rows) == pytest.approx(expected, rel=0.06)
    assert np.var(rows) == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("expected", [0.0, 0.3, 1.0, 2.6])
def test_deterministic_rows_are_even(expected: float) -> None:
    rows = rows_of(runner(Clock(), CROPS=expected), 100)
    assert sum(rows) == pytest.approx(100 * expected, abs=1)
    assert max(rows) - min(rows) <= 1
    assert rows_of(runner(Clock(), CROPS=expected), 100) == rows


def test_a_spec_without_service_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="needs the service times"):
        load_runner(tmp_path, RunnerSpec("emulated", X, OUTPUTS))


def test_items_with_different_numbers_of_rows_are_padded_to_one_batch() -> None:
    one = runner(Clock(), pads=("CROPS",), CROPS=1.5)
    first, second = one.answer([{"X": np.zeros((3, 1))}, {"X": np.zeros((1, 1))}])
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["JIGSAW_ROWS.CROPS"].tolist() == [[1], [2], [1]]
    assert second["JIGSAW_ROWS.CROPS"].tolist() == [[2]]
    assert (first["CROPS"].shape, second["CROPS"].shape) == ((3, 2, 3, 1), (1, 2, 3, 1))
    assert first["SCORE"].shape == (3, 1)


def test_each_item_of_a_padded_batch_draws_its_own_rows() -> None:
    (result,) = runner(Clock(), DRAWN, pads=("CROPS",), CROPS=2.6).answer([{"X": np.zeros((MANY, 1))}])
    assert isinstance(result, dict)
    rows = result["JIGSAW_ROWS.CROPS"][:, 0]
    assert np.mean(rows) == pytest.approx(2.6, rel=0.06)
    assert np.var(rows) == pytest.approx(2.6, rel=0.12)
    assert result["CROPS"].shape[1] == rows.max()
