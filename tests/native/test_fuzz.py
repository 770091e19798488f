"""Fuzz targets: the seed corpus with earlier findings, damaged inputs and random bytes."""

import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.native.core import library

CORPUS = Path(__file__).parents[2] / "native" / "fuzz" / "corpus"
KINDS = ("answer", "request", "documents", "call")
FILES = sorted(path for kind in KINDS for path in (CORPUS / kind).iterdir())


def run(kind: str, data: bytes) -> None:
    """Runs a fuzz target, which aborts the process if an invariant is violated."""
    getattr(library(), f"jigsaw_fuzz_{kind}")(data, ctypes.c_size_t(len(data)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_file_of_the_corpus_violates_an_invariant(path: Path) -> None:
    data = path.read_bytes()
    for kind in KINDS:
        run(kind, data)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_damaged_file_of_the_corpus_violates_an_invariant(path: Path) -> None:
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 60)):
        for changed in (data[:place], data[:place] + bytes([data[place] ^ 9]) + data[place + 1 :], data[place:]):
            run(path.parent.name, changed)


@given(st.sampled_from(KINDS), st.binary(max_size=400))
def test_no_random_bytes_violate_an_invariant(kind: str, data: bytes) -> None:
    run(kind, data)
