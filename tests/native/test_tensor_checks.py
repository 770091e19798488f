"""Tensors of requests and of answers: their texts, data types and shapes, and those that are refused."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import to_triton
from tests.native.conftest import Bench, column
from tests.native.core import Array, texts
from tests.native.specs import ONE, PAIR, PAIRS, TEXT, rows_spec, spec, task
from tests.native.worker import Call

TEXTS = (b"", b"a", b"bb" * 700, b"\x00\xff")


def shout(call: Call) -> dict[str, Array]:
    return {"Y": texts(*(text + b"!" for text in call.inputs["X"].ravel())).reshape(-1, 1)}


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_texts_of_any_length_are_passed_on(bench: Bench, limit: int) -> None:
    worker = bench.worker(handler=shout)
    bench.route("w", batch=limit)
    made = spec([task(inputs={"X": ("inputs.X", TEXT)}, outputs={"Y": TEXT})], {"X": TEXT}, {"Y": ("t.Y", TEXT)})
    found = bench.engine.front(made).ask({"X": texts(*TEXTS).reshape(4, 1)})["Y"]
    assert found.ravel().tolist() == [text + b"!" for text in TEXTS]
    assert max(worker.batches) == min(limit, 4)


def test_texts_may_be_rows_or_repeated_for_each_row(bench: Bench) -> None:
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
