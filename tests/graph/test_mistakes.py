"""Mistakes in graph.yaml, each with its line and what to write instead."""

from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.errors import SpecError
from tests.fakes import graphs
from tests.fakes.documents import CLASSIFY, GRAPH, built, edited, extra, line_of, used

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
    "input without dimensions of another shape": (
        [("CROP: detect.CROPS", "CROP: detect.CROPS\n        BOX: {from: detect.SCORE, dtype: INT64, shape: []}")],
        "BOX:",
        "classify expects INT64 [], but detect.SCORE is FP32 [1]; change one of the two types",
    ),
    "input without dimensions of a row": (
        [("CROP: detect.CROPS", "CROP: {from: detect.CROPS, shape: []}")],
        "CROP:",
        "classify expects FP32 [], but detect.CROPS is FP32 [3, 64, 64] per row; change one of the two types",
    ),
    "graph input without dimensions": (
        [("shape: [-1, -1, 3]", "shape: []")],
        "FRAME:",
        "spec.inputs.FRAME.shape must not be empty",
    ),
    "rows of an output without dimensions": (
        [("SCORE: {dtype: FP32, shape: [1]}", "SCORE: {dtype: FP32, shape: []}"), ("CROPS: 2.6", "CROPS: 2, SCORE: 1")],
        "{name: n,",
        "yields has 'SCORE', whose shape [] has no varying number of rows",
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


def test_too_many_paths_are_refused(tmp_path: Path) -> None:
    levels = 11
    tasks = [graphs.task("t0a", {"X": "inputs.X"}), graphs.task("t0b", {"X": "inputs.X"})]
    for level in range(1, levels):
        inputs = {"L": f"t{level - 1}a.Y", "R": f"t{level - 1}b.Y"}
        tasks += [graphs.task(f"t{level}{side}", inputs) for side in "ab"]
    graph = graphs.graph(tasks, {"L": f"t{levels - 1}a.Y", "R": f"t{levels - 1}b.Y"})
    (found,) = refusal(graph.to_yaml(), tmp_path)
    assert "the graph has 2048 paths from its inputs to its outputs; at most 1024 are supported" in found
