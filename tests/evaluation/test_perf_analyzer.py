import json
import signal
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.evaluation import perf_analyzer
from jigsaw_triton.evaluation.load import Load
from jigsaw_triton.evaluation.perf_analyzer import LoadRun
from tests.evaluation.test_load import CSV, OUTPUT

LOAD = Load("traffic", "http", "host:8000")
TENSORS = {"X": np.zeros(2, np.float32)}


def fake_perf_analyzer(folder: Path, text: str) -> Path:
    """Writes a shell script that stands in for perf_analyzer."""
    path = folder / "perf_analyzer"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_measurement_is_run_and_parsed(tmp_path: Path) -> None:
    report = tmp_path / "bench" / "traffic.csv"
    run = LoadRun(fake_perf_analyzer(tmp_path, f"printf '{CSV}' > {report}; echo '{OUTPUT}'"), LOAD, tmp_path / "bench")
    run.prepare(TENSORS)
    assert run.measure().requests == 2970
    assert json.loads((tmp_path / "bench" / "traffic.json").read_text())["data"]
    assert stat.S_IMODE((tmp_path / "bench").stat().st_mode) == 0o700


def test_an_old_report_is_ignored(tmp_path: Path) -> None:
    run = LoadRun(fake_perf_analyzer(tmp_path, "echo Thread [0] had error: refused"), LOAD, tmp_path)
    (tmp_path / "traffic.csv").write_text(CSV)
    run.prepare(TENSORS)
    with pytest.raises(ServerError, match="refused"):
        run.measure()


def test_a_run_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_analyzer, "_OVERHEAD_S", 0.2)
    run = LoadRun(
        fake_perf_analyzer(tmp_path, "sleep 100"), Load("traffic", "http", "host:8000", duration_s=0), tmp_path
    )
    run.prepare(TENSORS)
    with pytest.raises(ServerError, match="did not end"):
        run.measure()


def test_a_signal_while_the_program_starts_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[str]] = []

    def start(*args: Any, **options: Any) -> subprocess.Popen[str]:
        begun.append(subprocess.Popen(["sleep", "100"], **options))
        signal.raise_signal(signal.SIGINT)
        return begun[0]

    monkeypatch.setattr(perf_analyzer, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start}))
    with pytest.raises(KeyboardInterrupt):
        perf_analyzer._run(["perf_analyzer"], 60.0, where="x")
    assert begun[0].returncode == -signal.SIGKILL


def test_a_folder_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = LoadRun(Path("perf_analyzer"), LOAD, tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        run.prepare(TENSORS)
