from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.again import Again
from jigsaw_triton.profiles.table import ProfileKey

KEY = ProfileKey("cpu", "a", "small", "1g", 1, 4)
OTHER = ProfileKey("cpu", "b", "small", "1g", 2, 4)


def test_configurations_are_kept_beside_the_profiles_until_the_run_is_finished(tmp_path: Path) -> None:
    sheet = tmp_path / "profiles.csv"
    again = Again(sheet)
    again.add(KEY)
    again.add(OTHER)
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.again.json"]
    assert Again(sheet).done == {KEY, OTHER}
    again.finish([OTHER])
    assert Again(sheet).done == again.done == {KEY}
    again.finish([KEY, OTHER])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "profiles.again.json").write_text('[{"gpu": "cpu"}]')
    with pytest.raises(InputError, match="delete the file; `profile --again` then measures all of them"):
        Again(tmp_path / "profiles.csv")
