"""Finds the tritonserver to use: an installed one, else the one in a pinned package."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jigsaw_triton.errors import MissingDependencyError
from jigsaw_triton.packages import Package, Progress, build_folder, extract
from jigsaw_triton.runtime.spec import COMPILED_BACKEND
from jigsaw_triton.servers import backend, interpreter

PACKAGE = Package(
    name="nvidia-pytriton",
    version="0.7.0",
    filename="nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl",
    sha256="21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
    purpose="tritonserver",
)
"""Package that contains tritonserver, its Python backend and their libraries; nothing else in it is used."""

_PACKAGED_VERSION = "2.51.0"
_PACKAGED_PYTHONS = ("3.11", "3.12")
_PACKAGED_GLIBC = (2, 35)
_ROOT = "pytriton/tritonserver"
_LIBS = "nvidia_pytriton.libs"
_OPT = Path("/opt/tritonserver")
_STUB = "triton_python_backend_stub"
_OFF_PATH = "remove this tritonserver from PATH or /opt/tritonserver to use the packaged one"


@dataclass(frozen=True, slots=True)
class Installation:
    """A tritonserver that can be started on this machine.

    Attributes:
        binary: Absolute path of the program.
        backend_dir: Folder of the backends, for --backend-directory.
        backends: Names of these backends: `python`, `onnxruntime`; `jigsaw` if the compiled backend is built.
        version: Version of the server: `2.51.0`; `unknown` if it cannot be determined.
        origin: Origin of the server: found on PATH, at /opt/tritonserver, unpacked from the package, or in an image.
        env: Environment variables that the server needs in addition to the inherited ones.
    """

    binary: Path
    backend_dir: Path
    backends: frozenset[str]
    version: str
    origin: Literal["path", "opt", "package", "image"]
    env: Mapping[str, str] = field(repr=False)


def find_installation(progress: Progress | None = None) -> Installation:
    """Finds tritonserver on PATH, else at /opt/tritonserver, else fetches the packaged one if necessary. Blocks.

    Args:
        progress: Callback that follows the download.

    Raises:
        MissingDependencyError: The machine lacks a dependency; the hint says how to install it.
        ArtifactError: The package could not be fetched or unpacked.
    """
    found = find_installed()
    return _installed(*found) if found else _packaged(progress)


def find_installed() -> tuple[Path, Literal["path", "opt"]] | None:
    """Returns an installed tritonserver and its origin; None if only the packaged one is available."""
    if on_path := shutil.which("tritonserver"):
        return Path(on_path).resolve(), "path"
    if os.access(_OPT / "bin" / "tritonserver", os.X_OK):
        return _OPT / "bin" / "tritonserver", "opt"
    return None


def installed_backends() -> frozenset[str]:
    """Backends of the installed tritonserver, or of the packaged one if none is installed. Fetches nothing."""
    found = find_installed()
    return _backends_of(found[0])[1] if found is not None else frozenset({"python"})


def require_compiled_backend(installation: Installation) -> Installation:
    """Returns the installation if it can run our servers.

    Raises:
        MissingDependencyError: The compiled backend is not built.
    """
    if COMPILED_BACKEND not in installation.backends:
        raise backend.missing_library()
    return installation


def require_packaged_platform() -> None:
    """Checks that the packaged tritonserver can run on this machine.

    Raises:
        MissingDependencyError: The packaged tritonserver does not support this system or this Python.
    """
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine != "x86_64":
        raise MissingDependencyError(
            f"the packaged tritonserver needs Linux on x86-64, but this is {system} on {machine}",
            hint="run jigsaw-triton inside the tritonserver container image of NVIDIA NGC",
        )
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < _PACKAGED_GLIBC:
        this = f"{libc or 'another C library'} {version}".rstrip()
        raise MissingDependencyError(
            f"the packaged tritonserver needs glibc 2.35 or later, but this system has {this}",
            hint="use Ubuntu 22.04, Debian 12 or later, or the tritonserver container image of NVIDIA NGC",
        )
    if interpreter.VERSION not in _PACKAGED_PYTHONS:
        raise MissingDependencyError(
            f"the packaged tritonserver needs Python {' or '.join(_PACKAGED_PYTHONS)}, not {interpreter.VERSION}",
            where=sys.executable,
            hint="create the virtual environment with one of them: python3.12 -m venv .venv",
        )
    interpreter.shared_library()


def _packaged(progress: Progress | None) -> Installation:
    require_packaged_platform()
    version = interpreter.VERSION
    stub = f"{_ROOT}/python_backend_stubs/{version}/{_STUB}"
    python = f"{_ROOT}/backends/python/"
    folder = extract(
        PACKAGE, {f"{_ROOT}/bin/tritonserver": None, python: None, stub: None, f"{_LIBS}/": None}, progress
    )

    def link(fresh: Path) -> None:
        (fresh / "python").mkdir()
        for file in [folder / stub, *(folder / python).iterdir()]:
            (fresh / "python" / file.name).symlink_to(Path("..", "..", file.relative_to(folder)))

    backend_dir = folder / "backends"
    build_folder(backend_dir, link)
    backend_dir, backends = _with_compiled(backend_dir, {"python"})
    home = interpreter.prepare()
    libraries = {**os.environ, "LD_LIBRARY_PATH": _append(str(folder / _LIBS), os.environ.get("LD_LIBRARY_PATH", ""))}
    return Installation(
        binary=folder / _ROOT / "bin" / "tritonserver",
        backend_dir=backend_dir,
        backends=backends,
        version=_PACKAGED_VERSION,
        origin="package",
        env={**interpreter.environment(home, libraries), **_preload(backend_dir, backends)},
    )


def _backends_of(binary: Path) -> tuple[Path, frozenset[str]]:
    """Returns the folder of an installed tritonserver's backends, and their names."""
    root = binary.parent.parent
    backend_dir = next((d for d in (root / "backends", _OPT / "backends") if d.is_dir()), root / "backends")
    return backend_dir, frozenset(path.parent.name for path in backend_dir.glob("*/libtriton_*.so"))


