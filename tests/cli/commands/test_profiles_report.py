import json
from pathlib import Path

import pytest

from jigsaw_triton.api import profiles as api
from tests.cli.conftest import Run


def test_report_writes_one_file_beside_the_profiles_and_prints_its_figures(run: Run, app: Path) -> None:
    result = run("profiles", "report", app)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"report of 4 profiles: {app / 'profiles.html'}\n"
    page = (app / "profiles.html").read_text()
    assert page.startswith("<!doctype html>\n") and "average on cpu" in page
    found = json.loads(run("profiles", "report", app, "-o", "json").stdout)
    assert (found["report"], found["rows"]) == (str(app / "profiles.html"), 4)
    assert found["modified"] is not None
    assert [one["accuracy"] for one in found["tasks"][0]["variants"]] == sorted(
        (one["accuracy"] for one in found["tasks"][0]["variants"]), reverse=True
    )
    assert (app / "profiles.html").read_text() == page


def test_report_takes_a_file_alone_and_writes_where_it_is_told(run: Run, measured: Path, tmp_path: Path) -> None:
    result = run("profiles", "report", measured, "-O", tmp_path / "new" / "r.html")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "new" / "r.html").read_text()
    assert "Rows that were measured: 7 of 7." in page and "predicted 7 rows from others" in page
    assert run("profiles", "report", measured, "-O", tmp_path).exit_code == 0
    assert (tmp_path / "profiles.html").exists()


@pytest.mark.usefixtures("no_scipy")
def test_report_without_scipy_names_the_extra(run: Run, measured: Path, tmp_path: Path) -> None:
    result = run("profiles", "report", measured)
    assert result.exit_code == 0
    words = "The latency model was not fitted: scipy is needed to fit profiles, but not installed"
    assert words in result.stderr
    page = (tmp_path / "p.html").read_text()
    assert words in page and "pip install 'jigsaw-triton[fit]'" in page


@pytest.mark.parametrize("name", ["no.csv", "bad.csv"])
def test_report_refuses_a_file_with_mistakes_and_writes_nothing(
    run: Run, measured: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "bad.csv").write_text(measured.read_text().replace(",200,measured", ",200,guessed"))
    result = run("profiles", "report", tmp_path / name)
    assert result.exit_code == 2
    assert name in result.stderr
    assert not list(tmp_path.glob("*.html"))


def test_report_says_if_it_cannot_be_written_or_would_be_too_long(
    run: Run, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("profiles", "report", app, "-O", app / "graph.yaml" / "r.html")
    assert result.exit_code == 2
    assert "r.html: the file cannot be written (File exists)\nhint: choose another with -O" in result.stderr
    monkeypatch.setattr(api, "LIMIT_REPORTED_ROWS", 3)
    result = run("profiles", "report", app)
    assert result.exit_code == 2
    assert "profiles.csv: the table has 4 rows\nhint: a report has at most 3" in result.stderr


def test_report_has_what_check_finds(run: Run, app: Path) -> None:
    file = app / "profiles.csv"
    file.write_text(file.read_text().replace("1.5,2.0,3.0", "0.0015,0.0020,0.0030"))
    assert run("profiles", "report", app).exit_code == 0
    assert "the latencies seem to be in seconds; write milliseconds" in (app / "profiles.html").read_text()
