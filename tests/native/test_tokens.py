"""Tokens: outputs that show that an answer belongs to the call."""

import numpy as np
import pytest

from tests.native.conftest import Bench, column, double
from tests.native.core import Array
from tests.native.worker import Call, Handler


def wrong_token(call: Call) -> dict[str, Array]:
    return {**double(call), "JIGSAW_TOKEN": call.token() + 1}


def missing_token(call: Call) -> dict[str, Array]:
    return double(call)


def short_token(call: Call) -> dict[str, Array]:
    return {**double(call), "JIGSAW_TOKEN": call.token()[:-1]}


def wrong_token_of_one_item(call: Call) -> dict[str, Array]:
    token = call.token()
    token[-1] = 7
    return {**double(call), "JIGSAW_TOKEN": token}


@pytest.mark.parametrize("answer", [wrong_token, missing_token, short_token, wrong_token_of_one_item])
def test_an_answer_with_a_wrong_token_is_discarded(bench: Bench, answer: Handler) -> None:
    def right(call: Call) -> dict[str, Array]:
        return {**double(call), "JIGSAW_TOKEN": call.token()}

    worker, other = bench.worker("a", answer), bench.worker("b", right)
    bench.route("a", tokens=1)
    front = bench.front()
    worker.answering.clear()
    request = front.send({"X": column(1, 2)})
    worker.wait(1)
    bench.route("a", "b", tokens=1)
    worker.answering.set()
    assert request.wait()["Y"].tolist() == [[2], [4]]
    assert bench.condemned()["a"]["reason"] == "model m returned the answer to another call"
    for n in range(3):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    assert (len(worker.calls), len(other.calls)) == (1, 4)


def wrong_token_and_shape(call: Call) -> dict[str, Array]:
    return {"Y": np.zeros((3, 1), np.int64), "JIGSAW_TOKEN": call.token() + 1}


def wrong_token_and_type(call: Call) -> dict[str, Array]:
    return {"Y": np.zeros((2, 1), np.float32), "JIGSAW_TOKEN": call.token() + 1}


@pytest.mark.parametrize("answer", [wrong_token_and_shape, wrong_token_and_type])
def test_a_wrong_token_is_noticed_before_a_wrong_shape(bench: Bench, answer: Handler) -> None:
    bench.worker("a", answer)
    bench.worker("b", lambda call: {**double(call), "JIGSAW_TOKEN": call.token()})
    bench.route("a", tokens=1)
    front = bench.front()
    bench.workers[0].answering.clear()
    request = front.send({"X": column(1, 2)})
    bench.workers[0].wait(1)
    bench.route("a", "b", tokens=1)
    bench.workers[0].answering.set()
    assert request.wait()["Y"].tolist() == [[2], [4]]
    assert set(bench.condemned()) == {"a"}


def test_a_wrong_shape_with_the_right_token_is_the_models_fault(bench: Bench) -> None:
    bench.worker("w", lambda call: {"Y": np.zeros((3, 1), np.int64), "JIGSAW_TOKEN": call.token()})
    bench.route("w", tokens=1)
    outcome = bench.front().ask({"X": column(1, 2)})
    assert outcome.blame == "model"
    assert outcome.message == "task t: worker w: output Y has shape [3, 1] where [2, 1] was declared"
    assert not bench.condemned()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [None, 0, 2])
def test_each_model_of_a_chain_returns_a_token(bench: Bench, wrong: int | None) -> None:
    def chain(call: Call) -> dict[str, Array]:
        tokens = {f"JIGSAW_TOKEN.{n}": call.token() + (n == wrong) for n in range(3)}
        return {**double(call), **tokens}

    worker = bench.worker("w", chain)
    bench.route("w", tokens=3)
    outcome = bench.front(slo_ms=500).ask({"X": column(1)})
    assert set(worker.calls[0].outputs) == {"Y", "JIGSAW_TOKEN.0", "JIGSAW_TOKEN.1", "JIGSAW_TOKEN.2"}
    assert (outcome.failure is None) == (wrong is None) == (not bench.condemned())
