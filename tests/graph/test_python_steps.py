from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.graph.model import Slo, TaskGraph
from jigsaw_triton.graph.tensors import TensorType
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

# Edits of the graph; the step's code; text on the line that the diagnostic names; part of the message.
MISTAKES: dict[str, tuple[list[tuple[str, str]], str, str, str]] = {
    "missing file": (
        [(PYTHON, "python: crop.py")],
        CROP,
        "crop.py",
        "there is no file 'crop.py'; create it, and define a function",
    ),
    "file outside the folder": ([(PYTHON, "python: ../crop.py")], CROP, "crop.py", "'../crop.py' is outside"),
    "invalid Python": ([], "def step(:\n", PYTHON, "steps/crop.py:1: this is not valid Python (invalid syntax)"),
    "no function": ([], "x = 1\n", PYTHON, "steps/crop.py: there is no function step; define it: def step("),
    "missing module": ([], f"import nowhere\n{CROP}", PYTHON, "steps/crop.py:1: there is no module 'nowhere'"),
    "input without a parameter": (
        [],
        "def step(X): ...\n",
        PYTHON,
        "steps/crop.py:1: step has no parameter for the input 'BOXES'; parameters: X",
    ),
    "input whose name cannot be a parameter's": (
        [("        BOXES: {from", "        all-boxes: {from")],
        "def step(X): ...\n",
        PYTHON,
        "step has no parameter for the input 'all-boxes'; rename the input, which cannot be a parameter's name",
    ),
    "input taken by *args only": (
        [],
        "def step(X=1, *BOXES): ...\n",
        PYTHON,
        "step has no parameter for the input 'BOXES'",
    ),
    "parameter without an input": (
        [],
        "\ndef step(X, BOXES, scale): ...\n",
        PYTHON,
        "steps/crop.py:2: step requires the parameter 'scale', but the step has no such input; add the input, or",
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
        "missing key 'variants' in spec.tasks.crop; add variants, or python with the path of a file",
    ),
    "iteration": (
        [(PYTHON, f"{PYTHON}\n      for_each: detect.BOXES")],
        CROP,
        "for_each: detect.BOXES",
        "a Python step cannot have the key 'for_each'; iterate in the code, which is called once per request",
    ),
    "condition": (
        [(PYTHON, f"{PYTHON}\n      when: {{tensor: inputs.X, above: 1}}")],
        CROP,
        "when:",
        "a Python step cannot have the key 'when'; decide in the code, which is called for every request",
    ),
    "counts": (
        [(PYTHON, f"{PYTHON}\n      counts: {{N: CROPS}}")],
        CROP,
        "counts:",
        "a Python step cannot have the key 'counts'; count in the code",
    ),
    "tensor without dimensions": (
        [("outputs: {CROPS", "outputs: {ONE: {dtype: FP32, shape: []}, CROPS")],
        CROP,
        "ONE:",
        "'ONE' of a Python step has no dimension, which only tensors of models may have; write shape: [1]",
    ),
    "latency of a task": (
        [("    detect:\n", "    detect:\n      latency_ms: 3\n")],
        CROP,
        "latency_ms: 3",
        "only a Python step can have the key 'latency_ms' here; remove it: model latencies are measured",
    ),
    "yields of a task": (
        [("    detect:\n", "    detect:\n      yields: {BOXES: 3}\n")],
        CROP,
        "yields: {BOXES",
        "only a Python step can have the key 'yields' here; write it in each variant instead",
    ),
    "no estimate of rows": (
        [("      yields: {CROPS: 3}\n", "")],
        CROP,
        "    crop:",
        "step 'crop' does not estimate the number of rows of crop.CROPS, over which classify iterates; add, for",
    ),
    "yields of an unknown output": (
        [("{CROPS: 3}", "{CROPS: 3, CORPS: 1}")],
        CROP,
        "CORPS",
        "yields has 'CORPS', which is not an out",
    ),
    "types": (
        [("dtype: FP32, shape: [-1, 16]}\n      outputs", "dtype: FP32, shape: [4, 4, 16]}\n      outputs")],
        CROP,
        "BOXES: {from",
        "crop expects FP32 [4, 4, 16], but detect.BOXES is FP32 [-1, 16]; change",
    ),
    "no time left": (
        [(PYTHON, f"{PYTHON}\n      latency_ms: 100")],
        CROP,
        "slo:",
        "Python steps reserve 100 ms and leave the tasks none of the 100 ms; raise latency_ms of the SLO",
    ),
}


def written(folder: Path, text: str, source: str = CROP) -> TaskGraph:
    (folder / "steps").mkdir(exist_ok=True)
    (folder / "steps" / "crop.py").write_text(source)
    return built(text, folder)


@pytest.mark.parametrize(("edits", "source", "place", "words"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_reported_once_with_its_line(
    tmp_path: Path, edits: list[tuple[str, str]], source: str, place: str, words: str
) -> None:
    text = edited(GRAPH, *edits)
    with pytest.raises(SpecError) as caught:
        written(tmp_path, text, source)
    (found,) = (str(problem).removeprefix(f"{tmp_path}/graph.yaml:") for problem in caught.value.diagnostics)
    assert found.startswith(f"{line_of(text, place)}: ")
    assert words in found


def test_a_graph_with_only_python_steps_is_refused(tmp_path: Path) -> None:
    fake = graph([], {"CROPS": "crop.CROPS"}, steps=[step("crop", {"X": "inputs.X"}, "", outputs={"CROPS": VECTORS})])
    with pytest.raises(SpecError, match="all tasks are Python steps; add a task with variants"):
        written(tmp_path, fake.to_yaml(), "def step(X): ...\n")


def test_a_step_is_built_from_its_entry_and_its_file(tmp_path: Path) -> None:
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


def test_a_change_of_the_code_changes_the_graph(tmp_path: Path) -> None:
    before = written(tmp_path, GRAPH)
    assert written(tmp_path, GRAPH) == before
    assert written(tmp_path, GRAPH, CROP + "\n") != before


def test_the_fake_graph_survives_a_round_trip_through_yaml(tmp_path: Path) -> None:
    fake = cropping()
    assert replace(written(tmp_path, fake.to_yaml()), folder=Path()) == fake


def test_dependencies_between_tasks_pass_through_steps() -> None:
    """a -> s -> t -> b and a -> c, where s and t are steps; the step u joins b and c."""
    mixed = graph(
        [task("a", {"X": "inputs.X"}), task("b", {"X": "t.Y", "Z": "inputs.X"}), task("c", {"X": "a.Y"})],
        {"Y": "u.Y"},
        slo=Slo(100.0),
        steps=[
            step("s", {"X": "a.Y"}, "", latency_ms=3),
            step("t", {"X": "s.Y"}, "", latency_ms=4),
            step("u", {"X": "b.Y", "Z": "c.Y"}, "", latency_ms=5),
        ],
    )
    assert [node.name for node in mixed.in_order()] == ["a", "s", "t", "b", "c", "u"]
    assert {node.name: set(mixed.before(node)) for node in mixed.in_order()} == {
        "a": set(),
        "b": {"a"},
        "c": {"a"},
        "s": {"a"},
        "t": {"a"},
        "u": {"b", "c"},
    }
    assert mixed.paths() == (("a", "b"), ("a", "c"))
    assert (mixed.steps_ms, mixed.tasks_ms) == (12.0, 88.0)


def test_without_steps_the_tasks_have_the_whole_latency() -> None:
    assert (chain().steps_ms, chain().tasks_ms) == (0.0, 1000.0)
