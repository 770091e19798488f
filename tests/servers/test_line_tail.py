"""Trace files are followed through their rotation."""

from pathlib import Path

import pytest

from jigsaw_triton.runtime.trace import Run, TraceFile, run_from_json
from jigsaw_triton.servers.line_tail import Tail


def append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def rotate(path: Path) -> None:
    path.replace(f"{path}.1")


def test_only_lines_from_now_on_are_read(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", "old\n")
    tail = Tail(tmp_path, "*.jsonl")
    assert list(tail.read()) == []
    append(tmp_path / "a.jsonl", "one\ntwo\n")
    append(tmp_path / "b.jsonl", "three\n")
    append(tmp_path / "c.txt", "other\n")
    assert list(tail.read()) == ["one", "two", "three"]
    assert list(tail.read()) == []


def test_a_folder_may_appear_later(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "workers", "*/*.jsonl")
    assert list(tail.read()) == []
    append(tmp_path / "workers" / "w" / "m_0.jsonl", "one\n")
    assert list(tail.read()) == ["one"]


def test_a_line_is_read_once_it_is_complete(tmp_path: Path) -> None:
    tail = Tail(tmp_path, "*.jsonl")
    append(tmp_path / "a.jsonl", "one\ntw")
    assert list(tail.read()) == ["one"]
    append(tmp_path / "a.jsonl", "o\n")
    assert list(tail.read()) == ["two"]


@pytest.mark.parametrize("seen", [True, False])
def test_a_renamed_file_is_read_to_its_end(tmp_path: Path, seen: bool) -> None:
    path = tmp_path / "a.jsonl"
    tail = Tail(tmp_path, "*.jsonl")
    append(path, "one\n")
    assert list(tail.read()) == ["one"]
    append(path, "two\n")
    rotate(path)
    # The next file exists as soon as there is a next line.
    found = list(tail.read()) if seen else []
    append(path, "three\n")
    assert [*found, *tail.read()] == ["two", "three"]
    assert tail.gaps == 0


def test_a_file_that_is_renamed_twice_between_two_readings_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append(path, "one\n")
    tail = Tail(tmp_path, "*.jsonl")
    assert list(tail.read()) == []
    for text in ("two\n", "three\n"):
        append(path, text)
        rotate(path)
    append(path, "four\n")
    assert list(tail.read()) == ["four"]
    assert tail.gaps == 1


def test_a_folder_that_is_removed_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w" / "a.jsonl"
    append(path, "one\n")
    tail = Tail(tmp_path, "*/*.jsonl")
    path.unlink()
    assert list(tail.read()) == []
    append(path, "two\n")
    assert list(tail.read()) == ["two"]


def test_separators_within_a_line_do_not_end_it(tmp_path: Path) -> None:
    tail = Tail(tmp_path, "*.jsonl")
    append(tmp_path / "a.jsonl", "a\u2028b\x0bc\x85\n")
    assert list(tail.read()) == ["a\u2028b\x0bc\x85"]


def test_all_that_a_model_writes_is_read(tmp_path: Path) -> None:
    """The real writer rotates its file between any two readings at most once."""
    file, tail = TraceFile(tmp_path / "w" / "m.jsonl", limit_bytes=300), Tail(tmp_path, "*/*.jsonl")
    found: list[Run] = []
    for number in range(50):
        file.write(Run(("7",), (number,), "w", "m", 1.0, 2.0, 1))
        if number % 2:
            found += map(run_from_json, tail.read())
    assert [run.tokens for run in found] == [(number,) for number in range(50)]
    assert tail.gaps == 0
