from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.graph.model import Slo, TaskGraph, When
from jigsaw_triton.graph.tensors import TensorRef, TensorType
from tests.fakes import graphs
from tests.fakes.documents import CLASSIFY, GRAPH, built, edited, extra, used


def test_all_settings_of_a_graph_are_read(tmp_path: Path) -> None:
    text = edited(
        GRAPH,
        ("    accuracy: 0.9", "    accuracy: 0.9\n    percentile: 95\n    accuracy_mode: mean"),
        ("shape: [-1, -1, 3]}", "shape: [-1, -1, 3], rows: 7}"),
        ("  slo:", "  target: bls\n  overload: queue\n  priority: 2\n  weight: 0.5\n  slo:"),
        ("      for_each:", "      retry: never\n      for_each:"),
        ("accuracy: 1,", "accuracy: 1, parameters: {k: 2},"),
    )
    graph = built(text, tmp_path)
    assert graph.name == "traffic"
    assert graph.slo == Slo(250.0, 95.0, 0.9, "mean")
    assert (graph.target, graph.overload) == ("bls", "queue")
    assert {task.name: task.retry for task in graph.tasks.values()} == {"detect": True, "classify": False}
    assert (graph.priority, graph.weight) == (2, 0.5)
    assert graph.folder == tmp_path
    assert graph.inputs["FRAME"].rows == 7
    classify = graph.tasks["classify"]
    assert classify.for_each == TensorRef("detect", "CROPS")
    assert classify.when == When(TensorRef("detect", "SCORE"), above=0.5, below=None, probability=0.7)
    assert classify.variants[0].parameters == {"k": "2"}
    assert graph.tasks["detect"].variants[1].yields == {"CROPS": 5.5}
    assert graph.type_of(graph.outputs["LABELS"]) == TensorType("INT64", (-1, 1))


def test_rows_of_rows_are_rows_of_one_tensor(tmp_path: Path) -> None:
    """classify runs for each crop, conditionally, and makes rows of its own; words runs for each of them."""
    text = edited(
        GRAPH,
        (
            "LABEL: {dtype: INT64, shape: [1]}",
            "LABEL: {dtype: INT64, shape: [-1, 4]}\n        SIZE: {dtype: INT64, shape: [1]}",
        ),
        ("accuracy: 1, template: emulated}", "accuracy: 1, template: emulated, yields: {LABEL: 2}}"),
        (CLASSIFY, extra("words", "{X: classify.LABEL}", more="for_each: classify.LABEL, ")),
        used("words"),
    )
    graph = built(text, tmp_path)
    label, size, word = (TensorRef(*name.split(".")) for name in ("classify.LABEL", "classify.SIZE", "words.Y"))
    assert graph.makes_rows(label)
    assert [graph.type_of(ref).shape for ref in (label, size, word)] == [(-1, 4), (-1, 1), (-1, 1)]
    assert [graph.row_axis(ref) for ref in (label, size, word)] == [label, TensorRef("detect", "CROPS"), label]
    assert graph.input_type(graph.tasks["words"], "X") == TensorType("INT64", (4,))


def test_a_conditional_task_may_make_rows(tmp_path: Path) -> None:
    text = edited(
        GRAPH,
        ("      for_each: detect.CROPS\n", ""),
        (
            "LABEL: {dtype: INT64, shape: [1]}",
            "LABEL: {dtype: INT64, shape: [-1, 4]}\n        SIZE: {dtype: INT64, shape: [1]}",
        ),
        ("accuracy: 1, template: emulated}", "accuracy: 1, template: emulated, yields: {LABEL: 2}}"),
        (CLASSIFY, extra("words", "{X: classify.LABEL}", more="for_each: classify.LABEL, ")),
        used("words"),
    )
    graph = built(text, tmp_path)
    label, size = TensorRef("classify", "LABEL"), TensorRef("classify", "SIZE")
    assert [graph.type_of(ref).shape for ref in (label, size)] == [(-1, 4), (-1, 1)]
    assert [graph.row_axis(ref) for ref in (label, size)] == [label, size]


def test_a_count_is_an_output_beside_the_models(tmp_path: Path) -> None:
    counts = "      counts: {PER_PAGE: CROPS}\n      variants:\n        - {name: n"
    text = edited(
        GRAPH, ("      variants:\n        - {name: n", counts), ("    LABELS: ", "    N: detect.PER_PAGE\n    LABELS: ")
    )
    graph = built(text, tmp_path)
    count = TensorRef("detect", "PER_PAGE")
    assert graph.outputs["N"] == count
    assert graph.tasks["detect"].makes == ("BOXES", "CROPS", "SCORE", "PER_PAGE")
    assert (graph.type_of(count), graph.row_axis(count)) == (TensorType("INT64", (1,)), None)


def test_both_sides_of_a_condition_may_meet_again(tmp_path: Path) -> None:
    text = edited(
        GRAPH,
        (
            CLASSIFY,
            extra(
                "both",
                "{X: detect.CROPS, L: classify.LABEL}",
                more="for_each: detect.CROPS, when: {tensor: detect.SCORE, above: 0.5}, ",
            ),
        ),
        used("both"),
    )
    graph = built(text, tmp_path)
    both = graph.tasks["both"]
    assert graph.input_type(both, "X") == TensorType("FP32", (3, 64, 64))
    assert graph.input_type(both, "L") == TensorType("INT64", (1,))


@pytest.mark.parametrize(
    "graph",
    [graphs.chain(5), graphs.fan_out(), graphs.diamond(variant_count=3), graphs.conditional(), graphs.nested()],
    ids=lambda g: g.name,
)
def test_fake_graphs_survive_a_round_trip_through_yaml(graph: TaskGraph, tmp_path: Path) -> None:
    assert replace(built(graph.to_yaml(), tmp_path), folder=Path()) == graph


def test_a_tensor_without_dimensions_is_served_with_one(tmp_path: Path) -> None:
    text = edited(
        GRAPH,
        ("LABEL: {dtype: INT64, shape: [1]}", "LABEL: {dtype: INT64, shape: []}"),
        (CLASSIFY, extra("rank", "{X: {from: detect.SCORE, shape: []}}")),
        used("rank"),
    )
    graph = built(text, tmp_path)
    classify, rank = graph.tasks["classify"], graph.tasks["rank"]
    assert (classify.scalar_inputs, classify.scalar_outputs) == (frozenset(), frozenset({"LABEL"}))
    assert (rank.scalar_inputs, rank.scalar_outputs) == (frozenset({"X"}), frozenset())
    assert graph.type_of(TensorRef("classify", "LABEL")) == TensorType("INT64", (-1, 1))
    assert graph.input_type(rank, "X") == TensorType("FP32", (1,))
    assert built(graph.to_yaml(), tmp_path) == graph
