from pathlib import Path

import pytest

from benchmarks import mig
from benchmarks.__main__ import NAMES
from tests.fakes.nvml.transitions import Owner, transitions


def test_mig_is_among_the_benchmarks() -> None:
    assert "mig" in NAMES


@pytest.mark.slow
def test_reads_and_concurrent_changes_are_measured(tmp_path: Path) -> None:
    read, competed = mig.read_ms(tmp_path), mig.concurrent(tmp_path)
    assert (read.id, read.unit, read.goal) == ("mig.read_ms", "ms", "<= 50")
    assert "56 instances on 8 boards" in read.note
    assert (competed.id, competed.value, competed.met) == ("mig.concurrent", 0, True)


@pytest.mark.slow
def test_faults_after_a_kill_are_counted_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mig, "READ_TRANSITIONS", 0)
    changes = transitions(1, seed=5)
    good = mig.kill_points(tmp_path, lambda _: None, changes)
    assert (good.id, good.value, good.met) == ("mig.kill_points", 1.0, True)
    monkeypatch.setattr(Owner, "violation", lambda _: "somebody else's instance is gone" if _.machine.changes() else "")
    monkeypatch.setattr(Owner, "changes", lambda _: ["nvmlGpuInstanceDestroy"])
    bad = mig.kill_points(tmp_path, lambda _: None, changes)
    assert (bad.value, bad.met) == (0.0, False)
    assert "first of 2 that went wrong: somebody else's instance is gone" in bad.note


def test_calls_are_relative_to_the_fewest(tmp_path: Path) -> None:
    calls = mig.transition_calls(tmp_path, transitions(2, seed=5))
    assert (calls.id, calls.value, calls.met) == ("mig.transition_calls", 1.0, True)
