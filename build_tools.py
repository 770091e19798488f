"""What the builds of the backend and of the web console share: their error, their lock, and packages from PyPI."""

import fcntl
import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class BuildError(Exception):
    """A build is impossible. The message says why and what to do."""


def pip_install(requirement: str, *, failure: str, advice: str) -> None:
    """Installs a package with pip into the running Python, which needs a network.

    Args:
        requirement: Name and version of the package.
        failure: Sentence for the error if pip cannot install it; the last lines of pip's output follow.
        advice: Other ways to continue, as an infinitive phrase.

    Raises:
        BuildError: pip cannot install it.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if ran.returncode != 0:
        details = "\n".join(f"  {line}" for line in ran.stderr.strip().splitlines()[-4:])
        raise BuildError(f"{failure} pip says:\n{details}\nTo continue, {advice}.")
    importlib.invalidate_caches()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one build at a time work in a folder; the kernel releases the lock if this process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
