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


def test_rows_are_in_the_file_as_soon_as_they_are_added(tmp_path: Path) -> None:
    path = tmp_path / "new" / "profiles.csv"
    sheet = Sheet(path)
    assert len(sheet.table) == 0
    sheet.add(OTHER)
    assert rows(path) == (OTHER,)
    sheet.add(ROW)
    assert rows(path) == (ROW, OTHER)
    assert [file.name for file in path.parent.iterdir()] == ["profiles.csv"]


def test_what_was_there_is_kept_and_a_row_of_the_same_configuration_replaced(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    for row in (replace(ROW, source="assumed"), OTHER):
        Sheet(path).add(row)
    Sheet(path).add(ROW)
    assert rows(path) == (ROW, OTHER)


def test_a_file_that_is_not_right_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "profiles.csv"
    path.write_text("not,a,profile\n")
    with pytest.raises(SpecError):
        Sheet(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Sheet(tmp_path / "file" / "profiles.csv").add(ROW)
