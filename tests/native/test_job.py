"""Requests at one task: how they become calls, and how the answers become tensors of the request."""

from typing import Any

import numpy as np
import pytest

from tests.native.conftest import Bench, column
from tests.native.core import Array
from tests.native.specs import LIST, ONE, PAIRS, rows_spec, spec, task
from tests.native.worker import Call


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
