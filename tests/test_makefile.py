"""`make` checks the interpreter that a user names, before it installs anything with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(MAKEFILE, tmp_path)
    return tmp_path


def interpreter(path: Path, version: tuple[int, int]) -> Path:
    """Creates a program that runs code as this interpreter does, but has another version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.version_info = {version}; exec(sys.argv[2])' \"$@\"\n"
    )
    path.chmod(0o755)
    return path


def check(checkout: Path, python: Path | str | None) -> str:
    """Checks the interpreter that PYTHON names; returns the message, which is empty if it may be used."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    variables["LC_ALL"] = "C"
    named = [] if python is None else [f"PYTHON={python}"]
    ran = subprocess.run(
        ["make", "--silent", ".python", *named],
        cwd=checkout,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    message, _, rest = ran.stderr.partition("\n")
    assert (ran.returncode == 0) == (message == "")
    assert not rest or "Error 1" in rest
    return message


@pytest.mark.parametrize("version", [(3, 11), (3, 12)])
def test_a_supported_interpreter_may_be_named(checkout: Path, version: tuple[int, int]) -> None:
    assert check(checkout, interpreter(checkout / "python", version)) == ""


@pytest.mark.parametrize("version", [(3, 10), (3, 13)])
def test_an_unsupported_interpreter_is_refused(checkout: Path, version: tuple[int, int]) -> None:
    python = interpreter(checkout / "python", version)
    assert check(checkout, python).startswith(f"PYTHON={python} is no Python 3.11 or 3.12 with the venv module. ")


def test_a_program_that_does_not_exist_is_refused(checkout: Path) -> None:
    assert check(checkout, "python3.99").startswith("PYTHON=python3.99 is no Python 3.11 or 3.12")


def test_an_environment_of_another_version_is_not_used_in_silence(checkout: Path) -> None:
    interpreter(checkout / ".venv" / "bin" / "python", (3, 11))
    asked = interpreter(checkout / "python", (3, 12))
    assert check(checkout, asked) == (
        f".venv has Python 3.11, but PYTHON={asked} is Python 3.12. "
        "Run make clean to remove .venv, or leave PYTHON out."
    )


def test_an_environment_of_the_named_version_is_used(checkout: Path) -> None:
    interpreter(checkout / ".venv" / "bin" / "python", (3, 12))
    assert check(checkout, interpreter(checkout / "python", (3, 12))) == ""


def test_an_environment_is_used_if_no_interpreter_is_named(checkout: Path) -> None:
    interpreter(checkout / ".venv" / "bin" / "python", (3, 11))
    assert check(checkout, None) == ""
