from dataclasses import replace

import pytest

from jigsaw_triton.graph.model import GraphInput, TaskGraph, Variant, When
from jigsaw_triton.planner.domain.rates import Calls, calls, most_calls, request_rows
from tests.fakes.graphs import SCALAR, VECTOR, VECTORS, conditional, cropping, fan_out, graph, nested, ref, task
from tests.fakes.problems import docread

OFTEN = When(ref("screen.SCORE"), above=0.5, below=None, probability=0.25)


def screened(*tail_conditions: When | None) -> TaskGraph:
    """screen -> inspect (conditional) -> t0 -> t1 ...; each iterates over the one before, under these conditions."""
    tasks = [
        task("screen", {"X": "inputs.X"}, outputs={"SCORE": SCALAR, "Y": VECTOR}),
        task("inspect", {"X": "screen.Y"}, outputs={"Y": VECTOR}, when=OFTEN),
    ]
    for i, when in enumerate(tail_conditions):
        before = tasks[-1].name
        tasks.append(task(f"t{i}", {"X": f"{before}.Y"}, for_each=f"{before}.Y", when=when))
    return graph(tasks, {"Y": f"{tasks[-1].name}.Y"})


def test_a_plain_task_is_called_once_for_each_request() -> None:
    g = fan_out()
    assert calls(g, g.tasks["detect"]) == Calls(1.0)


def test_a_condition_multiplies_by_its_probability() -> None:
    g = conditional(probability=0.3)
    assert calls(g, g.tasks["inspect"]) == Calls(0.3)


def test_a_task_is_called_for_each_row_of_a_graph_input() -> None:
    g = graph(
        [task("t", {"X": "inputs.X"}, for_each="inputs.X")], {"Y": "t.Y"}, inputs={"X": GraphInput(VECTORS, rows=7.0)}
    )
    assert calls(g, g.tasks["t"]) == Calls(7.0)
    assert request_rows(g) == {"t": 7.0}


def test_calls_depend_on_the_variant_of_the_source() -> None:
    g = docread(lines=10.0)
    rule = calls(g, g.tasks["recognise"])
    assert rule == Calls(1.0, "detect", "CROPS")
    assert [rule.weight(g, v) for v in ("tiny", "small", "base")] == [8.0, 9.5, 10.0]


def test_most_calls_consider_only_the_given_variants() -> None:
    g = docread(lines=10.0)
    some = {"detect": {"tiny", "small"}, "recognise": {"tiny"}}
    assert most_calls(g, some) == {"detect": 1.0, "recognise": 9.5}


def test_request_rows_consider_all_variants() -> None:
    assert request_rows(docread(lines=10.0)) == {"detect": 1.0, "recognise": 10.0}


def test_iterating_over_an_iterating_task_makes_one_call_for_each_of_its_calls() -> None:
    g = fan_out(rows=4.0)
    again = task("again", {"X": "classify.LABEL"}, for_each="classify.LABEL")
    g = replace(g, tasks={**g.tasks, "again": again})
    assert calls(g, again) == Calls(1.0, "classify", None)
    assert request_rows(g)["again"] == 4.0


def test_a_conditional_tasks_plain_output_has_one_row_whatever_it_yields() -> None:
    g = screened(None)
    generous = replace(g.tasks["inspect"], variants=(Variant("v", 1.0, "emulated", yields={"Y": 9.0}),))
    g = replace(g, tasks={**g.tasks, "inspect": generous})
    assert most_calls(g, {t: {v.name for v in g.tasks[t].variants} for t in g.tasks}) == {
        "screen": 1.0,
        "inspect": 0.25,
        "t0": 0.25,
    }
    assert request_rows(g)["t0"] == 1.0


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((OFTEN,), 0.25),
        ((None, OFTEN), 0.25),
        ((replace(OFTEN, above=0.9, probability=0.5),), 0.125),
    ],
)
def test_a_condition_multiplies_only_once_along_a_chain(conditions: tuple[When | None, ...], expected: float) -> None:
    g = screened(*conditions)
    most = most_calls(g, {name: {"v0"} for name in g.tasks})
    assert most[f"t{len(conditions) - 1}"] == pytest.approx(expected)


def test_a_task_is_called_for_each_row_of_a_python_step() -> None:
    g = cropping(rows=4.0)
    assert calls(g, g.tasks["classify"]) == Calls(4.0)
    assert request_rows(g) == {"detect": 1.0, "classify": 4.0}


def test_a_condition_on_rows_of_a_python_step_multiplies() -> None:
    g = cropping(rows=4.0)
    g = replace(g, tasks={**g.tasks, "classify": replace(g.tasks["classify"], when=OFTEN)})
    assert calls(g, g.tasks["classify"]) == Calls(1.0)


def test_rows_of_rows_multiply() -> None:
    g = nested(lines=3.0, words=4.0)
    assert calls(g, g.tasks["read"]) == Calls(1.0, "split", "WORDS")
    assert most_calls(g, {name: {"v0"} for name in g.tasks}) == {"detect": 1.0, "split": 3.0, "read": 12.0}
    assert request_rows(g) == {"detect": 1.0, "split": 3.0, "read": 12.0}


def test_a_conditional_task_yields_its_rows_when_it_runs() -> None:
    g = screened(None)
    many = replace(
        g.tasks["inspect"], outputs={"Y": VECTORS}, variants=(Variant("v0", 1.0, "emulated", yields={"Y": 8.0}),)
    )
    g = replace(g, tasks={**g.tasks, "inspect": many})
    assert most_calls(g, {name: {"v0"} for name in g.tasks}) == {"screen": 1.0, "inspect": 0.25, "t0": 2.0}
    assert request_rows(g)["t0"] == 8.0
