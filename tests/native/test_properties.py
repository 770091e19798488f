"""Random graphs: the core, run on fake workers, returns what a reference implementation returns."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jigsaw_triton.compiler.front import task_specs
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.runtime.spec import BoundaryTensor, FrontSpec, to_json
from tests.fakes.any_graph import Values, any_graph, evaluate, requests
from tests.fakes.arithmetic import compute
from tests.native import specs
from tests.native.conftest import Bench
from tests.native.core import Array, Engine, Front, Outcome
from tests.native.worker import Answer, Call, Handler, HangUp, Refuse


def front_spec(graph: TaskGraph) -> dict[str, Any]:
    """Specification of a front that executes the whole graph."""
    outputs = {name: (str(ref), graph.type_of(ref)) for name, ref in graph.outputs.items()}
    spec = FrontSpec(
        graph=graph.name,
        slo_ms=60_000.0,
        inputs=tuple(BoundaryTensor(name, value.type.dtype, value.type.shape) for name, value in graph.inputs.items()),
        outputs=tuple(BoundaryTensor(name, t.dtype, t.shape, ref) for name, (ref, t) in outputs.items()),
        tasks=task_specs(graph, {node.name: node.name for node in graph.in_order()}, {}),
        split=graph.fans_out or bool(graph.steps),
    )
    found: dict[str, Any] = json.loads(to_json(spec))
    return found


def handler_of(task: dict[str, Any], luck: Random, *, pads: bool, suffix: str = "") -> Handler:
    """Handler that runs a task, and sometimes fails in a way that must not fail a request.

    It computes the outputs by the name of the task with the suffix appended.
    """
    kinds = {output["name"]: (output["dtype"], output["shape"]) for output in task["outputs"]}

    def handler(call: Call) -> Answer:
        chance = luck.random()
        if chance < 0.05 and not task["step"]:
            raise Refuse(503, "not now")
        if chance < 0.08:
            raise HangUp
        inputs = [{name: array[item] for name, array in call.inputs.items()} for item in range(call.items)]
        made = [compute(task["name"] + suffix, kinds, item) for item in inputs]
        answer = {}
        for name in kinds:
            arrays = [outputs[name] for outputs in made]
            if f"JIGSAW_ROWS.{name}" in call.outputs:
                assert pads
                most = max(len(array) for array in arrays)
                answer[f"JIGSAW_ROWS.{name}"] = np.array([[len(array)] for array in arrays], np.int64)
                arrays = [pad(array, most) for array in arrays]
            answer[name] = np.stack(arrays)
        if task["step"]:
            answer["JIGSAW_ANSWERED"] = np.zeros((1, 1), np.uint8)
        return {name: array for name, array in answer.items() if name in call.outputs}

    return handler


def luck_of(rng: Random, *, fails: bool) -> Random:
    """Source of the failures of handlers, which never fail unless they should."""
    luck = Random(rng.randrange(1 << 30))
    if not fails:
        luck.random = lambda: 1.0  # type: ignore[method-assign]
    return luck


def outcomes_of(front: Front, graph: TaskGraph, sent: Sequence[dict[str, Array]]) -> list[Outcome]:
    """Sends requests one by one, and all of them as one batch at last; closes the front."""
    batched = {name: np.stack([request[name] for request in sent]) for name in graph.inputs}
    asked = [*({name: array[None] for name, array in request.items()} for request in sent), batched]
    requests = [front.send(inputs, id=str(n)) for n, inputs in enumerate(asked)]
    outcomes = [request.wait() for request in requests]
    front.close()
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
@given(st.randoms(use_true_random=False), st.booleans(), st.integers(1, 5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_graphs_give_the_answers_of_the_reference(fails: bool, rng: Random, pads: bool, limit: int) -> None:
    graph = any_graph(rng)
    sent = requests(rng, graph, 4)
    spec = front_spec(graph)
    luck = luck_of(rng, fails=fails)
    with TemporaryDirectory(prefix="jigsaw-") as folder, ExitStack() as stack, Engine(Path(folder)) as engine:
        bench = Bench(engine, stack)
        for task in spec["tasks"]:
            names = [f"{task['name']}{copy}" for copy in range(2)]
            for name in names:
                bench.worker(name, handler_of(task, luck, pads=pads))
            specs.write_route(
                bench.run_dir,
                *(specs.entry(name, batch=limit, slots=2, pads=pads) for name in names),
                name=task["route"],
            )
        front = engine.front(spec)
        outcomes = outcomes_of(front, graph, sent)
        expected = [evaluate(graph, request) for request in sent]
        for outcome, values in zip(outcomes, expected, strict=False):
            if fails and outcome.failure is not None:
                assert outcome.blame == "worker", outcome.message
                continue
            for name, ref in graph.outputs.items():
                assert_equal(outcome[name], values[ref][None])
        whole = outcomes[-1]
        stacks = all(len({values[ref].shape for values in expected}) == 1 for ref in graph.outputs.values())
        if whole.failure is None:
            for name, ref in graph.outputs.items():
                assert_equal(whole[name], np.stack([values[ref] for values in expected]))
        elif not (fails and whole.blame == "worker"):
            # Without `split`, tensors inside the graph may also differ in shape between the items.
            assert whole.blame == "request", whole.message
            assert "differs in shape" in whole.message
            assert not (stacks and spec["split"]), whole.message


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
@given(st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_request_gets_the_answer_of_one_of_two_generations(fails: bool, rng: Random, limit: int) -> None:
    """Steps have not changed. Each request, and each batch of requests, gets the answer of one generation."""
    graph = any_graph(rng)
    sent = requests(rng, graph, 6)
    spec = front_spec(graph)
    luck = luck_of(rng, fails=fails)
    with TemporaryDirectory(prefix="jigsaw-") as folder, ExitStack() as stack, Engine(Path(folder)) as engine:
        bench = Bench(engine, stack)
        for task in spec["tasks"]:
            tags = {"": [3, 4]} if task["step"] else {"": [3], "'": [4]}
            entries = []
            for suffix, numbers in tags.items():
                name = task["name"] + suffix
                bench.worker(name, handler_of(task, luck, pads=False, suffix=suffix))
                entries.append(specs.entry(name, batch=limit, slots=2, generations=numbers))
            specs.write_route(bench.run_dir, *entries, name=task["route"])
        front = engine.front(spec)
        outcomes = outcomes_of(front, graph, sent)
        generations = [[evaluate(graph, request, suffix) for request in sent] for suffix in ("", "'")]
        answers = [*zip(*([[values] for values in of_one] for of_one in generations), strict=True), generations]
        for outcome, possible in zip(outcomes, answers, strict=True):
            if outcome.failure is None:
                assert any(is_answer(graph, outcome, values) for values in possible)
            else:
                # The outputs of a batch may differ in shape between its items.
                assert (outcome.blame == "worker" and fails) or "differs in shape" in outcome.message


def is_answer(graph: TaskGraph, outcome: Outcome, items: Sequence[Values]) -> bool:
    """Returns True if the outputs are those of a batch of items with these tensors."""
    return all(
        outcome[name].tolist() == [values[ref].tolist() for values in items] for name, ref in graph.outputs.items()
    )


def pad(array: Array, rows: int) -> Array:
    """Pads the rows of an item with rows that must be ignored."""
    return np.concatenate([array, np.full((rows - len(array), *array.shape[1:]), -7, array.dtype)])


def assert_equal(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()
