import json
from pathlib import Path

import pytest

from jigsaw_triton.profiles.read import read_profiles
from tests.cli.conftest import Run

PERF = (
    "Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p95 latency,p99 latency\n"
    "1,95.5,225,10000,10100,10200,10300\n"
    "2,120.0,225,16000,16100,16200,16300\n"
)
WHERE = ("--gpu", "cpu", "--task", "average", "--variant", "exact", "--slice", "1g")


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
