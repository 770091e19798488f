from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.runtime.batches import Batch, Failure, Part
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.runtime.spec import CONDITION_INPUT, Condition, DispatcherSpec, Mode, TensorSpec

POISON = Failure("poisoned", "model")
GONE = Failure("worker gone", "worker")
ID = TensorSpec("ID", "INT64", (-1,), iterated=True)
"""Tells each item from every other: its number, as many times as the shape says."""
WHOLE = TensorSpec("WHOLE", "FP32", (2,))
"""Tells each request from every other, and is the same for all rows of it."""
OUTPUTS = (
    TensorSpec("SUM", "INT64", (2,)),
    TensorSpec("TEXT", "BYTES", (1,)),
    TensorSpec("ECHO", "INT64", (-1,)),
)


def spec(mode: Mode, condition: Condition | None = None) -> DispatcherSpec:
    return DispatcherSpec("g", "t", mode, (ID, WHOLE), OUTPUTS, condition)


def model(inputs: Arrays) -> dict[str, Array]:
    """What a worker does: every output says which item, of which request, it is the answer to."""
    ids, whole = inputs["ID"], inputs["WHOLE"]
    assert ids.ndim == whole.ndim == 2
    assert len(ids) == len(whole)
    texts = np.empty((len(ids), 1), np.object_)
    texts[:, 0] = [f"{a[0]} of {w[0]:g}".encode() for a, w in zip(ids, whole, strict=True)]
    return {"SUM": np.stack([ids[:, 0], ids.sum(1)], 1), "TEXT": texts, "ECHO": ids}


@dataclass(frozen=True)
class Asked:
    """A request: its number, its leading dimensions, and the length of its items."""

    number: int
    batch: int
    rows: int
    length: int
    runs: bool

    def inputs(self, mode: Mode) -> dict[str, Array]:
        lead = (self.batch, self.rows) if mode == "rows" else (self.batch,)
        ids = 1000 * self.number + np.arange(np.prod(lead, dtype=int))
        return {
            "ID": np.repeat(ids, self.length).reshape(*lead, self.length),
            "WHOLE": np.full((self.batch, 2), self.number, np.float32),
            CONDITION_INPUT: np.array([[1.0 if self.runs else 0.0]], np.float32),
        }

    def expected(self, mode: Mode, conditional: bool) -> dict[str, Array]:
        inputs = self.inputs(mode)
        items = inputs["ID"].reshape(-1, self.length)
        lead = inputs["ID"].shape[:-1]
        if conditional and not self.runs:
            items, lead = items[:0], (self.batch, 0)
        whole = np.full((len(items), 2), self.number, np.float32)
        outputs = model({"ID": items, "WHOLE": whole})
        echo = outputs["ECHO"] if len(items) else np.empty((0, 0), np.int64)
        return {
            "SUM": outputs["SUM"].reshape(*lead, 2),
            "TEXT": outputs["TEXT"].reshape(*lead, 1),
            "ECHO": echo.reshape(*lead, echo.shape[1]),
        }


def same(result: dict[str, Array] | Failure, expected: dict[str, Array]) -> None:
    assert not isinstance(result, Failure), result
    assert result.keys() == expected.keys()
    for name, array in expected.items():
        assert result[name].dtype == array.dtype
        assert result[name].shape == array.shape
        assert result[name].tolist() == array.tolist()


@st.composite
def asked(draw: st.DrawFn, conditional: bool) -> list[Asked]:
    count = draw(st.integers(1, 8))
    return [
        Asked(
            number=number,
            batch=1 if conditional else draw(st.integers(1, 4)),
            rows=draw(st.integers(0, 6)),
            length=draw(st.integers(1, 2)),
            runs=draw(st.booleans()),
        )
        for number in range(1, count + 1)
    ]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Mode, bool, list[Asked]]:
    mode: Mode = draw(st.sampled_from(["stack", "rows", "items"]))
    conditional = mode == "rows" and draw(st.booleans())
    return mode, conditional, draw(asked(conditional))


