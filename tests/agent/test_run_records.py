from pathlib import Path

import pytest

from jigsaw_triton.agent import run_records
from jigsaw_triton.agent.run_records import RunRecords
from jigsaw_triton.runtime.trace import TraceFile


def test_records_are_read_from_the_first_question_on(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "w" / "m_0.jsonl")
    file.append(["old"])
    records = RunRecords(tmp_path)
    assert records.read() == []
    file.append(["one"])
    assert (records.read(), records.read()) == (["one"], [])


def test_records_written_during_a_pause_of_the_reader_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, records = TraceFile(tmp_path / "w" / "m_0.jsonl"), RunRecords(tmp_path)
    records.read()
    monkeypatch.setattr(run_records, "PAUSE_S", -1.0)
    file.append(["late"])
    assert records.read() == []
