import json
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.api.files import load_graph
from jigsaw_triton.cli.commands import profiles
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.evaluation.profiling.digest import model_digest
from jigsaw_triton.profiles.drift import Drift
from jigsaw_triton.profiles.read import read_profiles, write_profiles
from tests.cli.conftest import Run


def test_check_finds_no_mistakes_in_a_good_application(run: Run, app: Path) -> None:
    result = run("profiles", "check", app)
    assert result.exit_code == 0
    assert result.stdout.strip().endswith("no mistakes")


def test_check_names_line_mistake_and_correction_and_exits_with_2(run: Run, app: Path) -> None:
    file = app / "profiles.csv"
    lines = file.read_text().splitlines()
    lines[2] = lines[2].replace("exact", "exakt")
    lines[3] = lines[3].replace("1.5,2.0,3.0", "0.0015,0.0020,0.0030")
    file.write_text("\n".join(lines) + "\n")
    result = run("profiles", "check", app)
    assert result.exit_code == 2
    first, second, *_ = result.stdout.splitlines()
    assert (
        "profiles.csv:3: error: average has no variant 'exakt', so plans ignore the row; did you mean 'exact'?" in first
    )
    assert "profiles.csv:4: error: the throughput is 500 items/s, but 1 x batch 1 every 0.0015 ms" in second
    assert second.endswith("the latencies seem to be in seconds; write milliseconds")
    found = json.loads(run("profiles", "check", app, "-o", "json").stdout)
    assert (found["errors"], found["warnings"], found["rows"]) == (2, 0, 4)
    assert found["findings"][0]["line"] == 3
    assert found["findings"][0]["configuration"]["variant"] == "exakt"


def test_warnings_fail_only_if_check_is_strict(run: Run, app: Path) -> None:
    file = app / "profiles.csv"
    file.write_text(file.read_text().replace(",500,", ",50,"))
    result = run("profiles", "check", file)
    assert result.exit_code == 0
    assert "profiles.csv:4: warning: the throughput is only 50 items/s" in result.stdout
    assert "0 errors, 1 warnings in 4 rows" in result.stdout
    assert run("profiles", "check", file, "--strict").exit_code == 2


def test_live_needs_a_graph_and_a_deployment(run: Run, app: Path, tmp_path: Path) -> None:
    result = run("profiles", "check", app / "profiles.csv", "--live")
    assert result.exit_code == 2
    assert "--live needs a GRAPH, not a CSV file" in result.stderr
    result = run("profiles", "check", app, "--live", "--state", tmp_path / "state")
    assert result.exit_code == 4
    assert "nothing is deployed here" in result.stderr


def test_live_shows_each_configuration_and_warns_of_slower_ones(
    run: Run, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = read_profiles(app).rows()[0].key
    slow = Drift(key, 2, 500.0, 3.0, 2.0)
    few = Drift(replace(key, batch=2), 1, 5.0, 3.0, 2.0)
    monkeypatch.setattr(profiles, "live_drifts", lambda *_: [slow, few])
    result = run("profiles", "check", app, "--live")
    assert result.exit_code == 0
    assert "profiles.csv:2: warning: batches take 1.50 times as long as profiled: 3 instead of 2 ms" in result.stdout
    assert "too few batches" in result.stdout
    assert run("profiles", "check", app, "--live", "--strict").exit_code == 2
    found = json.loads(run("profiles", "check", app, "--live", "-o", "json").stdout)
    assert found["warnings"] == 1
    assert [(one["batch"], one["ratio"], one["verdict"]) for one in found["live"]] == [
        (key.batch, 1.5, "slower"),
        (2, 1.5, "too few batches"),
    ]


def test_a_model_that_has_changed_since_it_was_measured_is_a_warning(run: Run, app: Path) -> None:
    graph, table = load_graph(app), read_profiles(app)
    variant = graph.tasks["average"].variant("exact")
    digest = model_digest(variant, Identities())
    rows = [replace(row, model=digest) if row.key.variant == "exact" else row for row in table.rows()]
    (app / "profiles.csv").write_text(write_profiles(rows))
    assert "no mistakes" in run("profiles", "check", app).stdout
    for path in variant.artifacts.values():
        path.write_text(path.read_text() + "\n# changed\n")
    result = run("profiles", "check", app)
    assert "warning: the model of average.exact has changed since this row and 1 more were measured" in result.stdout
    assert result.exit_code == 0


def test_plan_says_how_many_profiles_are_assumed_fitted_and_measured(run: Run, app: Path) -> None:
    plan = ("plan", app, "--gpus", "1xcpu", "--demand", "100")
    assert "profiles in use: 1 assumed" in run(*plan).stdout
    file = app / "profiles.csv"
    file.write_text(file.read_text().replace("assumed", "measured"))
    assert "profiles in use" not in run(*plan).stdout
    lines = file.read_text().replace("measured", "fitted").splitlines()
    file.write_text("\n".join([f"{lines[0]},origin,error", *(f"{line},fit,0.04" for line in lines[1:])]) + "\n")
    assert "profiles in use: 1 fitted; median of the stated errors 4.0%, largest 4.0%" in run(*plan).stdout
    found = json.loads(run(*plan, "--explain", "-o", "json").stdout)["explanation"]["profiles"]
    assert found == {"measured": 0, "fitted": 1, "assumed": 0, "error": {"median": 0.04, "largest": 0.04}}
