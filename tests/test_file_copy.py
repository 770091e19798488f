"""Copies of large files: whole, or interrupted after a piece."""

import fcntl
import os
from pathlib import Path
from typing import IO

import pytest

from jigsaw_triton import file_copy, file_digest
from jigsaw_triton.file_copy import clone_file, copy_file
from jigsaw_triton.file_digest import sha256_of


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of four pieces."""
    for module in (file_copy, file_digest):
        monkeypatch.setattr(module, "_PIECE_BYTES", 3)
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    return path


def test_a_copy_has_the_whole_content(source: Path) -> None:
    copy = source.with_name("copy")
    copy.write_bytes(b"an earlier one that is longer")
    checks: list[int] = []
    copy_file(source, copy, lambda: checks.append(copy.stat().st_size))
    assert copy.read_bytes() == b"0123456789"
    assert checks == [3, 6, 9, 10]


class Interrupted(Exception):
    pass


def test_a_copy_and_a_digest_end_at_the_first_check_that_fails(source: Path) -> None:
    def check() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        copy_file(source, source.with_name("copy"), check)
    assert source.with_name("copy").read_bytes() == b"012"
    with pytest.raises(Interrupted):
        sha256_of(source, check)


@pytest.mark.parametrize("shares", [True, False])
def test_a_clone_shares_blocks_where_the_file_system_can(
    source: Path, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ioctl(copy: IO[bytes], call: int, original: int) -> None:
        assert call == 0x40049409
        if not shares:
            raise OSError("not supported")
        copy.write(os.pread(original, 100, 0))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    copy = source.with_name("copy")
    assert clone_file(source, copy) is shares
    assert copy.read_bytes() == (source.read_bytes() if shares else b"")
