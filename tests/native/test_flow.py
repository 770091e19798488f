"""Requests to graphs of several tasks: branches, nested rows, conditions, steps and early answers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tests.native.conftest import Bench, column, double
from tests.native.core import Array, texts
from tests.native.specs import ONE, PAIR, PAIRS, spec, task
from tests.native.worker import Call, Refuse, Worker

COLUMN = ("INT64", (-1, 1))


def after(name: str, *sources: str, outputs: Sequence[str] = ("Y",), **more: Any) -> dict[str, Any]:
    """Task whose inputs are these tensors."""
    inputs = {f"I{n}": (source, ONE) for n, source in enumerate(sources)}
    return task(name, inputs, dict.fromkeys(outputs, ONE), **more)


def total(call: Call) -> dict[str, Array]:
    """Returns one more than the sum of the inputs as every requested output."""
    made = np.sum(list(call.inputs.values()), axis=0) + 1
    return {name: made for name in call.outputs}


def diamond() -> list[dict[str, Any]]:
    return [
        after("a", "inputs.X"),
        after("b", "a.Y"),
        after("c", "a.Y", outputs=("Y", "Z")),
        after("d", "b.Y", "c.Y"),
    ]


def serve(bench: Bench, tasks: Sequence[dict[str, Any]], handler: Callable[[Call], Any] = total) -> dict[str, Worker]:
    """Starts a worker for each task."""
    found = {}
    for item in tasks:
        found[item["name"]] = bench.worker(f"w{item['name']}", handler)
        bench.route(f"w{item['name']}", name=item["route"])
    return found


OUTPUTS = {"D": ("d.Y", ONE), "Z": ("c.Z", ONE), "B": ("b.Y", ONE)}


def test_both_branches_of_a_diamond_are_executed_and_joined(bench: Bench) -> None:
    workers = serve(bench, diamond())
    outcome = bench.engine.front(spec(diamond(), outputs=OUTPUTS)).ask({"X": column(1, 10)})
    assert outcome["B"].tolist() == outcome["Z"].tolist() == [[3], [12]]
    assert outcome["D"].tolist() == [[7], [25]]
    assert [len(worker.calls) for worker in workers.values()] == [1, 1, 1, 1]
    assert 0 < outcome.arrival_ns <= outcome.sent_ns <= outcome.received_ns
    assert outcome.items == 2


def test_branches_run_at_the_same_time(bench: Bench) -> None:
    workers = serve(bench, diamond())
    for name in "bc":
        workers[name].answering.clear()
    request = bench.engine.front(spec(diamond(), outputs=OUTPUTS)).send({"X": column(1)})
    for name in "bc":
        workers[name].wait(1)
    for name in "bc":
        workers[name].answering.set()
    assert request.wait()["D"].tolist() == [[7]]


@pytest.mark.parametrize(
    ("wanted", "called"), [(["B"], "ab"), (["Z"], "ac"), (["B", "Z"], "abc"), (["D"], "abcd"), (["B", "D"], "abcd")]
)
def test_tasks_that_no_requested_output_needs_are_skipped(bench: Bench, wanted: list[str], called: str) -> None:
    workers = serve(bench, diamond())
    outcome = bench.engine.front(spec(diamond(), outputs=OUTPUTS)).ask({"X": column(1)}, wanted=wanted)
    assert sorted(outcome.outputs) == wanted
    assert "".join(name for name, worker in workers.items() if worker.calls) == called


def test_the_first_failure_ends_the_request(bench: Bench) -> None:
    workers = serve(bench, diamond())

    def refuse(call: Call) -> dict[str, Array]:
        raise Refuse(400, "not like this")

    workers["b"].handler = refuse
    outcome = bench.engine.front(spec(diamond(), outputs=OUTPUTS)).ask({"X": column(1)})
    assert outcome.blame == "request"
    assert outcome.message == "task b: worker wb: not like this"
    assert not workers["d"].calls
    assert bench.engine.metric("jigsaw_slo_total", outcome="failed") == 1


def test_both_branches_may_fail(bench: Bench) -> None:
    workers = serve(bench, diamond())

    def refuse(call: Call) -> dict[str, Array]:
        raise Refuse(500, "broken")

    workers["b"].handler = workers["c"].handler = refuse
    front = bench.engine.front(spec(diamond(), outputs=OUTPUTS))
    for _ in range(5):
        assert front.ask({"X": column(1)}).blame == "model"


def test_an_input_or_the_same_tensor_twice_may_be_an_output(bench: Bench) -> None:
    serve(bench, [after("a", "inputs.X")])
    outputs = {"X": ("inputs.X", ONE), "A": ("a.Y", ONE), "B": ("a.Y", ONE)}
    front = bench.engine.front(spec([after("a", "inputs.X")], outputs=outputs))
    outcome = front.ask({"X": column(1)})
    assert [outcome[name].tolist() for name in ("X", "A", "B")] == [[[1]], [[2]], [[2]]]
    assert front.ask({"X": column(1)}, wanted=["B"]).outputs.keys() == {"B"}
    assert front.ask({"X": column(5)}, wanted=["X"])["X"].tolist() == [[5]]


def test_a_text_may_be_both_an_output_and_an_input_of_a_task(bench: Bench) -> None:
    kind = ("BYTES", (1,))
    tasks = [task("a", {"X": ("inputs.X", kind)}, {"Y": kind}), task("b", {"X": ("a.Y", kind)}, {"Y": kind})]
    serve(bench, tasks, lambda call: {"Y": texts(*(b"<" + t for t in call.inputs["X"].ravel())).reshape(-1, 1)})
    outputs = {"A": ("a.Y", kind), "B": ("b.Y", kind), "AGAIN": ("a.Y", kind)}
    outcome = bench.engine.front(spec(tasks, {"X": kind}, outputs)).ask({"X": texts(b"x", b"yy").reshape(2, 1)})
    assert outcome["B"].ravel().tolist() == [b"<<x", b"<<yy"]
    assert outcome["A"].ravel().tolist() == outcome["AGAIN"].ravel().tolist() == [b"<x", b"<yy"]


def nested() -> list[dict[str, Any]]:
    """Task that yields rows, a task that yields rows for each of them, and a task for each of those."""
    return [
        task("a", {"X": ("inputs.X", ONE)}, {"R": PAIRS}, yields=["R"], counts={"N": "R"}),
        task(
            "b",
            {"X": ("a.R", PAIR)},
            {"R": PAIRS},
            mode="rows",
            iterated=["X"],
            yields=["R"],
            counts={"N": "R"},
        ),
        task("c", {"X": ("b.R", PAIR), "K": ("inputs.X", ONE)}, {"Y": ONE}, mode="rows", iterated=["X"]),
    ]


NESTED = {"Y": ("c.Y", COLUMN), "N": ("a.N", ONE), "M": ("b.N", COLUMN)}


def unfold(call: Call) -> dict[str, Array]:
    """Yields as many rows as the first number says."""
    count = int(call.inputs["X"].ravel()[0])
    return {"R": np.arange(2 * count).reshape(1, count, 2)}


def test_rows_of_rows_are_joined_in_order_and_counted(bench: Bench) -> None:
    workers = serve(bench, nested(), unfold)
    workers["c"].handler = lambda call: {"Y": call.inputs["X"].sum(axis=1, keepdims=True) * call.inputs["K"]}
    front = bench.engine.front(spec(nested(), outputs=NESTED, split=True))
    outcome = front.ask({"X": column(3)})
    # Rows [0, 1], [2, 3], [4, 5] yield 0, 2 and 4 rows: [0, 1], [2, 3] and [0, 1], [2, 3], [4, 5], [6, 7].
    assert outcome["M"].tolist() == [[[0], [2], [4]]]
    assert outcome["Y"].ravel().tolist() == [3 * n for n in (1, 5, 1, 5, 9, 13)]
    assert front.ask({"X": column(0)})["Y"].shape == (1, 0, 1)
    assert front.ask({"X": column(1)})["M"].tolist() == [[[0]]]
    assert front.ask({"X": column(3, 3)})["Y"].shape == (2, 6, 1)


def test_a_task_runs_if_the_output_of_another_task_meets_its_condition(bench: Bench) -> None:
    tasks = [
        task("a", {"X": ("inputs.X", ONE)}, {"S": ("FP32", (1,)), "Y": ONE}),
        task("b", {"X": ("a.Y", ONE)}, {"Y": ONE}, mode="rows", condition={"tensor": "a.S", "above": 0.5}),
    ]
    workers = serve(bench, tasks, double)
    workers["a"].handler = lambda call: {
        "S": (call.inputs["X"] > 5).astype(np.float32),
        "Y": call.inputs["X"],
    }
    front = bench.engine.front(spec(tasks, outputs={"Y": ("b.Y", COLUMN)}, split=True))
    assert front.ask({"X": column(6)})["Y"].tolist() == [[[12]]]
    assert front.ask({"X": column(5)})["Y"].shape == (1, 0, 1)
    assert len(workers["b"].calls) == 1


def step_spec(**more: Any) -> dict[str, Any]:
    """Front of a task, a Python step and another task."""
    tasks = [
        after("a", "inputs.X"),
        after("s", "a.Y", outputs=("Y", "Z"), mode="items", step=True),
        after("b", "s.Y"),
    ]
    outputs = {"A": ("a.Y", ONE), "Z": ("s.Z", ONE), "B": ("b.Y", ONE)}
    return spec(tasks, outputs=outputs, **more)


def step(answers: dict[str, Array] | None) -> Callable[[Call], dict[str, Array]]:
    """Handler of a step that answers the whole request if its input is above 5."""

    def run(call: Call) -> dict[str, Array]:
        made = {"JIGSAW_ANSWERED": np.array([[0]], np.uint8), **{f"JIGSAW_ANSWER.{n}": column(0) for n in "AZB"}}
        if answers is not None and call.inputs["I0"][0, 0] > 5:
            made["JIGSAW_ANSWERED"][:] = 1
            return made | {f"JIGSAW_ANSWER.{name}": array for name, array in answers.items()}
        return {**made, "Y": call.inputs["I0"] + 1, "Z": call.inputs["I0"] + 2}

    return run


def test_a_step_may_answer_the_whole_request(bench: Bench) -> None:
    made = step_spec(split=True)
    workers = serve(bench, made["tasks"])
    workers["s"].handler = step({"A": column(7), "Z": column(8), "B": column(9)})
    front = bench.engine.front(made)
    outcome = front.ask({"X": column(1)})
    assert [outcome[name].item() for name in "AZB"] == [2, 4, 4]
    requested = {"Y", "Z", "JIGSAW_ANSWERED", "JIGSAW_ANSWER.A", "JIGSAW_ANSWER.Z", "JIGSAW_ANSWER.B"}
    assert set(workers["s"].calls[0].outputs) == requested
    outcome = front.ask({"X": column(5)})
    assert [outcome[name].item() for name in "AZB"] == [7, 8, 9]
    assert len(workers["b"].calls) == 1
    # The step answers one item of the batch early; the other item runs through all tasks.
    outcome = front.ask({"X": column(5, 1)})
    assert [outcome[name].ravel().tolist() for name in "AZB"] == [[7, 2], [8, 4], [9, 4]]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"A": column(1).astype(np.int32)}, "output A of the early answer does not have the declared type and shape"),
        ({"A": column(1)[0]}, "output A of the early answer does not have the declared type and shape"),
        ({"A": np.int64(1).reshape(())}, "output A of the early answer does not have the declared type and shape"),
        ({"A": column(1, 2)}, "output A of the early answer does not have the declared type and shape"),
    ],
)
@pytest.mark.parametrize("values", [(5,), (5, 5)])
def test_an_early_answer_of_a_wrong_type_or_shape_fails_the_request(
    bench: Bench, answer: dict[str, Array], words: str, values: tuple[int, ...]
) -> None:
    made = step_spec(split=True)
    serve(bench, made["tasks"])["s"].handler = step(answer)
    outcome = bench.engine.front(made).ask({"X": column(*values)})
    assert outcome.blame == "model"
    assert words in outcome.message


def test_an_early_answer_without_a_requested_output_fails_the_request(bench: Bench) -> None:
    made = step_spec()

    def run(call: Call) -> dict[str, Array]:
        answers = {"JIGSAW_ANSWER.A": column(1), "JIGSAW_ANSWER.Z": column(2)}
        return {"JIGSAW_ANSWERED": np.array([[1]], np.uint8), **answers}

    serve(bench, made["tasks"])["s"].handler = run
    front = bench.engine.front(made)
    outcome = front.ask({"X": column(5)})
    assert outcome.blame == "model"
    assert "output B is missing in the early answer" in outcome.message
    assert front.ask({"X": column(5)}, wanted=["A", "Z"])["Z"].tolist() == [[2]]


@pytest.mark.parametrize("values", [(1,), (2, 1)])
def test_a_step_that_does_not_answer_early_must_return_all_its_outputs(bench: Bench, values: tuple[int, ...]) -> None:
    """This holds even if the answer to the first item was complete."""
    made = step_spec()

    def run(call: Call) -> dict[str, Array]:
        outputs = {"Y": call.inputs["I0"], "JIGSAW_ANSWERED": np.array([[0]], np.uint8)}
        return outputs if call.inputs["I0"][0, 0] == 2 else outputs | {"Z": call.inputs["I0"]}

    serve(bench, made["tasks"])["s"].handler = run
    outcome = bench.engine.front(made).ask({"X": column(*values)})
    assert outcome.blame == "model"
    assert "output Z is missing" in outcome.message


def test_the_message_of_a_step_is_passed_on_unchanged(bench: Bench) -> None:
    made = step_spec()

    def run(call: Call) -> dict[str, Array]:
        raise Refuse(500, "[request id: 7#1] step s: ValueError: the patient is not healthy (s.py:3)")

    serve(bench, made["tasks"])["s"].handler = run
    outcome = bench.engine.front(made).ask({"X": column(1)})
    assert outcome.blame == "model"
    assert outcome.message == "step s: ValueError: the patient is not healthy (s.py:3)"
    assert not (bench.run_dir / "condemned").exists()
    assert bench.engine.metric("jigsaw_refused_total", task="s", reason="code") == 1


@pytest.mark.parametrize("output", range(3))
@pytest.mark.parametrize(("split", "items"), [(False, 1), (True, 1), (True, 3)])
def test_an_output_that_cannot_be_allocated_fails_only_its_request(
    bench: Bench, output: int, split: bool, items: int
) -> None:
    outputs = {"D": ("d.Y", ONE), "X": ("inputs.X", ONE), "AGAIN": ("d.Y", ONE)}
    serve(bench, diamond())
    front = bench.engine.front(spec(diamond(), outputs=outputs, split=split))
    outcome = front.ask({"X": column(*range(items))}, refuse_output=output)
    assert outcome.blame in ("model", "worker")
    assert "there is no memory for the output" in outcome.message
    assert front.ask({"X": column(1)})["D"].tolist() == [[7]]


def test_concurrent_requests_get_their_own_answers(bench: Bench) -> None:
    serve(bench, nested(), unfold)["c"].handler = lambda call: {
        "Y": call.inputs["X"].sum(axis=1, keepdims=True) * call.inputs["K"]
    }
    front = bench.engine.front(spec(nested(), outputs=NESTED, split=True))
    requests = [(n % 4, front.send({"X": column(n % 4)})) for n in range(60)]
    for number, request in requests:
        rows = [row for first in range(0, 2 * number, 2) for row in range(first)]
        assert request.wait()["Y"].ravel().tolist() == [number * (4 * row + 1) for row in rows]
