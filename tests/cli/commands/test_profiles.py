import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api import profiles as api
from jigsaw_triton.api.files import load_graph
from jigsaw_triton.api.profiles import filled_profiles
from jigsaw_triton.cli.commands import profiles
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.evaluation.profiling.digest import model_digest
from jigsaw_triton.profiles import estimation
from jigsaw_triton.profiles.drift import Drift
from jigsaw_triton.profiles.read import HEADER, read_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileTable
from tests.cli.conftest import Run

PERF = (
    "Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p95 latency,p99 latency\n"
    "1,95.5,225,10000,10100,10200,10300\n"
    "2,120.0,225,16000,16100,16200,16300\n"
)
WHERE = ("--gpu", "cpu", "--task", "average", "--variant", "exact", "--slice", "1g")


def measured_rows() -> str:
    """Returns rows that are measured in part: of a batch of 2 on two instances there is none."""
    lines = []
    for instances in (1, 2):
        for batch in (1, 2, 4, 8):
            if (instances, batch) != (2, 2):
                p50 = instances * (2.0 + batch)
                rps = 1000 * instances * batch / p50
                lines.append(
                    f"cpu,average,exact,1g,{instances},{batch},{p50},{1.1 * p50},{1.2 * p50},{rps},200,measured"
                )
    return "\n".join([",".join(HEADER), *lines]) + "\n"


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
    assert "warning: the model of average.exact has changed since this row was measured" in result.stdout
    assert result.exit_code == 0


