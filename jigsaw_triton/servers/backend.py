"""The compiled backend: the library of this package in which the gateway runs fronts, and workers run ONNX models.

With it comes the library that every server preloads (`native/preload`), so that other users of the machine can read
neither the deployment's secret nor tensors in shared memory.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jigsaw_triton
from jigsaw_triton.errors import MissingDependencyError, ServerError
from jigsaw_triton.packages import build_folder, cache_dir
from jigsaw_triton.runtime.spec import COMPILED_BACKEND

LIBRARY = Path(jigsaw_triton.__file__).resolve().parent / "_native" / f"libtriton_{COMPILED_BACKEND}.so"
LISTENER_REPOSITORY = Path(__file__).resolve().parent / "listener"
_PRELOAD = "libjigsaw_private.so"
PRELOAD_VARIABLE = "LD_PRELOAD"
"""Environment variable of the dynamic loader with the libraries that a program loads first."""

REBUILD = "in a checkout: make setup; elsewhere: pip install --force-reinstall --no-deps jigsaw-triton"
_TIMEOUT_S = 30

# A separate process loads the library, because a damaged one may crash its process. ctypes.CDLL would resolve all
# functions at once, including those of Triton, which exist only in a server.
_ASK_LIBRARY = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.dlopen.restype, libc.dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
libc.dlsym.restype, libc.dlsym.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
libc.dlerror.restype = ctypes.c_char_p
library = libc.dlopen(os.fsencode(sys.argv[1]), os.RTLD_LAZY) or sys.exit(libc.dlerror().decode())
function = libc.dlsym(library, b"jigsaw_build_info") or sys.exit(libc.dlerror().decode())
print(ctypes.CFUNCTYPE(ctypes.c_char_p)(function)().decode())
"""
_ASK_SERVER = """
import ctypes, sys
major, minor = ctypes.c_uint32(), ctypes.c_uint32()
ctypes.CDLL(sys.argv[1]).TRITONBACKEND_ApiVersion(ctypes.byref(major), ctypes.byref(minor))
print(f"{major.value}.{minor.value}")
"""


@dataclass(frozen=True, order=True, slots=True)
class Api:
    """Version of Triton's backend API.

    Attributes:
        major: Major version; it changes with incompatible changes.
        minor: Minor version; it increases with each addition.
    """

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def of(cls, text: str) -> "Api":
        """Parses a version: `1.19`."""
        major, minor = text.strip().split(".")
        return cls(int(major), int(minor))


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Build information that the library reports.

    Attributes:
        version: Version of the package from which it was built.
        compiler: Name and version of the compiler: `g++ 12.4.0`.
        api: Version of the backend API that it requires.
    """

    version: str
    compiler: str
    api: Api


def find_library() -> Path | None:
    """Returns the path of the backend; None if it, or the library to preload, is not built."""
    return LIBRARY if LIBRARY.is_file() and preload_beside(LIBRARY).is_file() else None


def preload_beside(library: Path) -> Path:
    """Returns the path of the library to preload, which is in the folder of the backend's library."""
    return library.with_name(_PRELOAD)


def listener_in(backend_dir: Path) -> Path:
    """Returns the path, in a folder of backends, of the model repository with the listener of workers."""
    return backend_dir / COMPILED_BACKEND / LISTENER_REPOSITORY.name


def library_in(backend_dir: Path) -> Path:
    """Returns the path of the backend's library in a folder of backends."""
    return backend_dir / COMPILED_BACKEND / LIBRARY.name


def missing_library() -> MissingDependencyError:
    """Returns the error to raise if the library is needed but not built."""
    return MissingDependencyError("the compiled backend is not built", where=str(LIBRARY), hint=REBUILD)


def merge_backends(backend_dir: Path, library: Path) -> Path:
    """Creates the folder in the cache that combines a server's backends with the compiled one, unless it exists.

    The folder has copies of the libraries. A server that restarts thus gets those with which its deployment was
    started, even if the package has been upgraded since.

    Args:
        backend_dir: Folder of the server's backends, which is not changed.
        library: Path of the compiled backend, with the library to preload beside it.

    Returns:
        The folder, for --backend-directory.

    Raises:
        ArtifactError: The cache cannot be written.
    """
    contents = {path.name: path.read_bytes() for path in (library, preload_beside(library))}
    others = sorted(path for path in backend_dir.iterdir() if path.name != COMPILED_BACKEND)
    digest = hashlib.sha256(repr([str(path) for path in others]).encode())
    listener = [path.read_bytes() for path in sorted(LISTENER_REPOSITORY.rglob("*")) if path.is_file()]
    for content in (*contents.values(), *listener):
        digest.update(hashlib.sha256(content).digest())
    folder = cache_dir() / "backends" / digest.hexdigest()[:16]

    def write(fresh: Path) -> None:
        (fresh / COMPILED_BACKEND).mkdir()
        shutil.copytree(LISTENER_REPOSITORY, listener_in(fresh))
        for name, content in contents.items():
            copy = fresh / COMPILED_BACKEND / name
            copy.write_bytes(content)
            copy.chmod(0o755)
        for path in others:
            (fresh / path.name).symlink_to(path)

    build_folder(folder, write)
    return folder


def build_info(library: Path) -> BuildInfo:
    """Reads the build information of a library in a separate process. Blocks.

    Raises:
        ServerError: The library cannot be loaded on this machine, or is not a library of this project.
    """
    ran = _run([sys.executable, "-I", "-c", _ASK_LIBRARY, str(library)], os.environ)
    if ran is None or ran.returncode != 0:
        raise ServerError(f"the library cannot be loaded: {_reason(ran)}", where=str(library), hint=REBUILD)
    try:
        found = json.loads(ran.stdout)
        return BuildInfo(found["version"], found["compiler"], Api.of(found["api"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"the library has no valid build information: {ran.stdout.strip()!r}", where=str(library), hint=REBUILD
        ) from error


def server_library(binary: Path, env: Mapping[str, str]) -> Path | None:
    """Finds the shared library that contains a tritonserver's functions. Blocks.

    Args:
        binary: Path of the server's program.
        env: Environment variables that it needs in addition to the inherited ones.

    Returns:
        Path of the library; None if the dynamic loader does not report it.
    """
    # With this variable, the dynamic loader lists the libraries of a program instead of running it.
    traced = _run([str(binary)], {**os.environ, **env, "LD_TRACE_LOADED_OBJECTS": "1"})
    lines = traced.stdout.splitlines() if traced is not None else []
    words = next((line.split() for line in lines if "libtritonserver" in line.partition("=>")[0]), [])
    return Path(words[2]) if len(words) > 2 and words[2].startswith("/") else None


def server_api(binary: Path, env: Mapping[str, str]) -> Api | None:
    """Reads the version of a tritonserver's backend API. Blocks.

    Args:
        binary: Path of the server's program.
        env: Environment variables that it needs in addition to the inherited ones.

    Returns:
        The version; None if it cannot be determined without starting the server.
    """
    library = server_library(binary, env)
    if library is None:
        return None
    ran = _run([sys.executable, "-I", "-c", _ASK_SERVER, str(library)], {**os.environ, **env})
    try:
        return Api.of(ran.stdout) if ran is not None and ran.returncode == 0 else None
    except ValueError:
        return None


def _run(command: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str] | None:
    """Runs a command; returns None if it cannot be started or does not end in time."""
    try:
        return subprocess.run(
            command,
            env=dict(env),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _reason(ran: subprocess.CompletedProcess[str] | None) -> str:
    if ran is None:
        return "the process that loads it does not answer"
    lines = ran.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {ran.returncode}"
