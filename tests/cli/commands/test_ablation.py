import json
from pathlib import Path

import pytest

from jigsaw_triton.evaluation.ablation import PAPER_SUBSETS
from jigsaw_triton.planner.domain.features import SUBSETS
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
    assert set(document["published"]) == {f or "none" for f in PAPER_SUBSETS}


def test_feature_sets_that_can_serve_nothing_have_a_reason(run: Run, app: Path) -> None:
    """The application has no profile of a whole GPU."""
    shown = run("evaluate", "ablation", app, *GPUS).stdout
    assert "features none, exact: hello: task average has no usable configuration" in shown
    assert "without MIG slices (M, a part of S)" in shown


def test_all_subsets_of_the_parts_of_s_are_compared(run: Run, profiled: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "ablation.svg"
    asked = ("evaluate", "ablation", profiled, *GPUS, "--all-subsets", "--plot", picture)
    document = json.loads(run(*asked, "-o", "json").stdout)
    assert [case["features"] for case in document["graphs"][0]["cases"]] == [*SUBSETS, *SUBSETS]
    gain = document["gain"]["exact"]
    assert (gain["P"], gain["M"], gain["S"]) == pytest.approx((1.0, 3.5, 3.5), rel=1e-3)
    assert "A+M+T" in picture.read_text()


def test_batches_can_be_limited(run: Run, profiled: Path) -> None:
    result = run("evaluate", "ablation", profiled, *GPUS, "--max-batch", "1")
    assert "hello on 1xcpu, batches up to 1" in result.stdout
    file = profiled / "profiles.csv"
    file.write_text(file.read_text().replace(",1,1,", ",1,8,"))
    result = run("evaluate", "ablation", profiled, *GPUS, "--max-batch", "4")
    assert (result.exit_code, "the smallest profiled batch is 8" in result.stderr) == (2, True)


def test_slices_that_are_not_counted_in_time_are_marked(
    run: Run, profiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(*_: object, **__: object) -> None:
        raise OutOfTimeError(5.0)

    monkeypatch.setattr("jigsaw_triton.evaluation.ablation.allot", too_slow)
    result = run("evaluate", "ablation", profiled, *GPUS)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2].split() == ["none", "200", "1.00", "~", "200", "1.00", "~", "~"]
    assert "no plan found within the time limit" in result.stdout


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


def test_the_map_is_compared_with_solving_and_plotted(run: Run, profiled: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "map.svg"
    result = run("evaluate", "ablation", profiled, *GPUS, "--map", "--plot", picture)
    assert result.exit_code == 0, result.stderr
    row = next(line for line in result.stdout.splitlines() if line.startswith("hello  "))
    assert row.split()[-3:] == ["3.50", "3.50", "+0.0%"]
    assert "hello" in picture.read_text()
    (graph,) = json.loads(run("evaluate", "ablation", profiled, *GPUS, "--map", "-o", "json").stdout)["graphs"]
    assert (graph["estimated"], graph["solved"]) == pytest.approx((3.5, 3.5), rel=1e-3)
    assert [task["task"] for task in graph["tasks"]] == ["average"]


def test_a_graph_without_profiles_of_whole_gpus_is_not_on_the_map(run: Run, app: Path) -> None:
    result = run("evaluate", "ablation", app, *GPUS, "--map")
    assert (result.exit_code, "the map has no gain of S" in result.stderr + result.stdout) == (3, True)


def test_the_map_is_for_one_model_of_gpu(run: Run, profiled: Path) -> None:
    result = run("evaluate", "ablation", profiled, "--gpus", "1xcpu,1xA100-80GB", "--map")
    assert (result.exit_code, "the map is for one model of GPU" in result.stderr) == (2, True)


def test_the_map_excludes_all_subsets(run: Run, profiled: Path) -> None:
    result = run("evaluate", "ablation", profiled, *GPUS, "--map", "--all-subsets")
    assert (result.exit_code, "--map and --all-subsets exclude each other" in result.stderr) == (2, True)
