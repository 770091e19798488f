"""Programs of the operating system that some tests need, and that `make setup` does not install."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRED = "JIGSAW_TESTS_REQUIRE"
"""Environment variable with the names of programs, separated by spaces, without which a test fails. Without a program
that it does not name, a test is skipped."""


def needed(name: str, install: str) -> Path:
    """Returns the path of a program; the test is skipped if it is not installed.

    Args:
        name: Name of the program.
        install: Command that installs it.
    """
    if found := shutil.which(name):
        return Path(found)
    missing(name, f"{name} is not installed ({install})")


def missing(name: str, text: str) -> NoReturn:
    """Fails the test if it needs a program that must be installed here, and skips it otherwise.

    Args:
        name: Name of the program.
        text: Message that says how to install it.
    """
    if name in os.environ.get(REQUIRED, "").split():
        pytest.fail(text)
    pytest.skip(text)
