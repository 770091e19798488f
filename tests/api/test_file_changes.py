import errno
import shutil
from pathlib import Path
from typing import IO

import pytest

from jigsaw_triton.api.file_changes import Undo, kept_path, restore
from jigsaw_triton.errors import InputError


def test_files_and_folders_are_removed_if_the_block_raises(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(KeyboardInterrupt), Undo() as undo:
        undo.copy(tmp_path / "a", tmp_path / "new" / "deep" / "a", hint="")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_is_replaced_and_restored(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    with pytest.raises(ValueError, match="later"), Undo() as undo:
        undo.copy(tmp_path / "a", tmp_path / "b", hint="", replace=True)
        assert (tmp_path / "b").read_text() == "new"
        raise ValueError("later")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "old"}
    with Undo() as undo:
        undo.copy(tmp_path / "a", tmp_path / "b", hint="", replace=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_another_file_is_not_replaced_by_default(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    with pytest.raises(InputError, match=r"b: another file is there already; rename a"), Undo() as undo:
        undo.copy(tmp_path / "a", tmp_path / "b", hint="rename a")


def test_the_rest_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / ".b.part").write_text("ha")
    with Undo() as undo:
        undo.copy(tmp_path / "a", tmp_path / "b", hint="")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_a_full_disk_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")

    def full(source: IO[bytes], target: IO[bytes]) -> None:
        target.write(b"n")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    for name in ("b", "c"):
        with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"), Undo() as undo:
            undo.copy(tmp_path / "a", tmp_path / name, hint="", replace=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "old"}


def test_there_is_a_file_at_every_moment_of_its_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    seen = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((tmp_path / "b").read_text())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    with Undo() as undo:
        undo.copy(tmp_path / "a", tmp_path / "b", hint="", replace=True)
    assert seen == ["old"]


def test_a_file_that_a_killed_process_replaced_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("half done")
    kept_path(tmp_path / "b").write_text("old")
    assert restore(tmp_path / "b")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "old"}
    assert not restore(tmp_path / "b")
