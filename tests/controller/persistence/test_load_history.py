import stat
from pathlib import Path

import pytest

from jigsaw_triton.controller.core.load_sample import GraphSample, LoadSample
from jigsaw_triton.controller.persistence import load_history
from jigsaw_triton.controller.persistence.load_history import LoadHistory, read_history


def sample(t: float) -> LoadSample:
    return LoadSample(t, 3, {"app": GraphSample(1.23456, 1.0, 0.0, 0.0, 12.3456, None, 0.95)})


def filled(path: Path, *times: int) -> LoadHistory:
    history = LoadHistory(path)
    for t in times:
        history.add(sample(t))
        history.flush()
    return history


def times(path: Path, since: float = 0.0) -> list[float]:
    return [entry["t"] for entry in read_history(path, since)]


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "load.jsonl"
    filled(path, 1, 2, 3)
    assert times(path) == [1, 2, 3]
    assert times(path, 2) == [3]
    first = read_history(path, 0.0)[0]
    assert first["slices"] == 3
    assert first["graphs"]["app"]["arrivals_rps"] == 1.235
    assert (first["graphs"]["app"]["p50_ms"], first["graphs"]["app"]["p99_ms"]) == (12.35, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_energy_is_a_part_of_samples_only_where_it_is_known(tmp_path: Path) -> None:
    history = LoadHistory(tmp_path / "load.jsonl")
    for joules in (None, 3.14159):
        history.add(LoadSample(1.0, 3, {}, joules))
    first, second = history.after(0.0)
    assert "joules_per_request" not in first
    assert second["joules_per_request"] == 3.142


def test_only_two_files_of_a_limited_length_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_history, "KEPT_S", 3)
    path = tmp_path / "load.jsonl"
    filled(path, *range(1, 9))
    assert times(path) == [4, 5, 6, 7, 8]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["load.jsonl", "load.jsonl.1"]


def test_the_next_controller_goes_on_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_history, "KEPT_S", 3)
    path = tmp_path / "load.jsonl"
    filled(path, 1, 2)
    filled(path, 3, 4)
    assert times(path) == [1, 2, 3, 4]
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '"t"', "{}", '{"t": "now"}', "\x00\xff"])
def test_lines_that_are_damaged_are_skipped(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "load.jsonl"
    filled(path, 1)
    with path.open("a") as file:
        file.write(f"{damage}\n")
    filled(path, 2)
    assert times(path) == [1, 2]


def test_recent_samples_are_in_memory_before_they_are_written(tmp_path: Path) -> None:
    history = LoadHistory(tmp_path / "load.jsonl")
    history.add(sample(1))
    history.add(sample(2))
    assert [entry["t"] for entry in history.after(1)] == [2]
    assert not (tmp_path / "load.jsonl").exists()


def test_a_history_without_a_file_keeps_recent_samples() -> None:
    history = LoadHistory()
    history.add(sample(1))
    history.flush()
    assert [entry["t"] for entry in history.after(0)] == [1]


def test_samples_that_cannot_be_written_are_lost_without_an_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "load.jsonl"
    history = filled(path, 1)
    path.parent.mkdir()
    history.add(sample(2))
    history.flush()
    assert times(path) == [2]