@settings(deadline=None)
@given(cases(), st.sets(st.tuples(st.integers(1, 8), st.integers(0, 23)), max_size=4), st.data())
def test_no_answer_is_swapped_whatever_the_cut_the_order_and_the_faults(
    case: tuple[Mode, bool, list[Asked]], poison: set[tuple[int, int]], data: st.DataObject
) -> None:
    mode, conditional, requests = case
    batch = Batch(spec(mode, Condition(0.5, None) if conditional else None), [r.inputs(mode) for r in requests])
    poisoned = {1000 * number + item for number, item in poison}
    under_way: list[Part] = []
    limits, events = st.integers(1, 9), st.sampled_from(["take", "answer", "late", "lose", "miss"])
    while batch.head() is not None or under_way:
        event = data.draw(events)
        if (event == "take" or not under_way) and batch.head() is not None:
            limit = data.draw(limits)
            part = batch.take(limit)
            assert 1 <= len(part) <= limit
            under_way.append(part)
            continue
        if not under_way:
            continue
        part = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        if event == "lose" and part.tries == 0:
            batch.lost(part, "w", GONE, executed=True)
        elif event == "miss":
            batch.lost(part, "w", GONE, executed=False)
        elif poisoned & set(part.inputs()["ID"][:, 0].tolist()):
            batch.refused(part, POISON)
        else:
            batch.answered(part, model(part.inputs()))
    for request, result in zip(requests, batch.results(), strict=True):
        expected = request.expected(mode, conditional)
        if poisoned & set(expected["SUM"].reshape(-1, 2)[:, 0].tolist()):
            assert result == POISON
        else:
            same(result, expected)


def run(batch: Batch, limit: int) -> list[Part]:
    parts = []
    while batch.head() is not None:
        parts.append(batch.take(limit))
        batch.answered(parts[-1], model(parts[-1].inputs()))
    return parts


def requests(*batches: int, rows: int = 1, length: int = 1) -> list[Asked]:
    return [Asked(number, batch, rows, length, True) for number, batch in enumerate(batches, 1)]


@pytest.mark.parametrize(
    ("mode", "limit", "lengths"),
    [("stack", 4, [4, 4, 1]), ("stack", 64, [9]), ("rows", 8, [8, 8, 8, 3]), ("items", 4, [1] * 9)],
)
def test_batches_are_filled_to_what_a_worker_takes(mode: Mode, limit: int, lengths: list[int]) -> None:
    batch = Batch(spec(mode), [r.inputs(mode) for r in requests(2, 3, 4, rows=3)])
    assert [len(part) for part in run(batch, limit)] == lengths


def test_items_of_different_shapes_do_not_travel_together() -> None:
    mixed = [Asked(1, 1, 2, 1, True), Asked(2, 1, 2, 2, True), Asked(3, 1, 2, 1, True)]
    batch = Batch(spec("rows"), [r.inputs("rows") for r in mixed])
    assert [part.inputs()["ID"].shape for part in run(batch, 64)] == [(4, 1), (2, 2)]


def test_one_request_travels_without_a_copy() -> None:
    inputs = requests(8)[0].inputs("stack")
    batch = Batch(spec("stack"), [inputs])
    parts = [batch.take(4), batch.take(4)]
    assert all(np.shares_memory(part.inputs()["ID"], inputs["ID"]) for part in parts)
    answers = [model(part.inputs()) for part in parts]
    batch.answered(parts[0], answers[0])
    batch.answered(parts[1], answers[1])
    whole = Batch(spec("stack"), [inputs])
    part = whole.take(64)
    answer = model(part.inputs())
    whole.answered(part, answer)
    (result,) = whole.results()
    assert isinstance(result, dict)
    assert np.shares_memory(result["SUM"], answer["SUM"])


def test_only_the_outputs_wanted_are_made() -> None:
    batch = Batch(spec("stack"), [requests(1)[0].inputs("stack")], {"TEXT", "SUM"})
    assert batch.output_names == ("SUM", "TEXT")
    run(batch, 8)
    (result,) = batch.results()
    assert isinstance(result, dict)
    assert set(result) == {"SUM", "TEXT"}


@pytest.mark.parametrize(
    ("condition", "value", "rows"),
    [
        (Condition(0.5, None), 0.6, 3),
        (Condition(0.5, None), 0.5, 0),
        (Condition(None, 0.5), 0.4, 3),
        (Condition(None, 0.5), 0.5, 0),
        (Condition(0.0, None), float("nan"), 0),
        (Condition(None, 0.0), float("nan"), 0),
    ],
)
def test_conditions(condition: Condition, value: float, rows: int) -> None:
    inputs = requests(1, rows=3)[0].inputs("rows")
    batch = Batch(spec("rows", condition), [{**inputs, CONDITION_INPUT: np.array([[value]])}])
    run(batch, 8)
    (result,) = batch.results()
    assert isinstance(result, dict)
    assert result["SUM"].shape == (1, rows, 2)


