import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run

pytestmark = pytest.mark.slow

ASKED = ("--gpus", "1xcpu", "--system", "exact:AST", "--system", "paper:AMPT")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("t_start_s,mean_rps\n0,10\n300,0\n600,90\n")
    return path


def test_the_systems_are_rows_beside_the_published_figures(run: Run, app: Path, trace: Path) -> None:
    result = run("evaluate", "trials", app, "--trace", trace, *ASKED)
    assert result.exit_code == 0, result.stderr
    assert "means over 2 trials" in result.stdout
    assert re.search(r"^exact A\+S\+T .* - +-$", result.stdout, re.M)
    assert re.search(r"^paper A\+S\+T .* 43\.3% +< 0\.6%$", result.stdout, re.M)


def test_json_and_the_plot_have_each_trial(run: Run, app: Path, trace: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "trials.svg"
    result = run("evaluate", "trials", app, "--trace", trace, *ASKED, "-o", "json", "--plot", picture)
    document = json.loads(result.stdout)
    ours, paper = document["systems"]
    assert [one["load_rps"] for one in ours["trials"]] == [one["load_rps"] for one in paper["trials"]]
    assert ours["trials"][0]["slices"] <= ours["trials"][1]["slices"] <= document["slices_total"]
    assert document["published"]["AST"]["slices"] == "43.3%"
    assert "A+S+T" in picture.read_text()


def test_the_highest_rate_needs_the_whole_cluster_by_default(run: Run, app: Path, trace: Path) -> None:
    def highest(*options: str) -> float:
        result = run("evaluate", "trials", app, "--trace", trace, *ASKED[:4], *options, "-o", "json")
        (system,) = json.loads(result.stdout)["systems"]
        return float(max(one["load_rps"] for one in system["trials"]))

    largest = json.loads(run("capacity", app, *ASKED[:2], "-o", "json").stdout)["largest_rps"]
    assert highest() == pytest.approx(next(iter(largest.values())), rel=0.01)
    assert highest("--peak", "0.5") == pytest.approx(highest() / 2)


def test_a_trace_without_requests_is_refused(run: Run, app: Path, trace: Path) -> None:
    trace.write_text("t_start_s,mean_rps\n0,0\n300,0\n")
    result = run("evaluate", "trials", app, "--trace", trace, *ASKED)
    assert (result.exit_code, "the trace has no requests" in result.stderr) == (2, True)
