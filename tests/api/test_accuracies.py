"""Choosing what to measure, and writing accuracies into graph.yaml."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import jigsaw_triton as jt
from jigsaw_triton.api import accuracies
from jigsaw_triton.api.accuracies import check_writable, plan_work, write_accuracy
from jigsaw_triton.errors import InputError, SpecError
from jigsaw_triton.evaluation.accuracy.estimate import Estimate
from jigsaw_triton.evaluation.accuracy.measure import SAMPLE
from jigsaw_triton.evaluation.accuracy.results import AGREEMENT, Result, Unmeasured
from jigsaw_triton.evaluation.accuracy.running import Failure
from jigsaw_triton.graph.measured import Combination, Measured
from jigsaw_triton.graph.model import TaskGraph
from tests.e2e.app import write_application

LABELS = """
  labels:   # the truth
    data: labels.py
    tasks: {square: {metric: exact, output: SQUARE}}
    graph: {metric: exact, output: TOTAL}
"""
CODE = """
import numpy as np
def examples():
    for n in range(1, 4):
        x = np.arange(n)
        yield {"NUMBERS": x, "square.SQUARE": x[:, None] ** 2, "total.TOTAL": np.array([(x ** 2).sum()])}
"""
NAMES = {"split": ("plain",), "square": ("slow", "fast"), "total": ("plain",)}


def labelled(folder: Path) -> Path:
    """Writes an application with a labelled set."""
    made = write_application(folder)
    (made / "labels.py").write_text(CODE)
    text = (made / "graph.yaml").read_text()
    (made / "graph.yaml").write_text(text.replace("  outputs:\n    SQUARES", f"{LABELS[1:]}  outputs:\n    SQUARES"))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return labelled(tmp_path / "words")


def result(value: float, **variants: str) -> Result:
    found = Estimate(value, value - 0.01, value + 0.01, 3)
    return Result(variants, "exact", "labels.py", found)


def graph(folder: Path) -> TaskGraph:
    return jt.load_graph(folder)


def test_an_accuracy_is_written_with_its_measurement(folder: Path) -> None:
    before = (folder / "graph.yaml").read_text()
    write_accuracy(folder / "graph.yaml", result(0.87654321, square="fast"))
    fast = graph(folder).tasks["square"].variant("fast")
    assert fast.accuracy == 0.8765
    assert fast.measured == Measured("exact", "labels.py", 3, 0.8665, 0.8865)
    text = (folder / "graph.yaml").read_text()
    assert "  labels:   # the truth" in text
    changed = [line for line in text.splitlines() if line not in before.splitlines()]
    assert len(changed) == 2
    write_accuracy(folder / "graph.yaml", result(0.9, square="fast"))
    assert len((folder / "graph.yaml").read_text().splitlines()) == len(text.splitlines())


def test_variants_on_one_line_are_written_too(folder: Path) -> None:
    write_accuracy(folder / "graph.yaml", result(0.5, total="plain"))
    assert graph(folder).tasks["total"].variant("plain").accuracy == 0.5


def test_combinations_are_added_and_replaced(folder: Path) -> None:
    file = folder / "graph.yaml"
    write_accuracy(file, result(0.5, square="fast", total="plain"))
    write_accuracy(file, result(0.6, square="slow", total="plain"))
    write_accuracy(file, result(0.7, square="fast", total="plain"))
    first, second = graph(folder).combinations
    assert (first.variants, first.accuracy) == ({"square": "fast", "total": "plain"}, 0.7)
    assert second == Combination(
        {"square": "slow", "total": "plain"}, 0.6, Measured("exact", "labels.py", 3, 0.59, 0.61)
    )


def test_an_accuracy_of_nothing_is_not_written(folder: Path) -> None:
    before = (folder / "graph.yaml").read_text()
    write_accuracy(folder / "graph.yaml", result(0.0, square="fast"))
    assert (folder / "graph.yaml").read_text() == before


def test_a_file_that_cannot_be_written_is_refused_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(folder / "graph.yaml")

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jigsaw_triton.api.accuracies.replace_text", full)
    before = (folder / "graph.yaml").read_text()
    with pytest.raises(InputError, match="No space left on device"):
        check_writable(folder / "graph.yaml")
    assert (folder / "graph.yaml").read_text() == before


def test_what_the_file_has_is_not_measured_again(folder: Path) -> None:
    assert plan_work(graph(folder), NAMES).variants == {"square": ("slow", "fast")}
    write_accuracy(folder / "graph.yaml", result(0.9, square="fast"))
    assert plan_work(graph(folder), NAMES).variants == {"square": ("slow",)}
    assert plan_work(graph(folder), NAMES, again=True).variants == {"square": ("slow", "fast")}
    # A measurement with two requests does not count as one with three.
    assert plan_work(graph(folder), NAMES, limit=2).variants == {"square": ("slow", "fast")}


def test_without_labels_answers_to_the_sample_are_compared(tmp_path: Path) -> None:
    made = write_application(tmp_path / "words")
    with pytest.raises(InputError, match="no labels, and no sample of NUMBERS"):
        plan_work(graph(made), NAMES)


def test_pairs_need_a_metric_of_the_graph_and_two_tasks_with_variants(folder: Path) -> None:
    with pytest.raises(InputError, match="there is no pair of tasks to measure"):
        plan_work(graph(folder), NAMES, pairs=True)
    file = folder / "graph.yaml"
    file.write_text(file.read_text().replace("    graph: {metric: exact, output: TOTAL}\n", ""))
    with pytest.raises(InputError, match="there is no metric of the accuracy end to end"):
        plan_work(graph(folder), NAMES, pairs=True)


def test_an_agreement_is_named_as_one() -> None:
    found = Result({"square": "fast"}, AGREEMENT, SAMPLE, Estimate(1, 1, 1, 1), "slow")
    assert (found.name, found.measured.metric) == ("square fast", "agreement")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"requests": 0}, "requests: 0 is out of range"),
        ({"requests": -3}, "requests: -3 is out of range"),
        ({"instances": 0}, "instances: 0 is out of range"),
        ({"batch": 10**9}, "batch: 1000000000 is out of range"),
        ({"gpus": "1xcpu", "cluster": "cluster.yaml"}, "cluster is given too"),
    ],
)
def test_wrong_arguments_are_refused(folder: Path, given: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        jt.measure_accuracies(folder, **given)


@pytest.mark.parametrize("write", [False, True])
def test_what_was_measured_and_what_failed_is_returned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, write: bool
) -> None:
    outcomes = (Unmeasured({"square": "slow"}, Failure("out of memory")), result(0.8, square="fast"))

    async def measured(*_: object) -> AsyncIterator[Result | Unmeasured]:
        for one in outcomes:
            yield one

    monkeypatch.setattr(accuracies, "find_installation", lambda _: None)
    monkeypatch.setattr(accuracies, "measured_accuracies", measured)
    found = jt.measure_accuracies(folder, tasks=["square"], write=write)
    assert (*found.failed, *found.measured) == outcomes
    assert (graph(folder).tasks["square"].variant("fast").accuracy == 0.8) is write