def test_a_conditional_task_without_rows_runs_once_or_not_at_all() -> None:
    plain = (TensorSpec("ID", "INT64", (-1,)), WHOLE)
    dispatcher = DispatcherSpec("g", "t", "rows", plain, OUTPUTS, Condition(0.5, None))
    inputs = [Asked(number, 1, 1, 2, number != 2).inputs("stack") for number in (1, 2, 3)]
    batch = Batch(dispatcher, inputs)
    assert [len(part) for part in run(batch, 8)] == [2]
    results = batch.results()
    shapes = [r["SUM"].shape for r in results if isinstance(r, dict)]
    assert shapes == [(1, 1, 2), (1, 0, 2), (1, 1, 2)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"WHOLE": np.zeros((3, 2), np.float32)}, "inputs differ in batch size: ID has 1, WHOLE has 3"),
        ({CONDITION_INPUT: np.zeros((1, 2))}, r"condition needs one element, got shape \[1, 2\]"),
    ],
)
def test_inputs_that_do_not_fit_fail_their_request_alone(change: dict[str, Array], words: str) -> None:
    good = requests(1, 1, rows=2)
    inputs = [r.inputs("rows") for r in good]
    batch = Batch(spec("rows", Condition(0.5, None)), [{**inputs[0], **change}, inputs[1]])
    run(batch, 8)
    bad, result = batch.results()
    assert isinstance(bad, Failure)
    assert bad.blame == "request"
    with pytest.raises(ValueError, match=words):
        raise ValueError(bad.message)
    same(result, good[1].expected("rows", True))


def test_iterated_inputs_need_the_same_number_of_rows() -> None:
    both = (ID, TensorSpec("BOX", "INT64", (1,), iterated=True), WHOLE)
    inputs = {**requests(1, rows=2)[0].inputs("rows"), "BOX": np.zeros((1, 3, 1), np.int64)}
    (result,) = Batch(DispatcherSpec("g", "t", "rows", both, OUTPUTS), [inputs]).results()
    assert result == Failure("inputs differ in number of rows: ID has 2, BOX has 3", "request")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SUM": None}, "output SUM is missing"),
        ({"SUM": np.zeros((2, 2), np.int32)}, "output SUM is of type int32 where INT64 was declared"),
        ({"SUM": np.zeros((1, 2), np.int64)}, r"output SUM has shape \[1, 2\] where \[2, 2\] was declared"),
        ({"SUM": np.zeros((2, 3), np.int64)}, r"output SUM has shape \[2, 3\] where \[2, 2\] was declared"),
        ({"ECHO": np.zeros(2, np.int64)}, r"output ECHO has shape \[2\] where \[2, -1\] was declared"),
    ],
)
def test_wrong_outputs_are_not_taken(change: dict[str, Array | None], words: str) -> None:
    batch = Batch(spec("stack"), [requests(2)[0].inputs("stack")])
    part = batch.take(8)
    outputs = {**model(part.inputs()), **change}
    with pytest.raises(ValueError, match=words):
        batch.answered(part, {name: array for name, array in outputs.items() if array is not None})


def test_rows_that_differ_in_shape_fail_their_request_alone() -> None:
    batch = Batch(spec("rows"), [r.inputs("rows") for r in requests(1, 1, rows=2)])
    for length in (1, 2, 1, 1):
        part = batch.take(1)
        outputs = model(part.inputs())
        batch.answered(part, {**outputs, "ECHO": np.repeat(outputs["ECHO"], length, axis=1)})
    bad, good = batch.results()
    assert bad == Failure("output ECHO differs in shape between the items of the request: [1], [2]", "request")
    assert isinstance(good, dict)


def test_a_part_lost_twice_fails_its_requests_and_no_others() -> None:
    batch = Batch(spec("stack"), [r.inputs("stack") for r in requests(1, 1, 1, 1)])
    first = batch.take(2)
    batch.lost(first, "w1", GONE, executed=True)
    again = batch.take(2)
    assert (again.start, again.stop, again.tries, set(again.avoid)) == (0, 2, 1, {"w1"})
    batch.lost(again, "w2", GONE, executed=True)
    run(batch, 8)
    assert [isinstance(r, Failure) for r in batch.results()] == [True, True, False, False]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2)), min_size=1, max_size=5), st.data())
