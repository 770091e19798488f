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
from jigsaw_triton.graph.model import Slo, TaskGraph, TensorRef, TensorType, When
from jigsaw_triton.spec.load import load_graph
from tests.fakes import graphs
from tests.fakes.documents import GRAPH, TEMPLATES, built, edited, line_of

CLASSIFY = "    classify:\n"
VARIANT = "variants: [{name: a, accuracy: 1, template: emulated}]"


def extra(name: str, inputs: str, *, more: str = "", outputs: str = "{Y: {dtype: FP32, shape: [1]}}") -> str:
    """Returns the line of another task, to insert before classify."""
    return f"    {name}: {{inputs: {inputs}, outputs: {outputs}, {more}{VARIANT}}}\n{CLASSIFY}"


def used(name: str) -> tuple[str, str]:
    """Returns the edit that adds the output Y of a task to the graph's outputs."""
    return ("    LABELS: ", f"    OF_{name}: {name}.Y\n    LABELS: ")


# Edits; text on the line that the diagnostic names; part of the message.
MISTAKES: dict[str, tuple[list[tuple[str, str]], str, str]] = {
    "unknown task": (
        [("IMAGE: inputs.FRAME", "IMAGE: detct.BOXES"), ("BOXES: detect", "F: inputs.FRAME\n    BOXES: detect")],
        "IMAGE:",
        "'detct.BOXES': there is no task 'detct'; did you mean 'detect'?",
    ),
    "unknown output": (
        [("CROP: detect.CROPS", "CROP: detect.CROP")],
        "CROP: ",
        "task 'detect' has no output 'CROP'; did you mean 'CROPS'?",
    ),
    "unknown output, none similar": (
        [("CROP: detect.CROPS", "CROP: detect.ZZZ")],
        "CROP: ",
        "no output 'ZZZ'; outputs of detect: BOXES, CROPS, SCORE",
    ),
    "unknown graph input": (
        [("IMAGE: inputs.FRAME", "IMAGE: inputs.FRAM")],
        "IMAGE:",
        "the graph has no input 'FRAM'; did you mean 'FRAME'?",
    ),
    "not a reference": (
        [("for_each: detect.CROPS", "for_each: CROPS")],
        "for_each",
        "'CROPS' is not a reference to a tensor; write task.OUTPUT, or inputs.NAME",
    ),
    "output that does not exist": (
        [("BOXES: detect.BOXES", "BOXES: detect.BOX")],
        "BOXES: detect",
        "no output 'BOX'; did you mean 'BOXES'?",
    ),
    "condition on an unknown task": (
        [("tensor: detect.SCORE", "tensor: screen.SCORE")],
        "when:",
        "there is no task 'screen'; known tasks: classify, detect, inputs",
    ),
    "unused input": (
        [("  outputs:\n    BOXES", "    MASK: {dtype: BOOL, shape: [1]}\n  outputs:\n    BOXES")],
        "MASK",
        "no task uses the input 'MASK' of the graph; remove it, or use inputs.MASK as an input of a task",
    ),
    "unused task": (
        [(CLASSIFY, extra("idle", "{X: detect.BOXES}"))],
        "idle",
        "no output of the graph depends on task 'idle'",
    ),
    "cycle": (
        [("IMAGE: inputs.FRAME", "IMAGE: inputs.FRAME\n        AGAIN: classify.LABEL")],
        "classify:\n",
        "the tasks form a cycle: classify -> detect -> classify; remove one of its edges",
    ),
    "task that feeds itself": (
        [(CLASSIFY, extra("own", "{X: own.Y}")), used("own")],
        "    own:",
        "the tasks form a cycle: own -> own",
    ),
    "task named inputs": (
        [
            (CLASSIFY, extra("inputs", "{X: detect.BOXES}")),
        ],
        "    inputs: {inputs",
        "a task cannot be named 'inputs'; rename it, because inputs.NAME refers to an input of the graph",
    ),
    "reserved tensor": (
        [("CROP: detect.CROPS", "JIGSAW_WHEN: detect.CROPS")],
        "JIGSAW_WHEN",
        "a tensor cannot be named 'JIGSAW_WHEN'; rename it, because names that begin with JIGSAW_ are reserved",
    ),
    "iteration over a tensor without rows": (
        [("for_each: detect.CROPS", "for_each: detect.SCORE")],
        "for_each",
        "detect.SCORE has no varying number of rows: it is FP32 [1]",
    ),
    "iteration without a row as input": (
        [("CROP: detect.CROPS", "CROP: detect.SCORE")],
        "for_each",
        "classify iterates over detect.CROPS, but none of its inputs is a row of it; add detect.CROPS to its inputs",
    ),
    "row without a dimension": (
        [("[-1, 3, 64, 64]", "[-1]")],
        "for_each",
        "a row of detect.CROPS has no dimensions: the tensor is FP32 [-1]; declare its shape as [-1, 1]",
    ),
    "no estimate of rows": (
        [(", yields: {CROPS: 2.6}", "")],
        "name: n",
        "variant 'n' does not estimate the number of rows of detect.CROPS, over which classify iterates; add, for",
    ),
    "yields of an unknown output": (
        [("yields: {CROPS: 2.6}", "yields: {CROPS: 2.6, CORPS: 1}")],
        "name: n",
        "yields has 'CORPS', which is not an output; did you mean 'CROPS'?",
    ),
    "yields of an output without rows": (
        [("yields: {CROPS: 2.6}", "yields: {CROPS: 2.6, SCORE: 1}")],
        "name: n",
        "yields has 'SCORE', whose shape [1] has no varying number of rows",
    ),
    "rows of an input without rows": (
        [("shape: [-1, -1, 3]", "shape: [8, 8, 3], rows: 5")],
        "FRAME:",
        "FRAME has no varying number of rows: its shape is [8, 8, 3]",
    ),
    "no estimate of rows of rows": (
        [
            ("LABEL: {dtype: INT64, shape: [1]}", "LABEL: {dtype: INT64, shape: [-1, 4]}"),
            (CLASSIFY, extra("words", "{X: classify.LABEL}", more="for_each: classify.LABEL, ")),
            used("words"),
        ],
        "- {name: a",
        "rows of classify.LABEL, over which words iterates; add, for example, yields: {LABEL: 3.0}",
    ),
    "rows mixed with rows of rows": (
        [
            ("LABEL: {dtype: INT64, shape: [1]}", "LABEL: {dtype: INT64, shape: [-1, 4]}"),
            ("accuracy: 1, template: emulated}", "accuracy: 1, template: emulated, yields: {LABEL: 2}}"),
            (
                CLASSIFY,
                extra("words", "{X: classify.LABEL, LINE: detect.CROPS}", more="for_each: classify.LABEL, "),
            ),
            used("words"),
        ],
        "    words:",
        "the rows of detect.CROPS are not those of classify.LABEL, over which words iterates",
    ),
    "count of an unknown output": (
        [("      variants:\n        - {name: n", "      counts: {N: CROPSS}\n      variants:\n        - {name: n")],
        "counts:",
        "'N' counts the rows of 'CROPSS', which is not an output; did you mean 'CROPS'?",
    ),
    "count of an output without rows": (
        [("      variants:\n        - {name: n", "      counts: {N: SCORE}\n      variants:\n        - {name: n")],
        "counts:",
        "SCORE has no varying number of rows: its shape is [1]; count an output whose shape begins with -1",
    ),
    "count with the name of an output": (
        [("      variants:\n        - {name: n", "      counts: {SCORE: CROPS}\n      variants:\n        - {name: n")],
        "counts:",
        "'SCORE' is already an output of the model; give the count another name",
    ),
    "different rows": (
        [
            (CLASSIFY, extra("boxer", "{X: detect.BOXES, Z: detect.CROPS}", more="for_each: detect.BOXES, ")),
            used("boxer"),
            ("yields: {CROPS: 2.6}", "yields: {CROPS: 2.6, BOXES: 2}"),
            ("yields: {CROPS: 5.5}", "yields: {CROPS: 5.5, BOXES: 2}"),
        ],
        "    boxer:",
        "the rows of detect.CROPS are not those of detect.BOXES, over which boxer iterates",
    ),
    "rows that a condition empties": (
        [
            (CLASSIFY, extra("both", "{X: detect.CROPS, L: classify.LABEL}", more="for_each: detect.CROPS, ")),
            used("both"),
        ],
        "    both:",
        "classify.LABEL and detect.CROPS may differ in the number of rows, because a condition empties only one",
    ),
    "condition on rows": (
        [
            (CLASSIFY, extra("late", "{X: detect.BOXES}", more="when: {tensor: classify.LABEL, above: 1}, ")),
            used("late"),
        ],
        "    late:",
        "classify.LABEL has rows, so a condition cannot use it; use a tensor with one number per request",
    ),
    "condition on text": (
        [("SCORE: {dtype: FP32", "SCORE: {dtype: BYTES")],
        "when:",
        "detect.SCORE is BYTES [1], a type that a condition cannot use",
    ),
    "condition on several elements": (
        [("SCORE: {dtype: FP32, shape: [1]", "SCORE: {dtype: FP32, shape: [2]")],
        "when:",
        "detect.SCORE is FP32 [2], not a single element",
    ),
    "condition without a bound": (
        [("above: 0.5, ", "")],
        "when:",
        "the condition has neither 'above' nor 'below'; write exactly one of the two",
    ),
    "condition with two bounds": (
        [("above: 0.5, ", "above: 0.5, below: 1, ")],
        "when:",
        "the condition has both 'above' and 'below'",
    ),
    "data type along an edge": (
        [("CROP: detect.CROPS", "CROP: {from: detect.CROPS, dtype: UINT8, shape: [3, 64, 64]}")],
        "CROP: {",
        "expects UINT8 [3, 64, 64], but detect.CROPS is FP32 [3, 64, 64] per row; change one of the two types",
    ),
    "shape along an edge": (
        [("IMAGE: inputs.FRAME", "IMAGE: {from: inputs.FRAME, shape: [-1, -1, 4]}")],
        "IMAGE: {",
        "detect expects UINT8 [-1, -1, 4], but inputs.FRAME is UINT8 [-1, -1, 3]; change",
    ),
    "rank along an edge": (
        [("CROP: detect.CROPS", "CROP: {from: detect.CROPS, shape: [-1, 3, 64, 64]}")],
        "CROP: {",
        "expects FP32 [-1, 3, 64, 64], but detect.CROPS is FP32 [3, 64, 64] per row",
    ),
    "duplicate variant": (
        [("{name: s,", "{name: n,")],
        "37.4",
        "duplicate variant 'n'; rename one; the first is on line 22",
    ),
    "unknown template": (
        [("accuracy: 1, template: emulated", "accuracy: 1, template: onnx")],
        "name: a",
        "there is no template 'onnx'; did you mean 'onnxruntime'?",
    ),
    "artifact outside": (
        [("accuracy: 1,", "accuracy: 1, artifacts: {m: ../m.onnx},")],
        "name: a",
        "'../m.onnx' is outside the graph's folder",
    ),
    "artifact with an absolute path": (
        [("accuracy: 1,", "accuracy: 1, artifacts: {m: /etc/hostname},")],
        "name: a",
        "'/etc/hostname' is outside the graph's folder",
    ),
    "artifact with an invalid name": (
        [("accuracy: 1,", "accuracy: 1, artifacts: {../m: m.onnx},")],
        "name: a",
        "'../m' is not a valid file name",
    ),
    "sample of an unknown input": (
        [("  slo:", "  sample: {FRAMES: f.npy}\n  slo:")],
        "sample:",
        "the graph has no input 'FRAMES', but sample has a file for it; did you mean 'FRAME'?",
    ),
    "sample of another format": (
        [("  slo:", "  sample: {FRAME: f.png}\n  slo:")],
        "sample:",
        "'f.png' is not a .npy file",
    ),
    "sample outside": ([("  slo:", "  sample: {FRAME: ../f.npy}\n  slo:")], "sample:", "'../f.npy' is outside"),
}


