import json
import re
from pathlib import Path

import pytest

from jigsaw_triton.resources import applications_dir
from tests.cli.conftest import Run

GPUS = ("--gpus", "1xcpu")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A minute at 1000 requests a second, and two at 9000."""
    path = tmp_path / "trace.csv"
    path.write_text("second,rps\n" + "".join(f"{s},{1000 if s < 60 else 9000}\n" for s in range(180)))
    return path


def test_the_run_is_a_table_with_the_changes_and_the_violations(run: Run, app: Path, trace: Path) -> None:
    result = run("simulate", app, "--trace", trace, *GPUS)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("0:0")][:3] == ["0:00:00", "0:01:00", "0:02:00"]
    assert re.search(r"measured load: hello receives \d+/s, planned 1045/s", result.stdout)
    assert lines[-1].startswith("1140000 requests, ")
    assert lines[-1].endswith("2 changes")


def test_json_has_the_changes_and_the_intervals(run: Run, app: Path, trace: Path) -> None:
    document = json.loads(run("simulate", app, "--trace", trace, *GPUS, "-o", "json").stdout)
    assert document["requests"] == {"hello": 1140000.0}
    assert [interval["from_s"] for interval in document["intervals"]] == [0, 60, 120]
    rise, review = document["changes"]
    assert 60 <= rise["at_s"] <= 66 < review["at_s"]
    assert (review["reason"], review["slices"]) == ("review of the plan", rise["slices"] - 1)
    missed = document["violations"]["hello"]
    assert 0 < missed == pytest.approx(1140000 * document["violation_share"])
    assert document["intervals"][0]["violations"] == document["intervals"][2]["violations"] == 0


@pytest.mark.slow
def test_with_the_objective_accuracy_quality_gives_way_to_load(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("second,rps\n" + "".join(f"{s},{2 if s < 60 else 80}\n" for s in range(180)))
    reader = applications_dir() / "docread"
    asked = ("simulate", reader, "--trace", path, "--gpus", "2xcpu", "--objective", "accuracy", "-o", "json")
    intervals = json.loads(run(*asked).stdout)["intervals"]
    assert intervals[0]["accuracy"] > intervals[2]["accuracy"] + 0.05
    assert intervals[2]["violations"] == 0


@pytest.mark.slow
def test_slices_are_given_back_once_a_period(run: Run, app: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("second,rps\n" + "".join(f"{s},{9000 if 130 <= s < 190 else 1000}\n" for s in range(1200)))
    asked = ("simulate", app, "--trace", path, *GPUS, "-o", "json")
    slices = {
        period: [interval["slices"] for interval in json.loads(run(*asked, "--period", period).stdout)["intervals"]]
        for period in ("30", "2000")
    }
    assert slices["30"][-1] == slices["30"][0] < slices["30"][2] == slices["30"][6]
    assert slices["2000"][-1] > slices["2000"][0]


@pytest.mark.slow
def test_a_plot_is_written(run: Run, app: Path, trace: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "run.svg"
    assert run("simulate", app, "--trace", trace, *GPUS, "--plot", picture).exit_code == 0
    assert "requests/s" in picture.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trace", "none.csv"), "the trace cannot be read"),
        (("--trace", "other={trace}"), "there is no such graph"),
        (("--trace", "{trace}", "--trace", "{trace}"), "each trace needs the name of its graph"),
        (("--trace", "{trace}", "--scale", "0"), "0"),
        (("--trace", "{trace}", "--plot", "run.jpg"), "must end in .svg or .png"),
        (("--trace", "{trace}", "--demand", "many"), "many"),
    ],
)
def test_mistakes_are_refused(run: Run, app: Path, trace: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("simulate", app, *GPUS, *(text.format(trace=trace) for text in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_first_load_that_does_not_fit_is_infeasible(run: Run, app: Path, trace: Path) -> None:
    result = run("simulate", app, "--trace", trace, "--scale", "1000", *GPUS)
    assert result.exit_code == 3
    assert "enough" in result.stderr or "at most" in result.stderr
