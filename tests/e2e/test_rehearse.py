"""Rehearsals: a trace on real servers with emulated models."""

import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

import jigsaw_triton as jt
from jigsaw_triton.cli.commands.init import SKELETON
from jigsaw_triton.evaluation.traces import Trace
from tests.e2e.system import System
from tests.waiting import WAIT_LIMIT_S

pytestmark = pytest.mark.e2e

GPUS = ("--gpus", "2xcpu")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("second,rps\n" + "".join(f"{second},20\n" for second in range(8)))
    return path


def test_a_rehearsal_plays_the_trace_and_keeps_only_its_logs(system: System, trace: Path) -> None:
    found = system.run(
        "evaluate", "rehearse", SKELETON, "--trace", trace, "--speed", 2, *GPUS, "--state", system.state, "-o", "json"
    )
    assert found.code == 0, found.err
    document = found.json
    assert document["seconds"] == 4
    assert 40 < document["requests"]["hello"]["sent"] < 130
    assert document["requests"]["hello"]["failed"] == 0
    assert document["rehearsed"]["mean_slices"] >= 1
    assert document["workers"] >= 1
    assert {*document["rehearsed"]} == {*document["simulated"]}
    assert system.orphans() == []
    assert (system.state / "logs" / "gateway.log").exists()
    again = system.run("evaluate", "rehearse", SKELETON, "--trace", trace, *GPUS, "--state", system.state)
    assert again.code == 2
    assert "this one is not empty" in again.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_rehearsal_that_is_interrupted_leaves_nothing(
    system: System, trace: Path, number: signal.Signals, code: int
) -> None:
    asked = ("--trace", trace, *GPUS, "--speed", 0.1, "--state", system.state)
    rehearsal = system.start("evaluate", "rehearse", SKELETON, *asked)
    assert rehearsal.stderr is not None
    seen: list[str] = []
    while "rehearsing" not in "".join(seen):
        seen.append(line := rehearsal.stderr.readline())
        assert line, "".join(seen)
    rehearsal.send_signal(number)
    _, rest = rehearsal.communicate(timeout=WAIT_LIMIT_S)
    assert rehearsal.returncode == code, rest
    assert system.orphans() == []


def test_a_load_beyond_the_cluster_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    profiles = (
        jt.ProfileBuilder("cpu")
        .row("average", "exact", "7g", batch=1, latency_ms=(30, 31, 32), throughput_rps=33, memory_mib=100)
        .build()
    )
    graph = jt.load_graph(SKELETON)
    result = jt.rehearse(graph, Trace(1.0, np.full(4, 100.0)), demand=8, gpus="1xcpu", profiles=profiles)
    totals = result.requests["hello"].totals()
    assert totals["failed"] == 0
    assert totals["refused"] > 0.5 * totals["sent"]
    simulated = result.simulated.operation.violation_share
    assert simulated > 0.5
    missed = totals["late"] + totals["refused"] + totals["failed"]
    assert result.difference == pytest.approx(missed / totals["sent"] - simulated)
    assert list(tmp_path.iterdir()) == []
