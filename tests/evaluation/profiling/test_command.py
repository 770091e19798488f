"""The command `profile` in cases that start no server."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.cli.main import program
from jigsaw_triton.evaluation.profiling.again import Again
from jigsaw_triton.evaluation.profiling.failures import Failures
from jigsaw_triton.evaluation.profiling.sheet import Sheet
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from tests.e2e.app import write_application

KEY = ProfileKey("cpu", "square", "slow", "1g", 1, 1)
ONE = ("--task", "square", "--variant", "slow", "--instances", "1", "--batches", "1")
FOUR = ("--task", "square", "--variant", "slow", "--instances", "1", "--batches", "1,2,4,8,16")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        program.main(["profile", *arguments])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


@pytest.fixture
def application(tmp_path: Path) -> str:
    folder = write_application(tmp_path / "words")
    Sheet(folder / "profiles.csv").add(ProfileRow(KEY, 5, 6, 7, 190.5, 48.5, "measured"))
    return str(folder)


@pytest.mark.slow
def test_existing_measurements_are_shown_without_starting_a_server(
    application: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_gpu.find_installation", None)
    before = Path(application, "profiles.csv").read_bytes()
    status, out, _ = run(capsys, application, *ONE, "-o", "json")
    document = json.loads(out)
    assert status == 0
    assert (document["measured"], document["kept"]) == (0, 1)
    assert document["report"] == str(Path(application, "profiles.html"))
    assert "slow" in Path(document["report"]).read_text()
    (row,) = document["rows"]
    assert {name: row[name] for name in KEY.__slots__} == {name: getattr(KEY, name) for name in KEY.__slots__}
    assert (row["latency_p99_ms"], row["throughput_rps"], row["source"]) == (7, 190.5, "measured")
    status, out, _ = run(capsys, application, *ONE)
    assert status == 0
    assert "1 kept" in out
    assert Path(application, "profiles.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "squares"), "no task 'squares'"),
        (("--variant", "fastest"), "no variant 'fastest'"),
        (("--slices", "9g"), "no slice '9g'"),
        (("--batches", "1,x"), "not a list of whole numbers"),
        (("--instances", "0"), "0 is out of range"),
        (("--batches", "1,1000000"), "1000000 is out of range"),
        (("--gpus", "1xA100-80GB", "--driver", "emulated"), "nothing can be measured on A100-80GB"),
        (("--seconds", "0"), "--seconds"),
        (("--points", "0"), "--points"),
        (("--points", "some"), "neither a number of at least 1 nor `all`"),
        (("--budget", "soon"), "not a duration"),
        (("--neighbours", "0"), "--neighbours"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_runs(
    application: str, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, application, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_the_rest_is_fitted_once_enough_is_measured(
    application: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_gpu.find_installation", None)
    sheet = Sheet(Path(application, "profiles.csv"))
    for batch in (2, 4, 8):
        sheet.add(ProfileRow(replace(KEY, batch=batch), 4 + batch, 5 + batch, 6 + batch, 100, 48.5, "measured"))
    status, out, _ = run(capsys, application, *FOUR, "--points", "4", "-o", "json")
    document = json.loads(out)
    assert status == 0
    assert (document["measured"], document["kept"], document["fitted"]) == (0, 4, 1)
    assert [row["batch"] for row in document["rows"] if row["source"] == "fitted"] == [16]
    assert [fit["variant"] for fit in document["fits"]] == ["slow"]
    row = read_profiles(sheet.path).get(replace(KEY, batch=16))
    assert row is not None
    assert (row.source, row.latency_p50_ms > 12) == ("fitted", True)


def test_rows_of_other_instances_are_replaced_once_the_sweep_is_complete(
    application: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scipy")
    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_gpu.find_installation", None)
    sheet = Sheet(Path(application, "profiles.csv"))
    known = [replace(KEY, instances=2, batch=batch) for batch in (1, 2, 4, 8)]
    sheet.add(*(ProfileRow(key, 4 + key.batch, 20, 20, 100, 48.5, "measured", processes="streams") for key in known))
    other = ProfileRow(replace(KEY, instances=2, batch=16), 20, 21, 22, 100, 48.5, "measured", processes="mps")
    sheet.add(other)
    arguments = (*FOUR[:5], "2", "--batches", "1,2,4,8,16", "--points", "4")
    status, _, err = run(capsys, application, *arguments)
    assert status == 0
    assert "1 rows of" in err
    assert "are outdated" in err
    row = read_profiles(sheet.path).get(other.key)
    assert row is not None
    assert (row.source, row.processes) == ("fitted", "streams")


def test_an_interrupted_sweep_keeps_outdated_rows(
    application: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_gpu.find_installation", interrupt)
    sheet = Sheet(Path(application, "profiles.csv"))
    old = ProfileRow(KEY, 5, 6, 7, 190.5, 48.5, "measured", model="0" * 12)
    sheet.add(old)
    status, _, err = run(capsys, application, *ONE)
    assert status == 130
    assert "are outdated" in err
    assert read_profiles(sheet.path).get(KEY) == old


@pytest.mark.slow
def test_measuring_again_goes_on_where_it_was_interrupted(
    application: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(application, "profiles.csv")
    Again(file).add(KEY)
    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_gpu.find_installation", None)
    status, out, err = run(capsys, application, *ONE, "--again", "-o", "json")
    assert status == 0
    assert "1 configurations were measured again before a run ended early and are left out" in err
    assert json.loads(out)["kept"] == 1
    assert not Again(file).path.exists()


@pytest.mark.slow
def test_a_configuration_that_failed_before_is_not_tried_and_the_exit_code_says_so(
    application: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_gpu.find_installation", None)
    Failures(Path(application, "profiles.csv")).add(replace(KEY, batch=2), "out of memory")
    arguments = (*ONE[:-1], "1,2,4")
    status, out, _ = run(capsys, application, *arguments, "-o", "json")
    document = json.loads(out)
    assert status == 1
    assert [(one["batch"], one["reason"], one["in_this_run"]) for one in document["failed"]] == [
        (2, "out of memory", False)
    ]
    status, out, _ = run(capsys, application, *arguments)
    assert status == 1
    assert "failed in an earlier run and was not tried again: out of memory" in out


@pytest.mark.slow
def test_without_scipy_all_is_measured(
    application: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_gpu.find_installation", None)
    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_sweep.can_fit", lambda: False)
    status, _, err = run(capsys, application, *ONE)
    assert status == 0
    assert "scipy is not installed, so all configurations are measured" in err
    status, _, err = run(capsys, application, *ONE, "--points", "4")
    assert status == 1
    assert "pip install 'jigsaw-triton[fit]'" in err


def test_a_folder_that_is_not_writable_is_refused_before_anything_runs(
    application: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.cli.commands.profile_gpu.find_installation", None)
    (tmp_path / "file").write_text("")
    status, _, err = run(capsys, application, *ONE, "-O", str(tmp_path / "file" / "profiles.csv"))
    assert status == 2
    assert "cannot be written" in err


def test_missing_model_files_are_named(application: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(application, "square.py").unlink()
    status, _, err = run(capsys, application)
    assert status == 2
    assert "square.py" in err
    assert "jigsaw-triton fetch" in err