def test_fit_adds_the_missing_configuration_and_keeps_the_others(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(measured_rows())
    before = read_profiles(file).rows()
    result = run("profiles", "fit", file, "-o", "json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["fitted"], found["quantile"], found["written"]) == (1, 0.9, True)
    (variant,) = found["variants"]
    assert (variant["rows"], variant["fitted"]) == (7, 1)
    assert 0 < variant["median_error"] < 0.3
    after = read_profiles(file).rows()
    assert [row for row in after if row.source == "measured"] == list(before)
    (added,) = [row for row in after if row.source == "fitted"]
    assert (added.key.instances, added.key.batch, added.origin) == (2, 2, "fit of 7 rows, quantile 0.9")
    assert added.error is not None and 0 < added.error < 0.3
    assert found["extrapolated"] == 0
    assert run("profiles", "fit", file).exit_code == 0
    assert read_profiles(file).rows() == after


def test_fit_takes_a_grid_and_can_write_nothing(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(measured_rows())
    result = run("profiles", "fit", file, "--batches", "1,3,16", "--instances", "1,3", "--slices", "1g", "--dry-run")
    assert "5 fitted rows would be added at the 90% quantile" in result.stdout
    assert "4 fitted rows are outside of the measured slices, instances or batches" in result.stderr
    assert file.read_text() == measured_rows()
    assert run("profiles", "fit", file, "--batches", "3", "-O", tmp_path / "q.csv").exit_code == 0
    assert file.read_text() == measured_rows()
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
def test_fit_refuses_what_it_cannot_fill(run: Run, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    file = tmp_path / "p.csv"
    file.write_text(measured_rows())
    result = run("profiles", "fit", file, *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "fitting" not in result.stderr
    assert file.read_text() == measured_rows()


def test_fit_does_not_mix_streams_and_processes(run: Run, tmp_path: Path) -> None:
    header, *lines = measured_rows().splitlines()
    several = [number for number, line in enumerate(lines) if line.split(",")[4] == "2"]
    kinds = {number: ("streams" if at % 2 else "mps") for at, number in enumerate(several)}
    file = tmp_path / "p.csv"
    file.write_text(
        "\n".join([f"{header},processes", *(f"{line},{kinds.get(n, '')}" for n, line in enumerate(lines))]) + "\n"
    )
    result = run("profiles", "fit", file, "--dry-run")
    assert result.exit_code == 2
    assert "2 of mps and 1 of streams were measured, which one model cannot fit" in result.stderr
    assert "--processes mps" in result.stderr
    found = json.loads(run("profiles", "fit", file, "--processes", "streams", "-o", "json").stdout)
    assert found["variants"][0]["rows"] == 7 - 2
    assert {row.processes for row in read_profiles(file).rows() if row.source == "fitted"} == {"streams"}


def test_fit_says_if_the_memory_is_unknown(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(measured_rows().replace(",200,measured", ",0,measured"))
    assert "the memory of some fitted rows is 0 MiB" in run("profiles", "fit", file, "--dry-run").stderr


def test_fit_replaces_another_file_only_if_it_is_asked_to(run: Run, app: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "p.csv", app / "profiles.csv"
    file.write_text(measured_rows())
    before = other.read_text()
    result = run("profiles", "fit", file, "-O", app)
    assert result.exit_code == 2
    assert (
        "profiles.csv: the file exists\nhint: --replace replaces all of its rows, measured ones included"
        in result.stderr
    )
    assert other.read_text() == before
    assert run("profiles", "fit", file, "-O", app, "--replace").exit_code == 0
    assert len(read_profiles(other)) == 8


def test_fit_keeps_a_row_that_is_added_meanwhile(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "p.csv"
    file.write_text(measured_rows())
    added = measured_rows() + "cpu,average,exact,1g,2,2,8,9,10,500,200,measured\n"

    def filled_meanwhile(*args: Any, **options: Any) -> ProfileTable:
        file.write_text(added)
        return filled_profiles(*args, **options)

    monkeypatch.setattr(profiles, "filled_profiles", filled_meanwhile)
    result = run("profiles", "fit", file)
    assert result.exit_code == 2
    assert "p.csv: the file has changed during the fit\nhint: run it again" in result.stderr
    assert file.read_text() == added


def test_fit_needs_measured_rows(run: Run, app: Path) -> None:
    result = run("profiles", "fit", app)
    assert result.exit_code == 2
    assert "no variant has 4 measured rows on a GPU model" in result.stderr
    assert "use --assumed" in result.stderr


def test_fit_without_scipy_names_the_extra_and_check_works(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(estimation, "import_module", missing)
    file = tmp_path / "p.csv"
    file.write_text(measured_rows())
    result = run("profiles", "fit", file)
    assert result.exit_code == 1
    assert "pip install 'jigsaw-triton[fit]'" in result.stderr
    assert run("profiles", "check", file).exit_code == 0


def test_import_merges_rows_with_their_origin(run: Run, app: Path, tmp_path: Path) -> None:
    (tmp_path / "perf.csv").write_bytes(b"\xef\xbb\xbf" + PERF.encode())
    result = run("profiles", "import", tmp_path / "perf.csv", *WHERE, "--memory-mib", "300", "-O", app, "-o", "json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (len(found["added"]), len(found["replaced"]), found["kept"], found["rows"]) == (0, 1, [], 4)
    (imported,) = [row for row in read_profiles(app).rows() if row.source == "measured"]
    assert (imported.latency_p50_ms, imported.memory_mib) == (10.0, 300.0)
    assert imported.origin == f"perf_analyzer: {tmp_path / 'perf.csv'}"
    assert result.stderr == ""


def test_import_writes_into_a_new_folder_if_the_path_ends_with_a_slash(run: Run, tmp_path: Path) -> None:
    (tmp_path / "perf.csv").write_text(PERF)
    result = run("profiles", "import", tmp_path / "perf.csv", *WHERE, "-O", f"{tmp_path}/new/")
    assert result.exit_code == 0, result.stderr
    assert len(read_profiles(tmp_path / "new" / "profiles.csv")) == 1


def test_import_keeps_measured_rows_unless_they_are_to_be_replaced(run: Run, app: Path, tmp_path: Path) -> None:
    perf = tmp_path / "perf.csv"
    perf.write_text(PERF)
    run("profiles", "import", perf, *WHERE, "-O", app)
    perf.write_text(PERF.replace("95.5", "96.5"))
    result = run("profiles", "import", perf, *WHERE, "-O", app)
    assert result.exit_code == 0
    assert "1 configurations keep their measured rows; --replace replaces them" in result.stderr
    assert "0 rows added, 0 replaced, 1 kept" in result.stdout
    assert "95.5" in (app / "profiles.csv").read_text()
    assert run("profiles", "import", perf, *WHERE, "-O", app, "--replace").exit_code == 0
    assert "96.5" in (app / "profiles.csv").read_text()


def test_import_warns_if_the_memory_is_unknown(run: Run, app: Path, tmp_path: Path) -> None:
    perf = tmp_path / "perf.csv"
    perf.write_text(PERF)
    result = run("profiles", "import", perf, *WHERE, "-O", app)
    assert "memory" not in result.stderr  # The assumed row of this configuration has it.
    result = run("profiles", "import", perf, *WHERE, "--instances", "2", "-O", app)
    assert "the files do not say how much memory the model takes" in result.stderr


def test_import_reports_all_mistakes_and_changes_nothing(run: Run, app: Path, tmp_path: Path) -> None:
    before = (app / "profiles.csv").read_text()
    (tmp_path / "a.csv").write_text(PERF.replace("95.5", "nan"))
    (tmp_path / "b.csv").write_bytes("größe,x\n".encode("latin-1"))
    result = run("profiles", "import", tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv", *WHERE, "-O", app)
    assert result.exit_code == 2
    assert "a.csv:2: Inferences/Second is 'nan'" in result.stderr
    assert "b.csv:1: the file is not UTF-8 text; save it as UTF-8" in result.stderr
    assert "c.csv: there is no such file" in result.stderr
    assert (app / "profiles.csv").read_text() == before


def test_import_refuses_one_configuration_from_two_files(run: Run, app: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(PERF)
    result = run("profiles", "import", tmp_path / "a.csv", tmp_path / "b.csv", *WHERE, "-O", app)
    assert result.exit_code == 2
    assert "b.csv: average.exact on 1g, 1 x batch 1 is in " in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--gpu", "A30", "gpu: the catalog has no GPU model 'A30'"),
        ("--slice", "5g", "slice: cpu has no slice '5g'"),
        ("--task", "a b", "task: 'a b' is not a name"),
    ],
)
def test_import_refuses_unknown_names(run: Run, app: Path, tmp_path: Path, option: str, value: str, words: str) -> None:
    (tmp_path / "perf.csv").write_text(PERF)
    given = [value if before == option else word for before, word in zip(("", *WHERE), WHERE, strict=False)]
    result = run("profiles", "import", tmp_path / "perf.csv", *given, "-O", app)
    assert result.exit_code == 2
    assert words in result.stderr


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


def test_report_takes_a_file_alone_and_writes_where_it_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(measured_rows())
    result = run("profiles", "report", file, "-O", tmp_path / "new" / "r.html")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "new" / "r.html").read_text()
    assert "Rows that were measured: 7 of 7." in page and "predicted 7 rows from others" in page
    assert run("profiles", "report", file, "-O", tmp_path).exit_code == 0
    assert (tmp_path / "profiles.html").exists()


def test_report_without_scipy_names_the_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(estimation, "import_module", missing)
    file = tmp_path / "p.csv"
    file.write_text(measured_rows())
    result = run("profiles", "report", file)
    assert result.exit_code == 0
    words = "The latency model was not fitted: scipy is needed to fit profiles, but not installed"
    assert words in result.stderr
    page = (tmp_path / "p.html").read_text()
    assert words in page and "pip install 'jigsaw-triton[fit]'" in page


@pytest.mark.parametrize("name", ["no.csv", "bad.csv"])
def test_report_refuses_a_file_with_mistakes_and_writes_nothing(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.csv").write_text(measured_rows().replace(",200,measured", ",200,guessed"))
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
