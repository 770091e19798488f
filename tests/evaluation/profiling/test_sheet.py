from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError, SpecError
from jigsaw_triton.evaluation.profiling.sheet import Sheet
from jigsaw_triton.profiles.read import read_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow

ROW = ProfileRow(ProfileKey("cpu", "a", "small", "1g", 1, 4), 1.5, 2.5, 3.5, 100.25, 48.5, "measured")
OTHER = replace(ROW, key=replace(ROW.key, batch=8))


def rows(path: Path) -> tuple[ProfileRow, ...]:
    return read_profiles(path).rows()


def test_added_rows_are_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "profiles.csv"
    sheet = Sheet(path)
    assert len(sheet.table) == 0
    sheet.add(OTHER)
    assert rows(path) == (OTHER,)
    sheet.add(ROW)
    assert rows(path) == (ROW, OTHER)
    assert [file.name for file in path.parent.iterdir()] == ["profiles.csv"]


def test_existing_rows_are_kept_and_the_row_of_the_same_configuration_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    for row in (replace(ROW, source="assumed"), OTHER):
        Sheet(path).add(row)
    Sheet(path).add(ROW)
    assert rows(path) == (ROW, OTHER)


def test_rows_that_another_command_writes_meanwhile_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    one, other = Sheet(path), Sheet(path)
    other.add(OTHER)
    one.add(ROW)
    assert rows(path) == (ROW, OTHER)
    other.add(replace(OTHER, latency_p99_ms=9.0))
    one.refresh()
    assert one.table.rows() == rows(path)


def test_a_file_that_was_damaged_meanwhile_gets_all_rows_again(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    sheet = Sheet(path)
    sheet.add(OTHER)
    path.write_text("not,a,profile\n")
    sheet.add(ROW)
    assert rows(path) == (ROW, OTHER)


def test_the_file_that_a_link_names_is_changed_and_keeps_its_permissions(tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "profiles.csv"
    Sheet(real).replace(())
    real.chmod(0o640)
    link.symlink_to(real)
    Sheet(link).add(ROW)
    assert link.readlink() == real
    assert rows(real) == (ROW,)
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    path.write_text("not,a,profile\n")
    with pytest.raises(SpecError):
        Sheet(path)


def test_a_path_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sheet = Sheet(tmp_path / "file" / "profiles.csv")
    with pytest.raises(InputError, match="cannot be written"):
        sheet.require_writable()
    with pytest.raises(InputError, match="cannot be written"):
        sheet.add(ROW)


def test_a_check_that_a_file_is_writable_changes_nothing(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "profiles.csv")
    sheet.require_writable()
    assert list(tmp_path.iterdir()) == []
    sheet.add(ROW)
    before = sheet.path.stat()
    sheet.require_writable()
    assert sheet.path.stat().st_mtime_ns == before.st_mtime_ns
