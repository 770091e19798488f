"""Runs `jigsaw-triton` commands on copies of applications, as a user does."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.__main__ import ROOT
from jigsaw_triton.applications import fetch_application
from jigsaw_triton.errors import ServerError
from jigsaw_triton.resources import applications_dir

LIMIT_S = 2400.0
"""Seconds after which a command has failed."""


@contextmanager
def application(name: str) -> Iterator[Path]:
    """Provides a copy of a ready application without profiles."""
    ready = applications_dir() / name
    fetch_application(ready, lambda _: None)
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as folder:
        copy = Path(folder, name)
        shutil.copytree(ready, copy, ignore=shutil.ignore_patterns("profiles.*"))
        yield copy


def command(*arguments: str) -> list[str]:
    """Returns the command line of a command of this checkout."""
    return [sys.executable, "-m", "jigsaw_triton.cli.main", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Returns the environment of a command of this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run(*arguments: str, **more: str) -> str:
    """Runs a command and returns what it prints on stdout.

    Args:
        *arguments: Command and its arguments.
        **more: Variables of its environment.

    Raises:
        ServerError: The command failed.
    """
    done = subprocess.run(
        command(*arguments), env=environment(**more), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    if done.returncode != 0:
        raise ServerError(f"{' '.join(arguments)} exits with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def profile(folder: Path, *arguments: str) -> dict[str, Any]:
    """Runs `profile` and returns its result.

    Raises:
        ServerError: The command failed.
    """
    found: dict[str, Any] = json.loads(run("profile", str(folder), *arguments, "-o", "json"))
    return found
