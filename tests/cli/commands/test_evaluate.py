import json
from pathlib import Path

import pytest

from jigsaw_triton.evaluation.ablation import SUBSETS
from jigsaw_triton.planner.search.attempt import OutOfTimeError
from tests.cli.conftest import Run

pytestmark = pytest.mark.slow

GPUS = ("--gpus", "1xcpu")


@pytest.fixture
def profiled(app: Path) -> Path:
    """The application with profiles on a whole GPU and on a slice."""
    file = app / "profiles.csv"
    header = file.read_text().splitlines()[0]
    rows = [f"cpu,average,exact,{kind},1,1,5,5,5,{rps},100,assumed" for kind, rps in (("7g", 200), ("1g", 100))]
    file.write_text("\n".join([header, *rows]) + "\n")
    return app


def test_an_ablation_is_printed_as_a_table_and_plotted(run: Run, profiled: Path, tmp_path: Path) -> None:
    picture = tmp_path / "ablation.svg"
    result = run("evaluate", "ablation", profiled, *GPUS, "--plot", picture)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "hello on 1xcpu; slices at 200 requests/s"
    assert lines[2].split() == ["none", "200", "1.00", "7", "200", "1.00", "7", "0", "of", "7"]
    assert next(line for line in lines if line.startswith("A+S+T")).split()[1:4] == ["700", "3.50", "2"]
    assert "published" in result.stdout
    assert picture.exists()
    assert f"wrote {picture}" in result.stderr


def test_json_of_an_ablation_has_all_cases(run: Run, profiled: Path) -> None:
    document = json.loads(run("evaluate", "ablation", profiled, *GPUS, "-o", "json").stdout)
    (graph,) = document["graphs"]
    assert (graph["graph"], len(graph["cases"])) == ("hello", 16)
    assert document["gain"]["exact"]["AST"] == pytest.approx(3.5, rel=1e-3)
    assert set(document["published"]) == {f or "none" for f in SUBSETS}


def test_feature_sets_that_can_serve_nothing_have_a_reason(run: Run, app: Path) -> None:
    """The application has no profile of a whole GPU."""
    shown = run("evaluate", "ablation", app, *GPUS).stdout
    assert "features none, exact: hello: task average has no usable configuration" in shown
    assert "without spatial partitioning (S)" in shown


def test_slices_that_are_not_counted_in_time_are_marked(
    run: Run, profiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(*_: object, **__: object) -> None:
        raise OutOfTimeError(5.0)

    monkeypatch.setattr("jigsaw_triton.evaluation.ablation.allot", too_slow)
    result = run("evaluate", "ablation", profiled, *GPUS)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2].split() == ["none", "200", "1.00", "~", "200", "1.00", "~", "~"]
    assert "no plan found, within the time limit" in result.stdout


def test_a_plot_with_an_unknown_suffix_is_refused_before_planning(run: Run, profiled: Path, tmp_path: Path) -> None:
    result = run("evaluate", "ablation", profiled, *GPUS, "--plot", tmp_path / "a.jpg")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "must end in .svg or .png" in result.stderr


def test_a_plot_that_cannot_be_written_is_refused_before_planning(run: Run, profiled: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    place = tmp_path / "a.svg"
    place.mkdir()
    result = run("evaluate", "ablation", profiled, *GPUS, "--plot", place)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the file cannot be written" in result.stderr
    assert "planning" not in result.stderr


def test_checking_that_a_plot_can_be_written_leaves_no_file(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "a.svg"
    assert run("evaluate", "ablation", tmp_path / "none", *GPUS, "--plot", picture).exit_code == 2
    assert not picture.exists()


def test_the_help_of_the_group_lists_its_commands(run: Run) -> None:
    assert "ablation" in run("evaluate", "--help").stdout
