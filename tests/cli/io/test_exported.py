import errno
from pathlib import Path

import pytest

from jigsaw_triton.cli.io.exported import write_exported
from jigsaw_triton.errors import InputError
from jigsaw_triton.export.marker import MARK, marked

FILES = marked({"a.yaml": "x: 1\n", "b.yaml": "y: ä\n"})


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_are_written_and_replaced_by_the_next_export(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write_exported(folder, FILES, overwrite=False)
    assert contents(folder) == FILES
    newer = marked({"a.yaml": "x: 2\n"})
    write_exported(folder, newer, overwrite=False)
    assert contents(folder) == {**FILES, **newer}


def test_files_that_a_newer_export_does_not_have_are_removed_and_others_stay(tmp_path: Path) -> None:
    write_exported(tmp_path, FILES, overwrite=False)
    (tmp_path / "mine.yaml").write_text("z: 1\n")
    (tmp_path / "folder").mkdir()
    newer = marked({"a.yaml": "x: 2\n"})
    write_exported(tmp_path, newer, overwrite=False, alone=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a.yaml", "mine.yaml", "folder"}


@pytest.mark.parametrize("text", ["", "z: 1\n", MARK[:-1], f"\n{MARK}\n", f"{MARK} not\n"])
def test_a_file_that_no_export_wrote_is_replaced_only_on_request(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(InputError, match="did not write this file") as caught:
        write_exported(tmp_path, FILES, overwrite=False)
    assert caught.value.where == str(tmp_path / "b.yaml")
    assert contents(tmp_path) == {"b.yaml": text}
    write_exported(tmp_path, FILES, overwrite=True)
    assert contents(tmp_path) == FILES


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_exported(tmp_path, FILES, overwrite=False)
    write_text, written = Path.write_text, []

    def fail_second(path: Path, text: str, encoding: str) -> int:
        written.append(path.name)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, text, encoding=encoding)

    monkeypatch.setattr(Path, "write_text", fail_second)
    with pytest.raises(InputError, match="No space left on device"):
        write_exported(tmp_path, marked({"a.yaml": "x: 2\n", "b.yaml": "y: 2\n"}), overwrite=False)
    assert contents(tmp_path) == FILES


def test_a_folder_or_a_device_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    for folder, files in ((tmp_path, FILES), (Path("/dev"), {"null": "x"})):
        with pytest.raises(InputError, match="not a regular file"):
            write_exported(folder, files, overwrite=True)


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_exported(tmp_path / "file" / "below", FILES, overwrite=False)
