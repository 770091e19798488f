"""Conditions under which a task runs, and the types that they compare."""

import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import to_triton
from tests.native.conftest import Bench, column
from tests.native.core import Array
from tests.native.specs import ONE, rows_spec, spec, task


@pytest.mark.parametrize(
    ("dtype", "value", "above"),
    [
        (dtype, value, above)
        for dtype in (np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64)
        for value, above in ((6, True), (5, False), (4, False))
    ]
    + [
        (dtype, value, above)
        for dtype in (np.float16, np.float32, np.float64)
        for value, above in ((5.25, True), (5.0, False), (-6, False), (np.nan, False), (np.inf, True))
    ],
)
@pytest.mark.parametrize("bound", ["above", "below"])
def test_a_condition_compares_with_a_bound(bench: Bench, dtype: type, value: float, above: bool, bound: str) -> None:
    below = value < 5
    array: Array = np.array([[value]], dtype)
    found = condition_rows(bench, array, {bound: 5.0})
    assert found == int(above if bound == "above" else below)


@pytest.mark.parametrize(("dtype", "data", "rows"), [("BOOL", b"\x01", 1), ("BOOL", b"\x00", 0)])
def test_a_bool_counts_as_0_or_1_in_a_condition(bench: Bench, dtype: str, data: bytes, rows: int) -> None:
    assert condition_rows(bench, np.frombuffer(data, np.bool_).reshape(1, 1), {"above": 0.5}) == rows


@pytest.mark.parametrize(
    ("bits", "rows"),
    [(0x3F80, 1), (0x3E80, 0), (0xBF80, 0), (0x7F80, 1), (0x7FC0, 0)],
    ids=["1", "0.25", "-1", "infinity", "nan"],
)
def test_bf16_compares_by_value_in_a_condition(bench: Bench, bits: int, rows: int) -> None:
    array = np.array([[bits]], np.uint16).view(np.dtype([("bf16", "<u2")]))
    assert condition_rows(bench, array, {"above": 0.5}) == rows


@pytest.mark.parametrize(("bits", "rows"), [(0x0001, 1), (0x8001, 0), (0x03FF, 1), (0x0000, 0)])
def test_subnormal_fp16_compares_by_value_in_a_condition(bench: Bench, bits: int, rows: int) -> None:
    assert condition_rows(bench, np.array([[bits]], np.uint16).view(np.float16), {"above": 0.0}) == rows


def condition_rows(bench: Bench, array: Array, condition: dict[str, float]) -> int:
    """Number of rows, 0 or 1, for which a conditional task runs."""
    bench.worker()
    bench.route("w")
    kind = (to_triton(array.dtype), (1,))
    made = task(mode="rows", condition={"tensor": "inputs.WHEN", **condition})
    outputs = {"Y": ("t.Y", ("INT64", (-1, 1)))}
    front = bench.engine.front(spec([made], {"X": ONE, "WHEN": kind}, outputs))
    found = front.ask({"X": column(4), "WHEN": array})["Y"]
    assert found.tolist() == [[[8]] * found.shape[1]]
    assert bench.engine.metric("jigsaw_condition_checked_total") == 1
    assert bench.engine.metric("jigsaw_condition_held_total") == found.shape[1]
    return int(found.shape[1])


def test_a_condition_needs_one_element(bench: Bench) -> None:
    bench.route("nobody")
    made = rows_spec(condition={"tensor": "inputs.ROWS", "above": 0.5})
    outcome = bench.engine.front(made).ask({"ROWS": np.zeros((1, 3, 2), np.int64), "K": column(1)})
    assert outcome.blame == "request"
    assert "needs a tensor of one element" in outcome.message and "[1, 3, 2]" in outcome.message


def test_a_false_condition_yields_no_rows(bench: Bench) -> None:
    bench.route("nobody")
    made = rows_spec(condition={"tensor": "inputs.K", "above": 1.5})
    found = bench.engine.front(made).ask({"ROWS": np.zeros((1, 3, 2), np.int64), "K": column(1)})["Y"]
    assert found.shape == (1, 0, 1)
