"""Labels, measured accuracies and combinations in graph.yaml."""

from pathlib import Path

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.graph.accuracies import mixed_accuracies
from jigsaw_triton.graph.measured import Combination, Measured
from tests.fakes.documents import GRAPH, built, edited, line_of

MEASURED = "{metric: f1, data: labels.py, n: 80, low: 27.5, high: 28.5}"
COMBINATIONS = """\
  combinations:
    - {variants: {detect: n, classify: a}, accuracy: 0.6}
    - {variants: {detect: s, classify: a}, accuracy: 0.7, measured: {metric: e, data: l.py, n: 9, low: 0.6, high: 0.8}}
"""


def test_an_accuracy_says_how_it_was_measured(tmp_path: Path) -> None:
    graph = built(edited(GRAPH, ("accuracy: 28.0,", f"accuracy: 28.0, measured: {MEASURED},")), tmp_path)
    n, s = graph.tasks["detect"].variants
    assert n.measured == Measured("f1", "labels.py", 80, 27.5, 28.5)
    assert s.measured is None
    assert built(graph.to_yaml(), tmp_path) == graph


def test_combinations_are_kept(tmp_path: Path) -> None:
    graph = built(GRAPH + COMBINATIONS, tmp_path)
    assert graph.combinations == (
        Combination({"detect": "n", "classify": "a"}, 0.6),
        Combination({"detect": "s", "classify": "a"}, 0.7, Measured("e", "l.py", 9, 0.6, 0.8)),
    )
    assert built(graph.to_yaml(), tmp_path) == graph


def test_accuracies_of_different_measurements_are_not_comparable(tmp_path: Path) -> None:
    text = MEASURED.replace("low: 27.5", "low: 0")
    same = [(f"accuracy: {a},", f"accuracy: {a}, measured: {text},") for a in ("28.0", "37.4")]
    (n, s), other = same, ("n: 80, low: 0, high: 28.5", "n: 40, low: 0, high: 40")
    s = (s[0], s[1].replace("high: 28.5", "high: 40"))
    assert list(mixed_accuracies(built(GRAPH, tmp_path))) == []
    assert list(mixed_accuracies(built(edited(GRAPH, n, s), tmp_path))) == []
    (found,) = mixed_accuracies(built(edited(GRAPH, n), tmp_path))
    assert found.startswith("the accuracies of detect may not be comparable: those of s were not measured like")
    (found,) = mixed_accuracies(built(edited(GRAPH, (n[0], n[1].replace(*other)), s), tmp_path))
    assert "the sets or metrics differ" in found


LABELS = "  labels: {data: labels.py, tasks: {detect: {metric: f1, output: BOXES}}}\n"


@pytest.mark.parametrize(
    ("edits", "line", "message"),
    [
        ((("labels.py", "labels.csv"),), "labels:", "'labels.csv' is neither a .npz nor a .py file"),
        ((("labels.py", "../labels.py"),), "labels:", "'../labels.py' is outside the graph's folder"),
        ((("{detect: {metric", "{detct: {metric"),), "labels:", "'detct' does not exist; did you mean 'detect'?"),
        ((("output: BOXES}}", "output: BOX}}"),), "labels:", "there is no output 'BOX'; did you mean 'BOXES'?"),
        (((", output: BOXES", ""),), "labels:", "the metric 'f1' has no output; add, for example, output: BOXES"),
        (
            (("metric: f1", "metric: own"),),
            "labels:",
            "'own' is a function of labels.py and has no output; remove it, because the function gets all outputs",
        ),
        (
            (("metric: f1", "metric: f2"), ("labels.py", "labels.npz")),
            "labels:",
            "there is no metric 'f2'; metrics: edit, exact, f1, top1; only a Python file of labels can define others",
        ),
    ],
)
def test_mistakes_in_labels_are_reported_with_their_line(
    tmp_path: Path, edits: tuple[tuple[str, str], ...], line: str, message: str
) -> None:
    text = GRAPH + edited(LABELS, *edits)
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    (diagnostic,) = caught.value.diagnostics
    assert message in str(diagnostic)
    assert diagnostic.line == line_of(text, line)


@pytest.mark.parametrize(
    ("edit", "line", "message"),
    [
        (("detect: n", "find: n"), "find", "there is no task 'find'"),
        (("detect: n", "detect: x"), "detect: x", "detect has no variant 'x'; variants: n, s; remove the combination"),
        (("detect: n", "detect: s"), "measured", "a combination of the same variants is above; remove one of the two"),
        (("accuracy: 0.7", "accuracy: 0.9"), "0.9,", "accuracy 0.9 is outside of its measured interval, 0.6 to 0.8"),
        (
            ("detect: n, ", ""),
            "classify: a}, accuracy: 0.6",
            "a combination has fewer than two variants; name those of two tasks or more",
        ),
    ],
)
def test_mistakes_in_combinations_are_reported_with_their_line(
    tmp_path: Path, edit: tuple[str, str], line: str, message: str
) -> None:
    text = GRAPH + edited(COMBINATIONS, edit)
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    (diagnostic,) = caught.value.diagnostics
    assert message in str(diagnostic)
    assert diagnostic.line == line_of(text, line)


def test_an_accuracy_outside_of_its_interval_was_not_measured(tmp_path: Path) -> None:
    text = edited(GRAPH, ("accuracy: 28.0,", f"accuracy: 29.0, measured: {MEASURED},"))
    with pytest.raises(SpecError, match="accuracy 29 is outside of its measured interval"):
        built(text, tmp_path)
