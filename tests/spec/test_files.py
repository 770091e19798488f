import os
from pathlib import Path

import pytest

from jigsaw_triton.spec.files import replace_text


def test_a_file_is_replaced_in_one_step_and_keeps_its_permissions(tmp_path: Path) -> None:
    file, link = tmp_path / "f", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    before = file.stat().st_ino
    replace_text(link, "new\n")
    assert (file.read_text(), file.stat().st_mode & 0o777, link.is_symlink()) == ("new\n", 0o640, True)
    assert file.stat().st_ino != before
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    try:
        replace_text(pipe, "text\n")
        assert os.read(reader, 100) == b"text\n"
        assert pipe.is_fifo()
    finally:
        os.close(reader)


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        replace_text(tmp_path, "text")
    assert tmp_path.is_dir()
