"""The command `profile --accuracy` without servers."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import jigsaw_triton as jt
from jigsaw_triton.cli.commands.profile_accuracy import accuracy_serving
from jigsaw_triton.evaluation.accuracy.estimate import Estimate
from jigsaw_triton.evaluation.accuracy.results import AGREEMENT, Result, Unmeasured
from jigsaw_triton.evaluation.accuracy.running import Failure
from jigsaw_triton.profiles.table import ProfileKey
from tests.api.test_accuracies import labelled
from tests.cli.conftest import Run
from tests.e2e.app import write_application

Measure = Callable[..., AsyncIterator[Result]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return labelled(tmp_path / "words")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Function that sets the results of the measurement, the last of which may be an error."""

    def of(*results: Result | Unmeasured | BaseException) -> None:
        async def measured(*arguments: Any, **options: Any) -> AsyncIterator[Result | Unmeasured]:
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                yield result

        monkeypatch.setattr("jigsaw_triton.api.accuracies.measured_accuracies", measured)
        monkeypatch.setattr("jigsaw_triton.api.accuracies.find_installation", lambda _: None)

    return of


def accuracy(value: float, **variants: str) -> Result:
    return Result(variants, "exact", "labels.py", Estimate(value, value * 0.9, min(1.0, value * 1.1), 3))


def test_accuracies_are_written_and_shown(run: Run, folder: Path, answers: Callable[..., None]) -> None:
    answers(accuracy(0.95, square="slow"), accuracy(0.5, square="fast"))
    result = run("profile", folder, "--accuracy")
    assert result.exit_code == 0, result.stderr
    assert "square slow    0.9500  0.8550 to 1.0000  exact   3     1.0" in result.stdout
    assert "2 accuracies measured on labels.py, 3 requests, and written to" in result.stdout
    assert [v.accuracy for v in jt.load_graph(folder).tasks["square"].variants] == [0.95, 0.5]
    again = run("profile", folder, "--accuracy")
    assert "nothing to measure" in again.stdout
    assert again.exit_code == 0


def test_a_variant_that_fails_is_shown_and_the_others_are_written(
    run: Run, folder: Path, answers: Callable[..., None]
) -> None:
    failed = Unmeasured({"square": "slow"}, Failure("its model does not load", "  no such operator"))
    answers(failed, accuracy(0.5, square="fast"))
    result = run("profile", folder, "--accuracy")
    assert result.exit_code == 1
    assert "square slow failed: its model does not load" in result.stderr
    assert "no such operator" in result.stderr
    assert "1 failed and were not measured: square slow" in result.stdout
    assert jt.load_graph(folder).tasks["square"].variant("fast").accuracy == 0.5
    document = json.loads(run("profile", folder, "--accuracy", "--again", "-o", "json").stdout)
    assert document["failed"] == [{"variants": {"square": "slow"}, "reason": "its model does not load"}]


def test_an_agreement_is_shown_as_one_and_not_written(run: Run, folder: Path, answers: Callable[..., None]) -> None:
    before = (folder / "graph.yaml").read_text()
    answers(Result({"square": "fast"}, AGREEMENT, "labels.py", Estimate(0.5, 0.4, 0.6, 3), "slow"))
    result = run("profile", folder, "--accuracy")
    assert "square fast     0.5000  0.4000 to 0.6000  3  slow" in result.stdout
    assert "an agreement is no accuracy" in result.stdout
    assert (folder / "graph.yaml").read_text() == before
    document = json.loads(run("profile", folder, "--accuracy", "-o", "json").stdout)
    (found,) = document["results"]
    assert (found["measure"], found["with"], found["value"]) == ("agreement", "slow", 0.5)


def test_what_was_measured_before_an_interruption_is_kept(run: Run, folder: Path, answers: Callable[..., None]) -> None:
    answers(accuracy(0.95, square="slow"), KeyboardInterrupt())
    result = run("profile", folder, "--accuracy")
    assert "interrupted" in result.stderr
    assert "has the accuracies that were measured until then, 1" in result.stderr
    slow, fast = jt.load_graph(folder).tasks["square"].variants
    assert (slow.accuracy, fast.accuracy) == (0.95, 0.9)
    planned = run("plan", folder, "--gpus", "1xcpu", "--demand", "1")
    assert "the accuracies of square may not be comparable: those of fast were not measured" in planned.stderr


@pytest.mark.parametrize("value", [0.0, -0.25])
def test_an_accuracy_that_is_not_above_0_is_a_warning(
    run: Run, folder: Path, answers: Callable[..., None], value: float
) -> None:
    answers(accuracy(value, square="fast"))
    result = run("profile", folder, "--accuracy")
    assert f"square fast has the accuracy {value:g}, which graph.yaml cannot have" in result.stderr
    assert result.exit_code == 0


def test_an_interval_that_reaches_below_0_leaves_the_file_valid(
    run: Run, folder: Path, answers: Callable[..., None]
) -> None:
    # The metric `edit` gives less than no points for an answer that is much longer than the label.
    answers(Result({"square": "fast"}, "edit", "labels.py", Estimate(0.2, -0.3, 0.6, 3)))
    assert run("profile", folder, "--accuracy").exit_code == 0
    measured = jt.load_graph(folder).tasks["square"].variant("fast").measured
    assert measured is not None
    assert (measured.low, measured.high) == (0.0, 0.6)


def test_models_are_served_on_the_largest_slice() -> None:
    keys = [ProfileKey("A100-80GB", "square", "slow", kind, 1, 1) for kind in ("3g", "7g", "1gx2")]
    assert accuracy_serving(keys).kind == "7g"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pairs",), "--pairs and --requests are for accuracies"),
        (("--requests", "3"), "--pairs and --requests are for accuracies"),
        (("--accuracy", "-O", "other.csv"), "accuracies are written into graph.yaml"),
        (("--accuracy", "--neighbours", "1"), "--neighbours are for profiles"),
        (("--accuracy", "--budget", "1m"), "--neighbours are for profiles"),
        (("--accuracy", "--points", "4"), "--neighbours are for profiles"),
        (("--accuracy", "--requests", "0"), "--requests"),
        (("--accuracy", "--pairs"), "there is no pair of tasks to measure"),
        (("--accuracy", "--slices", "9g"), "no slice '9g'"),
        (("--accuracy", "--variant", "quick"), "no variant 'quick'"),
    ],
)
def test_wrong_arguments_exit_with_2(run: Run, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("profile", folder, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_graph_with_neither_labels_nor_sample_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("profile", write_application(tmp_path / "words"), "--accuracy")
    assert result.exit_code == 2
    assert "there is nothing to measure on: no labels, and no sample of NUMBERS" in result.stderr


def test_missing_labels_are_named(run: Run, folder: Path) -> None:
    (folder / "labels.py").unlink()
    result = run("profile", folder, "--accuracy")
    assert result.exit_code == 2
    assert "labels.py: there is no such file" in result.stderr
