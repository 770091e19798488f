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


def test_a_link_stays_and_leads_to_the_new_rows(tmp_path: Path) -> None:
    target, link = tmp_path / "shared" / "rows.csv", tmp_path / "profiles.csv"
    Sheet(target).add(OTHER)
    link.symlink_to(target)
    Sheet(link).add(ROW)
    assert link.is_symlink()
    assert rows(target) == (ROW, OTHER)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    path.write_text("not,a,profile\n")
    with pytest.raises(SpecError):
        Sheet(path)


def test_a_path_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Sheet(tmp_path / "file" / "profiles.csv").add(ROW)
