"""Files of models on a node: what arrives is whole, and an interrupted transfer goes on."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jigsaw_triton.controller.persistence.contents import KEPT_S, Contents
from jigsaw_triton.errors import InputError

TEXT = b"weights of a model" * 1000
DIGEST = hashlib.sha256(TEXT).hexdigest()


async def chunks(*parts: bytes, broken: bool = False) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if broken:
        raise ConnectionResetError("the network is gone")


def receive(contents: Contents, offset: int, *parts: bytes, broken: bool = False) -> None:
    asyncio.run(contents.receive(DIGEST, offset, chunks(*parts, broken=broken)))


def test_a_file_arrives_in_parts_over_an_interruption(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    assert contents.missing([DIGEST]) == {DIGEST: 0}
    with pytest.raises(InputError):
        receive(contents, 0, TEXT[:5000], TEXT[5000:7000], broken=True)
    assert contents.missing([DIGEST]) == {DIGEST: 7000}
    receive(contents, 7000, TEXT[7000:])
    assert contents.missing([DIGEST]) == {}
    assert contents.path(DIGEST).read_bytes() == TEXT


def test_a_transfer_goes_on_only_where_it_stopped(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    with pytest.raises(InputError, match="goes on at byte 0, not at 10"):
        receive(contents, 10, TEXT[10:])


def test_damaged_content_is_refused_and_forgotten(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    with pytest.raises(InputError, match="has arrived damaged"):
        receive(contents, 0, TEXT[:-1] + b"?")
    assert contents.missing([DIGEST]) == {DIGEST: 0}
    receive(contents, 0, TEXT)


@pytest.mark.parametrize("digest", ["../journal.sqlite", "", "F" * 64, DIGEST[:-1]])
def test_nothing_but_a_digest_names_a_file(tmp_path: Path, digest: str) -> None:
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        Contents(tmp_path).path(digest)


def test_only_files_that_nobody_uses_for_long_are_removed(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    receive(contents, 0, TEXT)
    old_s = time.time() - KEPT_S - 10
    for name in ("0" * 64, "1" * 64):
        contents.path(name).write_bytes(b"")
        os.utime(contents.path(name), (old_s, old_s))
    assert contents.collect({"1" * 64}) == 1
    assert not contents.path("0" * 64).exists()
    assert contents.path("1" * 64).exists() and contents.path(DIGEST).exists()


def test_a_file_that_an_operation_is_about_to_use_is_kept(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    receive(contents, 0, TEXT)
    old_s = time.time() - KEPT_S - 10
    os.utime(contents.path(DIGEST), (old_s, old_s))
    assert contents.missing([DIGEST]) == {}
    assert contents.collect(()) == 0 and contents.path(DIGEST).exists()


def test_a_transfer_may_repeat_what_has_arrived(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    with pytest.raises(InputError):
        receive(contents, 0, TEXT[:7000], broken=True)
    receive(contents, 5000, TEXT[5000:])
    assert contents.path(DIGEST).read_bytes() == TEXT
