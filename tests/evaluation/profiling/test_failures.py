from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.failures import Failures
from jigsaw_triton.profiles.table import ProfileKey

KEY = ProfileKey("cpu", "a", "small", "1g", 1, 4)
OTHER = ProfileKey("cpu", "a", "small", "1g", 2, 4)


def test_failures_are_kept_beside_the_profiles_until_they_are_removed(tmp_path: Path) -> None:
    sheet = tmp_path / "profiles.csv"
    failures = Failures(sheet)
    assert failures.reasons == {}
    failures.add(KEY, "out of memory: 'x'\t\u00b5")
    failures.add(OTHER, "no answer in time")
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.failed.json"]
    assert Failures(sheet).reasons == {KEY: "out of memory: 'x'\t\u00b5", OTHER: "no answer in time"}
    failures.remove([KEY])
    assert Failures(sheet).reasons == {OTHER: "no answer in time"}
    failures.remove([KEY, OTHER])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "3", "[3]", '[{"gpu": "cpu"}]', '[{"reason": "r", "gpu": "cpu"}]', '{"reason": 1}', "[" * 100_000),
        '[{"reason": "r", "gpu": null, "task": "a", "variant": "b", "slice": "1g", "instances": 1, "batch": 1}]',
    ],
)
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "profiles.failed.json").write_text(text)
    with pytest.raises(InputError, match="delete the file"):
        Failures(tmp_path / "profiles.csv")


def test_a_folder_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        Failures(tmp_path / "missing" / "profiles.csv").add(KEY, "reason")
