from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.graph.model import Slo, TaskGraph, TensorType
from tests.fakes.documents import built, edited, line_of
from tests.fakes.graphs import CROP, VECTORS, chain, cropping, graph, ref, step, task

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {name: cropping}
spec:
  slo: {latency_ms: 100}
  inputs:
    X: {dtype: FP32, shape: [16]}
  outputs:
    LABEL: classify.LABEL
  tasks:
    detect:
      inputs: {X: inputs.X}
      outputs: {BOXES: {dtype: FP32, shape: [-1, 16]}}
      variants: [{name: v0, accuracy: 1, template: emulated}]
    crop:
      python: steps/crop.py
      inputs:
        X: inputs.X
        BOXES: {from: detect.BOXES, dtype: FP32, shape: [-1, 16]}
      outputs: {CROPS: {dtype: FP32, shape: [-1, 16]}}
      yields: {CROPS: 3}
    classify:
      for_each: crop.CROPS
      inputs: {CROP: crop.CROPS}
      outputs: {LABEL: {dtype: INT64, shape: [1]}}
      variants: [{name: v0, accuracy: 1, template: emulated}]
"""

PYTHON = "python: steps/crop.py"

# Edits of the graph; the step's file; the text of the line where the mistake shows; the message.
MISTAKES: dict[str, tuple[list[tuple[str, str]], str, str, str]] = {
    "no file": (
        [(PYTHON, "python: crop.py")],
        CROP,
        "crop.py",
        "there is no file 'crop.py'; write it, with a function",
    ),
    "a file elsewhere": ([(PYTHON, "python: ../crop.py")], CROP, "crop.py", "'../crop.py' leaves the folder"),
    "no Python": ([], "def step(:\n", PYTHON, "steps/crop.py:1: this is not Python (invalid syntax)"),
    "no function": ([], "x = 1\n", PYTHON, "steps/crop.py: there is no function step; define it: def step("),
    "an import": ([], f"import nowhere\n{CROP}", PYTHON, "steps/crop.py:1: there is no module 'nowhere'"),
    "an input that it does not take": (
        [],
        "def step(X): ...\n",
        PYTHON,
        "steps/crop.py:1: step takes no 'BOXES', an input of the step; it takes: X",
    ),
    "an input that no parameter can be called": (
        [("        BOXES: {from", "        all-boxes: {from")],
        "def step(X): ...\n",
        PYTHON,
        "step takes no 'all-boxes', an input of the step; no parameter can be called that",
    ),
    "no parameter": ([], "def step(X=1, *BOXES): ...\n", PYTHON, "step takes no 'BOXES', an input of the step"),
    "a parameter that is no input": (
        [],
        "\ndef step(X, BOXES, scale): ...\n",
        PYTHON,
        "steps/crop.py:2: step needs 'scale', which is no input of the step; give the step that input, or",
    ),
    "both": (
        [(PYTHON, f"{PYTHON}\n      variants: [{{name: v0, accuracy: 1, template: emulated}}]")],
        CROP,
        "    crop:",
        "crop has both variants and python; keep one of the two",
    ),
    "neither": (
        [(f"      {PYTHON}\n", ""), ("      yields: {CROPS: 3}\n", "")],
        CROP,
        "    crop:",
        "spec.tasks.crop lacks variants; add the models that can do it, or python:",
    ),
    "iteration": (
        [(PYTHON, f"{PYTHON}\n      for_each: detect.BOXES")],
        CROP,
        "for_each: detect.BOXES",
        "for_each of a python step; a step is called once a request, with all rows",
    ),
    "condition": (
        [(PYTHON, f"{PYTHON}\n      when: {{tensor: inputs.X, above: 1}}")],
        CROP,
        "when:",
        "when of a python step; a step is called for each request: decide in the code",
    ),
    "counts": (
        [(PYTHON, f"{PYTHON}\n      counts: {{N: CROPS}}")],
        CROP,
        "counts:",
        "counts of a python step; count in the code",
    ),
    "time of a task": (
        [("    detect:\n", "    detect:\n      latency_ms: 3\n")],
        CROP,
        "latency_ms: 3",
        "latency_ms of a task that is no python step; the time of models is measured",
    ),
    "rows of a task": (
        [("    detect:\n", "    detect:\n      yields: {BOXES: 3}\n")],
        CROP,
        "yields: {BOXES",
        "yields of a task that is no python step; yields belong to the variants",
    ),
    "no estimate of rows": (
        [("      yields: {CROPS: 3}\n", "")],
        CROP,
        "    crop:",
        "step 'crop' gives no estimate of the rows of crop.CROPS, over which classify iterates; add yields",
    ),
    "rows of no output": (
        [("{CROPS: 3}", "{CROPS: 3, CORPS: 1}")],
        CROP,
        "CORPS",
        "yields of 'CORPS', which is no out",
    ),
    "types": (
        [("dtype: FP32, shape: [-1, 16]}\n      outputs", "dtype: FP32, shape: [4, 4, 16]}\n      outputs")],
        CROP,
        "BOXES: {from",
        "crop expects FP32 [4, 4, 16] but detect.BOXES gives FP32 [-1, 16]; make",
    ),
    "no time left": (
        [(PYTHON, f"{PYTHON}\n      latency_ms: 100")],
        CROP,
        "slo:",
        "python steps take 100 ms of the 100 ms promised; raise latency_ms of the SLO",
    ),
}


def written(folder: Path, text: str, source: str = CROP) -> TaskGraph:
    (folder / "steps").mkdir(exist_ok=True)
    (folder / "steps" / "crop.py").write_text(source)
    return built(text, folder)


@pytest.mark.parametrize(("edits", "source", "place", "words"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_told_once_with_its_line(
    tmp_path: Path, edits: list[tuple[str, str]], source: str, place: str, words: str
) -> None:
    text = edited(GRAPH, *edits)
    with pytest.raises(SpecError) as caught:
        written(tmp_path, text, source)
    (found,) = (str(problem).removeprefix(f"{tmp_path}/graph.yaml:") for problem in caught.value.diagnostics)
    assert found.startswith(f"{line_of(text, place)}: ")
    assert words in found


def test_a_graph_of_steps_alone_has_nothing_to_place(tmp_path: Path) -> None:
    of = graph([], {"CROPS": "crop.CROPS"}, steps=[step("crop", {"X": "inputs.X"}, "", outputs={"CROPS": VECTORS})])
    with pytest.raises(SpecError, match="every task is a python step; give at least one variants"):
        written(tmp_path, of.to_yaml(), "def step(X): ...\n")


def test_a_step_as_it_is_written(tmp_path: Path) -> None:
    made = written(tmp_path, GRAPH)
    crop = made.steps["crop"]
    assert (made.target, crop.retry) == ("auto", True)
    never = edited(GRAPH, (PYTHON, f"{PYTHON}\n      retry: never"))
    assert not written(tmp_path, never).steps["crop"].retry
    assert list(made.tasks) == ["detect", "classify"]
    assert (crop.file, crop.source, crop.latency_ms, crop.yields) == ("steps/crop.py", CROP, 1.0, {"CROPS": 3.0})
    assert made.input_type(crop, "BOXES") == TensorType("FP32", (-1, 16))
    assert made.type_of(ref("crop.CROPS")) == TensorType("FP32", (-1, 16))
    assert made.row_axis(ref("classify.LABEL")) == ref("crop.CROPS")


def test_a_change_of_the_code_is_a_change_of_the_graph(tmp_path: Path) -> None:
    before = written(tmp_path, GRAPH)
    assert written(tmp_path, GRAPH) == before
    assert written(tmp_path, GRAPH, CROP + "\n") != before


def test_the_fake_is_a_graph(tmp_path: Path) -> None:
    of = cropping()
    assert replace(written(tmp_path, of.to_yaml()), folder=Path()) == of


def test_tasks_follow_each_other_through_steps() -> None:
    """a -> s -> t (steps) -> b, and a -> c; u (a step) ends it."""
    of = graph(
        [task("a", {"X": "inputs.X"}), task("b", {"X": "t.Y", "Z": "inputs.X"}), task("c", {"X": "a.Y"})],
        {"Y": "u.Y"},
        slo=Slo(100.0),
        steps=[
            step("s", {"X": "a.Y"}, "", latency_ms=3),
            step("t", {"X": "s.Y"}, "", latency_ms=4),
            step("u", {"X": "b.Y", "Z": "c.Y"}, "", latency_ms=5),
        ],
    )
    assert [node.name for node in of.in_order()] == ["a", "s", "t", "b", "c", "u"]
    assert {node.name: set(of.before(node)) for node in of.in_order()} == {
        "a": set(),
        "b": {"a"},
        "c": {"a"},
        "s": {"a"},
        "t": {"a"},
        "u": {"b", "c"},
    }
    assert of.paths() == (("a", "b"), ("a", "c"))
    assert (of.steps_ms, of.tasks_ms) == (12.0, 88.0)


def test_without_steps_all_time_is_the_tasks() -> None:
    assert (chain().steps_ms, chain().tasks_ms) == (0.0, 1000.0)
