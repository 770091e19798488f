"""Mistakes in what a builder builds, and their lines."""

import inspect
from pathlib import Path

import pytest

import jigsaw_triton as jt


def mistakes(builder: jt.GraphBuilder | jt.ProfileBuilder) -> list[str]:
    """Returns the mistakes that a builder finds."""
    with pytest.raises(jt.SpecError) as caught:
        builder.build()
    return [str(diagnostic) for diagnostic in caught.value.diagnostics]


def line_of(text: str) -> int:
    """Returns the first line of the calling test that contains a text."""
    frame = inspect.stack()[1].frame
    start = frame.f_code.co_firstlineno
    lines = Path(frame.f_code.co_filename).read_text().splitlines()[start - 1 :]
    return next(start + number for number, line in enumerate(lines) if text in line and "line_of" not in line)