def test_rows_of_rows_follow_each_other_in_the_order_of_the_rows(
    sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Each item makes as many rows as the last two bits of its number say; ECHO holds them, SUM has one an item."""
    asked = [Asked(number, batch, rows, 1, True) for number, (rows, batch) in enumerate(sizes, 1)]
    spec = DispatcherSpec("g", "t", "rows", (ID, WHOLE), OUTPUTS, yields=("ECHO",), counts={"N": "ECHO"})
    batch = Batch(spec, [request.inputs("rows") for request in asked])
    parts = []
    while batch.head() is not None:
        parts.append(batch.take(8))
    assert {len(part) for part in parts} <= {1}
    for part in data.draw(st.permutations(parts)):
        outputs = model(part.inputs())
        number = int(outputs["SUM"][0, 0])
        batch.answered(part, {**outputs, "ECHO": np.full((1, number % 4), number)})
    for request, result in zip(asked, batch.results(), strict=True):
        ids = [1000 * request.number + np.arange(request.rows) + entry * request.rows for entry in range(request.batch)]
        made = [[number for number in entry.tolist() for _ in range(number % 4)] for entry in ids]
        if len({len(entry) for entry in made}) > 1:
            assert isinstance(result, Failure)
            assert "output ECHO differs in shape between the items of the request" in result.message
            continue
        assert not isinstance(result, Failure)
        assert result["ECHO"].tolist() == made
        assert result["ECHO"].shape == (request.batch, len(made[0]))
        assert result["SUM"].shape == (request.batch, request.rows, 2)
        assert result["N"].tolist() == [[[number % 4] for number in entry.tolist()] for entry in ids]
        assert result["N"].dtype == np.int64


@pytest.mark.parametrize("lengths", [[2, 0], [1, 1]])
def test_rows_are_counted_item_by_item(lengths: list[int]) -> None:
    spec = DispatcherSpec("g", "t", "items", (ID,), (TensorSpec("R", "INT64", (-1,)), OUTPUTS[0]), counts={"N": "R"})
    batch = Batch(spec, [{"ID": np.zeros((2, 1), np.int64)}], {"N", "SUM"})
    # What is counted is asked for, wanted or not; and need not be one tensor then.
    assert batch.output_names == ("R", "SUM")
    for length in lengths:
        batch.answered(batch.take(8), {"R": np.zeros((1, length), np.int64), "SUM": np.zeros((1, 2), np.int64)})
    (result,) = batch.results()
    assert isinstance(result, dict)
    assert result.keys() == {"SUM", "N"}
    assert result["N"].tolist() == [[length] for length in lengths]


def test_what_was_not_executed_may_be_lost_any_number_of_times() -> None:
    batch = Batch(spec("stack"), [requests(2)[0].inputs("stack")])
    for _ in range(10):
        batch.lost(batch.take(8), "w1", GONE, executed=False)
    head = batch.head()
    assert head is not None
    assert (head.tries, head.avoid) == (0, frozenset())


def test_abandoned_requests_fail_and_finished_ones_do_not() -> None:
    batch = Batch(spec("stack"), [r.inputs("stack") for r in requests(2, 2, 2)])
    part = batch.take(3)
    batch.answered(part, model(part.inputs()))
    batch.abandon(GONE)
    assert batch.head() is None
    assert [isinstance(r, Failure) for r in batch.results()] == [False, True, True]


def test_the_size_of_a_request_is_that_of_its_inputs() -> None:
    inputs = (TensorSpec("X", "FP32", (-1,)), TensorSpec("S", "BYTES", (-1,)))
    of = DispatcherSpec("g", "t", "items", inputs, ())
    texts = np.array([[b"12345", b""]], np.object_)
    asked = [{"X": np.zeros((1, length), np.float32), "S": texts} for length in (10, 20)]
    assert Batch(of, asked).bytes_per_request() == 65.0
    assert Batch(of, []).bytes_per_request() == 0.0


def test_the_rest_of_a_failed_request_is_not_sent() -> None:
    batch = Batch(spec("rows"), [r.inputs("rows") for r in requests(1, 1, rows=4)])
    batch.refused(batch.take(2), POISON)
    (rest,) = run(batch, 8)
    assert rest.inputs()["ID"][:, 0].tolist() == [2000, 2001, 2002, 2003]
    assert batch.results()[0] == POISON


def test_rows_may_be_empty() -> None:
    ids, whole = np.empty((1, 3, 0), np.int64), np.zeros((1, 2), np.float32)
    batch = Batch(spec("rows"), [{"ID": ids, "WHOLE": whole}], {"ECHO"})
    part = batch.take(8)
    assert part.inputs()["ID"].shape == (3, 0)
    batch.answered(part, {"ECHO": part.inputs()["ID"]})
    same(batch.results()[0], {"ECHO": ids})
