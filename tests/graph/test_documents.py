"""Random graphs, and random damage to their documents."""

import json
import random
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import networkx as nx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import SpecError
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import TensorRef
from jigsaw_triton.spec.load import load_graph
from tests.fakes.documents import GRAPH, TEMPLATES


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Generates documents of graphs that combine chains, joins, fan-out and conditions."""
    names = draw(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=8, unique=True))
    tensor = {"dtype": "FP32", "shape": [4]}
    tasks: dict[str, Any] = {}
    whole: list[str] = ["inputs.X"]
    iterable: list[str] = ["inputs.ROWS"]
    conditions: list[str] = ["inputs.FLAG"]
    for name in names:
        iterates, conditional = draw(st.booleans()), draw(st.integers(0, 3)) == 0
        task: dict[str, Any] = {
            "outputs": {"Y": tensor},
            "variants": [{"name": "v", "accuracy": 1, "template": "emulated"}],
        }
        if conditional:
            task["when"] = {"tensor": draw(st.sampled_from(conditions)), "below": 0.5, "probability": 0.5}
        if iterates:
            task["for_each"] = draw(st.sampled_from(iterable))
            task["inputs"] = {"ROW": task["for_each"], "X": "inputs.X"}
            iterable.append(f"{name}.Y")
        else:
            chosen = draw(st.lists(st.sampled_from(whole + iterable), min_size=1, max_size=3, unique=True))
            task["inputs"] = {f"I{n}": ref for n, ref in enumerate(chosen)}
            if conditional:
                iterable.append(f"{name}.Y")
            else:
                task["outputs"] |= {"R": {"dtype": "FP32", "shape": [-1, 4]}, "S": {"dtype": "FP32", "shape": [1]}}
                task["variants"][0]["yields"] = {"R": 2}
                whole.append(f"{name}.Y")
                iterable.append(f"{name}.R")
                conditions.append(f"{name}.S")
        tasks[name] = task
    return {
        "apiVersion": "jigsaw-triton/v1",
        "kind": "TaskGraph",
        "metadata": {"name": "any"},
        "spec": {
            "slo": {"latency_ms": 100},
            "inputs": {
                "X": tensor,
                "ROWS": {"dtype": "FP32", "shape": [-1, 4]},
                "FLAG": {"dtype": "BOOL", "shape": [1]},
            },
            "outputs": {"X": "inputs.X", "R": "inputs.ROWS", "F": "inputs.FLAG", **{n: f"{n}.Y" for n in names}},
            "tasks": tasks,
        },
    }


def from_document(document: dict[str, Any]) -> TaskGraph:
    return from_text(json.dumps(document))


def from_text(text: str) -> TaskGraph:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "graph.yaml"
        path.write_text(text)
        return replace(build_graph(load_graph(path), templates=TEMPLATES), folder=Path())


@settings(max_examples=40, deadline=None)
@given(documents())
def test_tasks_are_in_topological_order_and_sorted_by_name_within_it(document: dict[str, Any]) -> None:
    graph = from_document(document)
    network: Any = nx.DiGraph()
    network.add_nodes_from(graph.tasks)
    network.add_edges_from((d, task.name) for task in graph.tasks.values() for d in task.dependencies())
    assert list(graph.tasks) == list(nx.lexicographical_topological_sort(network))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(documents(), st.randoms(use_true_random=False))
def test_the_order_in_the_file_does_not_matter(document: dict[str, Any], chance: random.Random) -> None:
    graph = from_document(document)
    tasks = list(document["spec"]["tasks"].items())
    chance.shuffle(tasks)
    document["spec"]["tasks"] = dict(tasks)
    again = from_document(document)
    assert again == graph
    assert list(again.tasks) == list(graph.tasks)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(documents())
def test_a_graph_survives_a_round_trip_through_a_document(document: dict[str, Any]) -> None:
    graph = from_document(document)
    assert from_text(graph.to_yaml()) == graph


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(documents())
def test_rows_and_types_agree_along_edges(document: dict[str, Any]) -> None:
    graph = from_document(document)
    for task in graph.tasks.values():
        outputs = [TensorRef(task.name, name) for name in task.outputs]
        if task.for_each is not None:
            assert graph.type_of(task.for_each).shape[0] == -1
            assert any(graph.iterated(task, ref) for ref in task.inputs.values())
            assert {graph.row_axis(ref) for ref in outputs} == {graph.row_axis(task.for_each)}
        for name, ref in task.inputs.items():
            arriving, taken = graph.type_of(ref), graph.input_type(task, name)
            assert taken == (arriving.row() if graph.iterated(task, ref) else arriving)
            assert taken.shape
        for ref in outputs:
            if graph.row_axis(ref) is not None:
                assert graph.type_of(ref).shape[0] == -1


VALUES = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "x", "detect.CROPS", "classify.LABEL", "inputs.FRAME", [], [1], {}, {"x": 1}]
).map(deepcopy)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """Generates the document of a valid graph with some entries replaced, removed or added."""
    document: Any = yaml.safe_load(GRAPH)
    for _ in range(draw(st.integers(1, 4))):
        holder = document
        for _ in range(draw(st.integers(0, 6))):
            inner = [
                v for v in (holder.values() if isinstance(holder, dict) else holder) if isinstance(v, dict | list) and v
            ]
            if not inner:
                break
            holder = draw(st.sampled_from(inner))
        places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        place = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[place] = draw(VALUES)
            case "remove" if len(places) > 1:
                del holder[place]
            case _ if isinstance(holder, dict):
                holder[draw(st.sampled_from(["x", "inputs", "when", "for_each", "Y", "9"]))] = draw(VALUES)
            case _:
                holder.append(draw(VALUES))
    return document


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(damaged())
def test_a_damaged_document_raises_nothing_but_spec_errors(document: Any) -> None:
    try:
        from_document(document)
    except SpecError as error:
        assert all(problem.line > 0 and problem.message for problem in error.diagnostics)
