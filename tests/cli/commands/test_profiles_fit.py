import json
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api.profiles import filled_profiles
from jigsaw_triton.cli.commands import profiles
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.profiles.table import ProfileTable
from tests.cli.conftest import Run


def test_fit_adds_the_missing_configuration_and_keeps_the_others(run: Run, measured: Path) -> None:
    before = read_profiles(measured).rows()
    result = run("profiles", "fit", measured, "-o", "json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["fitted"], found["quantile"], found["written"]) == (1, 0.9, True)
    (variant,) = found["variants"]
    assert (variant["rows"], variant["fitted"]) == (7, 1)
    assert 0 < variant["median_error"] < 0.3
    after = read_profiles(measured).rows()
    assert [row for row in after if row.source == "measured"] == list(before)
    (added,) = [row for row in after if row.source == "fitted"]
    assert (added.key.instances, added.key.batch, added.origin) == (2, 2, "fit of 7 rows, quantile 0.9")
    assert added.error is not None and 0 < added.error < 0.3
    assert found["extrapolated"] == 0
    assert run("profiles", "fit", measured).exit_code == 0
    assert read_profiles(measured).rows() == after


def test_fit_takes_a_grid_and_can_write_nothing(run: Run, measured: Path, tmp_path: Path) -> None:
    rows = measured.read_text()
    result = run(
        "profiles", "fit", measured, "--batches", "1,3,16", "--instances", "1,3", "--slices", "1g", "--dry-run"
    )
    assert "5 fitted rows would be added at the 90% quantile" in result.stdout
    assert "4 fitted rows are outside of the measured slices, instances or batches" in result.stderr
    assert measured.read_text() == rows
    assert run("profiles", "fit", measured, "--batches", "3", "-O", tmp_path / "q.csv").exit_code == 0
    assert measured.read_text() == rows
    assert len(read_profiles(tmp_path / "q.csv")) == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--slices", "9g"), "slices: there is no slice '9g'"),
        (("--slices", "1g,"), "slices: there is no slice ''"),
        (("--batches", "1,x"), "--batches: '1,x' is not a list of whole numbers"),
        (("--instances", "0"), "instances: a number is out of range"),
        (("--quantile", "2"), "is not a share between 0% and 100%"),
    ],
)
def test_fit_refuses_what_it_cannot_fill(run: Run, measured: Path, options: tuple[str, ...], words: str) -> None:
    rows = measured.read_text()
    result = run("profiles", "fit", measured, *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "fitting" not in result.stderr
    assert measured.read_text() == rows


def test_fit_does_not_mix_streams_and_processes(run: Run, measured: Path) -> None:
    header, *lines = measured.read_text().splitlines()
    several = [number for number, line in enumerate(lines) if line.split(",")[4] == "2"]
    kinds = {number: ("streams" if at % 2 else "mps") for at, number in enumerate(several)}
    measured.write_text(
        "\n".join([f"{header},processes", *(f"{line},{kinds.get(n, '')}" for n, line in enumerate(lines))]) + "\n"
    )
    result = run("profiles", "fit", measured, "--dry-run")
    assert result.exit_code == 2
    assert "2 of mps and 1 of streams were measured, which one model cannot fit" in result.stderr
    assert "--processes mps" in result.stderr
    found = json.loads(run("profiles", "fit", measured, "--processes", "streams", "-o", "json").stdout)
    assert found["variants"][0]["rows"] == 7 - 2
    assert {row.processes for row in read_profiles(measured).rows() if row.source == "fitted"} == {"streams"}


def test_fit_says_if_the_memory_is_unknown(run: Run, measured: Path) -> None:
    measured.write_text(measured.read_text().replace(",200,measured", ",0,measured"))
    assert "the memory of some fitted rows is 0 MiB" in run("profiles", "fit", measured, "--dry-run").stderr


def test_fit_replaces_another_file_only_if_it_is_asked_to(run: Run, app: Path, measured: Path) -> None:
    other = app / "profiles.csv"
    before = other.read_text()
    result = run("profiles", "fit", measured, "-O", app)
    assert result.exit_code == 2
    assert (
        "profiles.csv: the file exists\nhint: --replace replaces all of its rows, measured ones included"
        in result.stderr
    )
    assert other.read_text() == before
    assert run("profiles", "fit", measured, "-O", app, "--replace").exit_code == 0
    assert len(read_profiles(other)) == 8


def test_fit_keeps_a_row_that_is_added_meanwhile(run: Run, measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = measured.read_text() + "cpu,average,exact,1g,2,2,8,9,10,500,200,measured\n"

    def filled_meanwhile(*args: Any, **options: Any) -> ProfileTable:
        measured.write_text(added)
        return filled_profiles(*args, **options)

    monkeypatch.setattr(profiles, "filled_profiles", filled_meanwhile)
    result = run("profiles", "fit", measured)
    assert result.exit_code == 2
    assert "p.csv: the file has changed during the fit\nhint: run it again" in result.stderr
    assert measured.read_text() == added


def test_fit_needs_measured_rows(run: Run, app: Path) -> None:
    result = run("profiles", "fit", app)
    assert result.exit_code == 2
    assert "no variant has 4 measured rows on a GPU model" in result.stderr
    assert "use --assumed" in result.stderr


@pytest.mark.usefixtures("no_scipy")
def test_fit_without_scipy_names_the_extra_and_check_works(run: Run, measured: Path) -> None:
    result = run("profiles", "fit", measured)
    assert result.exit_code == 1
    assert "pip install 'jigsaw-triton[fit]'" in result.stderr
    assert run("profiles", "check", measured).exit_code == 0