def refusal(text: str, folder: Path, **options: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        built(text, folder, **options)
    return [str(problem).removeprefix(f"{folder}/graph.yaml:") for problem in caught.value.diagnostics]


@pytest.mark.parametrize(("edits", "place", "words"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_reported_once_with_its_line(
    tmp_path: Path, edits: list[tuple[str, str]], place: str, words: str
) -> None:
    text = edited(GRAPH, *edits)
    found = refusal(text, tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(f"{line_of(text, place.rstrip())}: ")
    assert words in found[0]


def test_mistakes_of_structure_and_meaning_are_reported_together(tmp_path: Path) -> None:
    text = edited(
        GRAPH,
        ("    latency_ms: 250\n", ""),
        ("BOXES: detect.BOXES", "BOXES: detect.BOX"),
        ("accuracy: 28.0", "accuracy: -1"),
        ("CROP: detect.CROPS", "CROP: detct.CROPS"),
        ("accuracy: 1,", "accuracy: 1, artifacts: {m: ../m.onnx},"),
    )
    found = refusal(text, tmp_path)
    words = ["missing key 'latency_ms'", "no output 'BOX'", "greater than 0", "no task 'detct'", "is outside"]
    assert len(found) == len(words)
    assert all(word in problem for word, problem in zip(words, found, strict=True))


@pytest.mark.parametrize(
    "edit",
    [
        ("CROPS: {dtype: FP32", "CROPS: {dtype: FLOAT"),
        ("FRAME: {dtype: UINT8", "FRAME: {dtype: U8"),
        ("IMAGE: inputs.FRAME", "IMAGE: [inputs.FRAME]"),
        ("    detect:\n", "    detect:\n      wehn: x\n"),
        ("tensor: detect.SCORE,", "tenser: detect.SCORE,"),
    ],
)
def test_a_mistake_of_structure_causes_no_further_diagnostics(tmp_path: Path, edit: tuple[str, str]) -> None:
    found = refusal(edited(GRAPH, edit), tmp_path)
    assert all(any(word in problem for word in ("dtype", "IMAGE", "wehn", "tense", "tensor")) for problem in found)
    assert len(found) == (2 if "tenser" in edit[1] else 1)


def test_missing_files_are_reported_only_if_files_are_required(tmp_path: Path) -> None:
    text = edited(
        GRAPH,
        ("accuracy: 1,", "accuracy: 1, artifacts: {model.onnx: models/a.onnx},"),
        ("  slo:", "  sample: {FRAME: f.npy}\n  slo:"),
    )
    graph = built(text, tmp_path)
    assert graph.tasks["classify"].variants[0].artifacts == {"model.onnx": tmp_path / "models/a.onnx"}
    assert graph.samples == {"FRAME": tmp_path / "f.npy"}
    assert refusal(text, tmp_path, require_files=True) == [
        f"{line_of(text, 'sample')}: there is no file 'f.npy'; run `jigsaw-triton fetch {tmp_path}`",
        f"{line_of(text, 'name: a')}: there is no file 'models/a.onnx'; run `jigsaw-triton fetch {tmp_path}`",
    ]
    (tmp_path / "models").mkdir()
    (tmp_path / "models/a.onnx").touch()
    (tmp_path / "f.npy").touch()
    assert built(text, tmp_path, require_files=True) == graph


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


def test_too_many_paths_are_refused(tmp_path: Path) -> None:
    levels = 11
    tasks = [graphs.task("t0a", {"X": "inputs.X"}), graphs.task("t0b", {"X": "inputs.X"})]
    for level in range(1, levels):
        inputs = {"L": f"t{level - 1}a.Y", "R": f"t{level - 1}b.Y"}
        tasks += [graphs.task(f"t{level}{side}", inputs) for side in "ab"]
    graph = graphs.graph(tasks, {"L": f"t{levels - 1}a.Y", "R": f"t{levels - 1}b.Y"})
    (found,) = refusal(graph.to_yaml(), tmp_path)
    assert "the graph has 2048 paths from its inputs to its outputs; at most 1024 are supported" in found


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