def _installed(binary: Path, origin: Literal["path", "opt"]) -> Installation:
    backend_dir, backends = _backends_of(binary)
    stub = backend_dir / "python" / _STUB
    if "python" not in backends or not stub.is_file():
        raise MissingDependencyError(
            "this tritonserver has no Python backend, which Python models and steps need",
            where=str(binary),
            hint=f"install it under {backend_dir / 'python'}, or {_OFF_PATH}",
        )
    built_for = stub_python(stub)
    if built_for != interpreter.VERSION:
        raise MissingDependencyError(
            f"this tritonserver's Python backend is built for Python {built_for}, not {interpreter.VERSION}",
            where=str(stub),
            hint=f"install jigsaw-triton with Python {built_for}, or {_OFF_PATH}",
        )
    backend_dir, backends = _with_compiled(backend_dir, backends)
    return Installation(
        binary=binary,
        backend_dir=backend_dir,
        backends=backends,
        version=_version(binary.parent.parent),
        origin=origin,
        env={**interpreter.environment(interpreter.prepare(), os.environ), **_preload(backend_dir, backends)},
    )


def _with_compiled(backend_dir: Path, backends: Set[str]) -> tuple[Path, frozenset[str]]:
    """Adds the compiled backend, if it is built, to a server's backends; returns their folder and names."""
    library = backend.find_library()
    if library is None:
        return backend_dir, frozenset(backends - {COMPILED_BACKEND})
    return backend.merge_backends(backend_dir, library), frozenset({*backends, COMPILED_BACKEND})


def _preload(backend_dir: Path, backends: Set[str]) -> Mapping[str, str]:
    """Returns the variable that makes a server preload our library before those that the user preloads."""
    if COMPILED_BACKEND not in backends:
        return {}
    library = backend.preload_beside(backend.library_in(backend_dir))
    return {backend.PRELOAD_VARIABLE: _append(str(library), os.environ.get(backend.PRELOAD_VARIABLE, ""))}


def stub_python(stub: Path) -> str:
    """Returns the version of Python to which a stub is linked (`3.12`); `unknown` if it has no such reference."""
    match = re.search(rb"libpython(3\.\d+)\.so", stub.read_bytes())
    return match.group(1).decode() if match else "unknown"


def _version(root: Path) -> str:
    try:
        return (root / "TRITON_VERSION").read_text().strip()
    except FileNotFoundError:
        return os.environ.get("TRITON_SERVER_VERSION", "unknown")


def _append(first: str, rest: str) -> str:
    return f"{first}{os.pathsep}{rest}" if rest else first
