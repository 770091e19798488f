"""Requests at one task: how they become calls, and how the answers become tensors of the request."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import to_triton
from tests.native.conftest import Bench, column
from tests.native.core import Array, texts
from tests.native.specs import spec, task
from tests.native.worker import Call

PAIR = ("INT64", (2,))
PAIRS = ("INT64", (-1, 2))
ONE = ("INT64", (1,))
TEXT = ("BYTES", (1,))
LIST = ("INT64", (-1,))


def rows_spec(**more: Any) -> dict[str, Any]:
    """Front of a task that is called for each row of ROWS, each time with all of K."""
    inputs = {"X": ("inputs.ROWS", PAIR), "K": ("inputs.K", ONE)}
    made = task(inputs=inputs, outputs={"Y": ONE}, mode="rows", iterated=["X"], **more)
    return spec([made], {"ROWS": PAIRS, "K": ONE}, {"Y": ("t.Y", ("INT64", (-1, 1)))})


def weigh(call: Call) -> dict[str, Array]:
    return {"Y": call.inputs["K"] * call.inputs["X"].sum(axis=1, keepdims=True)}


def test_fixed_shapes_are_stacked_along_the_batch(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=8)
    assert bench.front().ask({"X": column(1, 2, 3)})["Y"].tolist() == [[2], [4], [6]]
    assert worker.batches == [3]


def test_a_batch_is_split_at_the_batch_size_of_the_worker(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=4)
    values = np.arange(10).reshape(10, 1)
    assert bench.front().ask({"X": values})["Y"].tolist() == (2 * values).tolist()
    assert worker.batches == [4, 4, 2]


def test_an_empty_batch_is_answered_without_a_worker(bench: Bench) -> None:
    bench.route("nobody")
    outcome = bench.front().ask({"X": np.empty((0, 1), np.int64)})
    assert outcome["Y"].shape == (0, 1)
    assert outcome.sent_ns == 0


def test_rows_are_items_and_other_inputs_are_repeated(bench: Bench) -> None:
    worker = bench.worker(handler=weigh)
    bench.route("w", batch=4)
    front = bench.engine.front(rows_spec())
    rows = np.arange(12).reshape(2, 3, 2)
    found = front.ask({"ROWS": rows, "K": column(10, 100)})["Y"]
    assert found.tolist() == (rows.sum(axis=2, keepdims=True) * [[[10]], [[100]]]).tolist()
    assert worker.batches == [4, 2]
    assert worker.calls[0].inputs["K"].ravel().tolist() == [10, 10, 10, 100]


def test_a_request_without_rows_makes_no_calls(bench: Bench) -> None:
    bench.route("nobody")
    front = bench.engine.front(rows_spec())
    found = front.ask({"ROWS": np.empty((2, 0, 2), np.int64), "K": column(1, 2)})["Y"]
    assert found.shape == (2, 0, 1)


def test_items_of_varying_shape_are_separate_calls(bench: Bench) -> None:
    worker = bench.worker(handler=lambda call: {"Y": call.inputs["X"].sum(axis=1, keepdims=True)})
    bench.route("w", batch=2)
    made = spec([task(inputs={"X": ("inputs.X", LIST)}, mode="items")], {"X": LIST})
    assert bench.engine.front(made).ask({"X": np.ones((3, 5), np.int64)})["Y"].tolist() == [[5], [5], [5]]
    assert worker.batches == [1, 1, 1]
    assert worker.max_concurrent <= 2


def test_answers_of_different_shapes_cannot_be_stacked(bench: Bench) -> None:
    bench.worker(handler=lambda call: {"Y": np.zeros((1, int(call.inputs["X"][0, 0])), np.int64)})
    bench.route("w")
    made = spec([task(outputs={"Y": LIST}, mode="items")], outputs={"Y": ("t.Y", LIST)})
    front = bench.engine.front(made)
    assert front.ask({"X": column(3, 3)})["Y"].shape == (2, 3)
    outcome = front.ask({"X": column(1, 2)})
    assert outcome.blame == "request"
    assert "output Y differs in shape between the items of the request" in outcome.message


@pytest.mark.parametrize("elements", [1, 20_000])
def test_answers_of_any_size_are_joined_in_the_order_of_their_items(bench: Bench, elements: int) -> None:
    # Above 64 KiB answers are joined without the lock, while others are served.
    bench.worker(handler=lambda call: {"Y": np.repeat(call.inputs["X"], elements, axis=1)})
    bench.route("w", slots=4)
    made = spec([task(outputs={"Y": LIST}, mode="items")], outputs={"Y": ("t.Y", LIST)})
    front = bench.engine.front(made)
    requests = front.send_many(8, {"X": column(3, 1, 4, 1, 5)})
    for request in requests:
        assert request.wait()["Y"].tolist() == np.repeat(column(3, 1, 4, 1, 5), elements, axis=1).tolist()


def test_large_answers_of_different_shapes_fail_only_their_request(bench: Bench) -> None:
    bench.worker(handler=lambda call: {"Y": np.zeros((1, 20_000 * int(call.inputs["X"][0, 0])), np.int64)})
    bench.route("w")
    made = spec([task(outputs={"Y": LIST}, mode="items")], outputs={"Y": ("t.Y", LIST)})
    front = bench.engine.front(made)
    other = front.send({"X": column(2, 2)})
    outcome = front.ask({"X": column(1, 2)})
    assert outcome.blame == "request"
    assert "output Y differs in shape between the items of the request: [20000], [40000]" in outcome.message
    assert other.wait()["Y"].shape == (2, 40_000)


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
def test_a_condition_on_a_bool(bench: Bench, dtype: str, data: bytes, rows: int) -> None:
    assert condition_rows(bench, np.frombuffer(data, np.bool_).reshape(1, 1), {"above": 0.5}) == rows


@pytest.mark.parametrize(
    ("bits", "rows"),
    [(0x3F80, 1), (0x3E80, 0), (0xBF80, 0), (0x7F80, 1), (0x7FC0, 0)],
    ids=["1", "0.25", "-1", "infinity", "nan"],
)
def test_a_condition_on_bf16(bench: Bench, bits: int, rows: int) -> None:
    array = np.array([[bits]], np.uint16).view(np.dtype([("bf16", "<u2")]))
    assert condition_rows(bench, array, {"above": 0.5}) == rows


@pytest.mark.parametrize(("bits", "rows"), [(0x0001, 1), (0x8001, 0), (0x03FF, 1), (0x0000, 0)])
def test_a_condition_on_subnormal_fp16(bench: Bench, bits: int, rows: int) -> None:
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


TEXTS = (b"", b"a", b"bb" * 700, b"\x00\xff")


def shout(call: Call) -> dict[str, Array]:
    return {"Y": texts(*(text + b"!" for text in call.inputs["X"].ravel())).reshape(-1, 1)}


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_texts_of_any_length(bench: Bench, limit: int) -> None:
    worker = bench.worker(handler=shout)
    bench.route("w", batch=limit)
    made = spec([task(inputs={"X": ("inputs.X", TEXT)}, outputs={"Y": TEXT})], {"X": TEXT}, {"Y": ("t.Y", TEXT)})
    found = bench.engine.front(made).ask({"X": texts(*TEXTS).reshape(4, 1)})["Y"]
    assert found.ravel().tolist() == [text + b"!" for text in TEXTS]
    assert max(worker.batches) == min(limit, 4)


def test_rows_of_texts_and_repeated_texts(bench: Bench) -> None:
    def join(call: Call) -> dict[str, Array]:
        pairs = zip(call.inputs["X"].ravel(), call.inputs["K"].ravel(), strict=True)
        return {"Y": texts(*(first + second for first, second in pairs)).reshape(-1, 1)}

    bench.worker(handler=join)
    bench.route("w", batch=3)
    inputs = {"X": ("inputs.ROWS", TEXT), "K": ("inputs.K", TEXT)}
    made = task(inputs=inputs, outputs={"Y": TEXT}, mode="rows", iterated=["X"])
    many = ("BYTES", (-1, 1))
    front = bench.engine.front(spec([made], {"ROWS": many, "K": TEXT}, {"Y": ("t.Y", many)}))
    found = front.ask({"ROWS": texts(*TEXTS).reshape(2, 2, 1), "K": texts(b"1", b"22").reshape(2, 1)})["Y"]
    assert found.shape == (2, 2, 1)
    assert found.ravel().tolist() == [b"1", b"a1", TEXTS[2] + b"22", TEXTS[3] + b"22"]


@pytest.mark.parametrize(
    ("shape", "data", "words"),
    [
        ([2, 1], b"\1\0\0\0a", "ends before its last element"),
        ([1, 1], b"\1\0\0\0a\0\0\0\0", "has bytes after its last element"),
        ([1, 1], b"\5\0\0\0a", "longer than the tensor"),
        ([1, 1], b"\xff\xff\xff\xff", "longer than the tensor"),
        ([1 << 40, 1], b"\1\0\0\0a", "ends before its last element|too many rows"),
        ([1 << 55, 1], b"", "ends before its last element|too many rows"),
        ([1 << 60, 1], b"", "has shape"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_malformed_texts_of_a_request_are_rejected(
    bench: Bench, shape: list[int], data: bytes, words: str, split: bool
) -> None:
    bench.worker(handler=shout)
    bench.route("w")
    made = spec(
        [task(inputs={"X": ("inputs.X", TEXT)}, outputs={"Y": TEXT})],
        {"X": TEXT},
        {"Y": ("t.Y", TEXT)},
        split=split,
    )
    (request,) = bench.engine.front(made).send_raw(1, [{"dtype": "BYTES", "shape": shape, "size": len(data)}], data)
    outcome = request.wait()
    assert outcome.blame == "request"
    assert re.search(words, outcome.message)


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "words"),
    [
        ("INT32", [1, 1], 4, "is of type INT32 where INT64 was declared"),
        ("INT64", [1, 2], 16, "has shape [1, 2] where each item has [1]"),
        ("INT64", [1], 8, "has shape [1] where each item has [1]"),
        ("INT64", [], 8, "has shape [] where"),
        ("INT64", [1, 1], 4, "has 4 bytes"),
        ("INT64", [2, 1], 8, "has 8 bytes"),
        ("INT64", [1 << 62, 1], 0, "has shape"),
        ("INT64", [-1, 1], 0, "has shape"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_inputs_that_differ_from_their_declaration_are_rejected(
    bench: Bench, dtype: str, shape: list[int], size: int, words: str, split: bool
) -> None:
    bench.worker()
    bench.route("w")
    front = bench.front(split=split)
    (request,) = front.send_raw(1, [{"dtype": dtype, "shape": shape, "size": size}], bytes(size))
    outcome = request.wait()
    assert outcome.blame == "request"
    assert words in outcome.message
    assert front.ask({"X": column(1)})["Y"].tolist() == [[2]]


def test_the_number_of_empty_rows_is_limited(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    made = task(inputs={"X": ("inputs.X", ("INT64", (-1,)))}, mode="rows", iterated=["X"])
    outputs = {"Y": ("t.Y", ("INT64", (-1, 1)))}
    front = bench.engine.front(spec([made], {"X": ("INT64", (-1, -1))}, outputs))
    (request,) = front.send_raw(1, [{"dtype": "INT64", "shape": [1, 1 << 50, 0], "size": 0}], b"")
    assert "too many rows" in request.wait().message


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"ROWS": np.zeros((2, 3, 2), np.int64), "K": column(1)}, "inputs differ in batch size: X has 2, K has 1"),
        ({"ROWS": np.zeros((1, 3, 2), np.int64), "K": column(1, 2)}, "inputs differ in batch size: X has 1, K has 2"),
    ],
)
def test_inputs_of_different_batch_sizes_are_rejected(bench: Bench, inputs: dict[str, Array], words: str) -> None:
    bench.route("nobody")
    outcome = bench.engine.front(rows_spec()).ask(inputs)
    assert outcome.blame == "request"
    assert words in outcome.message
    assert bench.engine.metric("jigsaw_refused_total", reason="request") == 1


def test_iterated_inputs_need_the_same_number_of_rows(bench: Bench) -> None:
    bench.route("nobody")
    inputs = {"X": ("inputs.A", PAIR), "Z": ("inputs.B", PAIR), "K": ("inputs.K", ONE)}
    made = task(inputs=inputs, mode="rows", iterated=["X", "Z"])
    outputs = {"Y": ("t.Y", ("INT64", (-1, 1)))}
    front = bench.engine.front(spec([made], {"A": PAIRS, "B": PAIRS, "K": ONE}, outputs))
    a, b = np.zeros((1, 2, 2), np.int64), np.zeros((1, 3, 2), np.int64)
    outcome = front.ask({"A": a, "B": b, "K": column(1)})
    assert "inputs differ in number of rows: X has 2, Z has 3" in outcome.message


def repeat(call: Call) -> dict[str, Array]:
    """Yields as many rows as the input says."""
    count = int(call.inputs["X"][0, 0])
    return {"R": (100 * count + np.arange(2 * count)).reshape(1, count, 2)}


def yields_spec(mode: str, **more: Any) -> dict[str, Any]:
    """Front of a task that yields rows and counts them; in mode `rows` it also iterates over rows."""
    rows = mode == "rows"
    inputs = {"X": ("inputs.X", ONE)}
    made = task(
        inputs=inputs,
        outputs={"R": PAIRS},
        mode=mode,
        iterated=["X"] if rows else (),
        yields=["R"],
        counts={"N": "R"},
    )
    outputs = {"R": ("t.R", PAIRS), "N": ("t.N", ("INT64", (-1, 1)) if rows else ONE)}
    return spec([made], {"X": ("INT64", (-1, 1)) if rows else ONE}, outputs, **more)


@pytest.mark.parametrize("counts", [[3], [1, 0, 2], [0, 0], [3, 1, 4, 1, 5, 9, 2, 6]])
def test_nested_rows_are_concatenated_and_counted_for_each_call(bench: Bench, counts: list[int]) -> None:
    worker = bench.worker(handler=repeat)
    bench.route("w", batch=3)
    front = bench.engine.front(yields_spec("rows"))
    outcome = front.ask({"X": np.array([counts], np.int64).reshape(1, -1, 1)})
    expected = np.concatenate([100 * n + np.arange(2 * n).reshape(n, 2) for n in counts])
    assert outcome["R"].tolist() == [expected.tolist()]
    assert outcome["N"].tolist() == [[[n] for n in counts]]
    assert set(worker.batches) == {1}
    assert bench.engine.metric("jigsaw_yield_items_total") == len(counts)
    assert bench.engine.metric("jigsaw_yield_rows_total") == sum(counts)


def test_without_rows_there_are_no_nested_rows(bench: Bench) -> None:
    bench.route("nobody")
    outcome = bench.engine.front(yields_spec("rows")).ask({"X": np.empty((2, 0, 1), np.int64)})
    assert outcome["R"].shape == (2, 0, 2)
    assert outcome["N"].shape == (2, 0, 1)


def test_batch_entries_need_the_same_number_of_nested_rows(bench: Bench) -> None:
    bench.worker(handler=repeat)
    bench.route("w")
    front = bench.engine.front(yields_spec("rows"))
    assert front.ask({"X": np.array([[[1], [3]], [[2], [2]]], np.int64)})["R"].shape == (2, 4, 2)
    outcome = front.ask({"X": np.array([[[1], [3]], [[2], [3]]], np.int64)})
    assert outcome.blame == "request"
    assert "differs in shape between the items of the request: [4], [5]" in outcome.message


def test_a_task_in_mode_stack_may_yield_rows(bench: Bench) -> None:
    bench.worker(handler=repeat)
    bench.route("w")
    front = bench.engine.front(yields_spec("stack"))
    outcome = front.ask({"X": column(3)})
    assert outcome["R"].shape == (1, 3, 2)
    assert outcome["N"].tolist() == [[3]]
    assert "differs in shape" in front.ask({"X": column(1, 2)}).message


def test_the_items_of_a_split_batch_are_independent(bench: Bench) -> None:
    bench.worker(handler=repeat)
    bench.route("w")
    front = bench.engine.front(yields_spec("stack", split=True))
    assert front.ask({"X": column(2, 2, 2)})["N"].tolist() == [[2], [2], [2]]
    outcome = front.ask({"X": column(1, 2)})
    assert outcome.blame == "request"
    assert "send them one by one" in outcome.message


def changed(change: Callable[[dict[str, Array]], dict[str, Array]]) -> Callable[[Call], dict[str, Array]]:
    return lambda call: change({"Y": 2 * call.inputs["X"]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda outputs: {}, "output Y is missing"),
        (lambda outputs: {"Z": outputs["Y"]}, "output Y is missing"),
        (lambda outputs: {"Y": outputs["Y"].astype(np.int32)}, "is of type INT32 where INT64 was declared"),
        (lambda outputs: {"Y": outputs["Y"][:, 0]}, "has shape [2] where [2, 1] was declared"),
        (lambda outputs: {"Y": outputs["Y"][:1]}, "has shape [1, 1] where [2, 1] was declared"),
        (lambda outputs: {"Y": outputs["Y"].reshape(1, 2)}, "has shape [1, 2] where [2, 1] was declared"),
        (lambda outputs: {"Y": texts(b"1", b"2").reshape(2, 1)}, "is of type BYTES where INT64"),
    ],
)
def test_outputs_that_differ_from_their_declaration_are_the_models_fault(
    bench: Bench, change: Callable[[dict[str, Array]], dict[str, Array]], words: str
) -> None:
    worker = bench.worker(handler=changed(change))
    bench.route("w")
    front = bench.front()
    outcome = front.ask({"X": column(1, 2)})
    assert outcome.blame == "model"
    assert outcome.message.startswith("task t: worker w: ")
    assert words in outcome.message
    worker.handler = lambda call: {"Y": 2 * call.inputs["X"], "MORE": np.zeros((9, 9), np.float32)}
    assert front.ask({"X": column(1, 2)})["Y"].tolist() == [[2], [4]]


def test_malformed_texts_of_an_answer_are_the_models_fault(bench: Bench) -> None:
    def cut(call: Call) -> bytes:
        return call.answer({"Y": texts(b"long enough").reshape(1, 1)}).replace(b"\x0b\0\0\0long", b"\x0c\0\0\0long")

    bench.worker(handler=cut)
    bench.route("w")
    made = spec([task(outputs={"Y": TEXT})], outputs={"Y": ("t.Y", TEXT)})
    outcome = bench.engine.front(made).ask({"X": column(1)})
    assert outcome.blame == "model"
    assert "output Y: an element of a BYTES tensor is longer than the tensor" in outcome.message


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"],
)
def test_every_data_type_round_trips(bench: Bench, dtype: str) -> None:
    bench.worker(handler=lambda call: {"Y": call.inputs["X"]})
    bench.route("w")
    array = np.frombuffer(bytes(range(48)), np.uint8)[: 6 * np.dtype(dtype).itemsize].view(dtype).reshape(2, 3)
    kind = (to_triton(np.dtype(dtype)), (3,))
    made = spec([task(inputs={"X": ("inputs.X", kind)}, outputs={"Y": kind})], {"X": kind}, {"Y": ("t.Y", kind)})
    assert bench.engine.front(made).ask({"X": array})["Y"].tobytes() == array.tobytes()


def test_a_scalar_has_only_the_batch_dimension(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    kind = ("INT64", ())
    made = spec([task(inputs={"X": ("inputs.X", kind)}, outputs={"Y": kind})], {"X": kind}, {"Y": ("t.Y", kind)})
    assert bench.engine.front(made).ask({"X": np.array([1, 2], np.int64)})["Y"].tolist() == [2, 4]
