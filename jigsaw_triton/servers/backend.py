"""The compiled backend that fronts run in: the library that this package brings for the gateway."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jigsaw_triton
from jigsaw_triton.errors import MissingDependencyError, ServerError
from jigsaw_triton.packages import build_folder, cache_dir

BACKEND = "jigsaw"
"""Name of the backend in Triton's configurations."""

LIBRARY = Path(jigsaw_triton.__file__).resolve().parent / "_native" / f"libtriton_{BACKEND}.so"
REBUILD = "in a checkout: make setup; elsewhere: pip install --force-reinstall --no-deps jigsaw-triton"
_TIMEOUT_S = 30

# A library that is not what it says may end the process that loads it. ctypes.CDLL would resolve all functions at once,
# those of Triton too, which only a server has.
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
        major: Number that changes with an incompatible change.
        minor: Number that grows with each addition.
    """

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def of(cls, text: str) -> "Api":
        """Version from its text: `1.19`."""
        major, minor = text.strip().split(".")
        return cls(int(major), int(minor))


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What the library says about itself.

    Attributes:
        version: Version of the package that it was built from.
        compiler: Name and version of the compiler: `g++ 12.4.0`.
        api: Version of the backend API that it was written for.
    """

    version: str
    compiler: str
    api: Api


def find_library() -> Path | None:
    """Path of the library; None if it is not built."""
    return LIBRARY if LIBRARY.is_file() else None


def missing_library() -> MissingDependencyError:
    """Error to raise where the library is needed and not built."""
    return MissingDependencyError("the compiled backend for the gateway is not built", where=str(LIBRARY), hint=REBUILD)


def merge_backends(backend_dir: Path, library: Path) -> Path:
    """Makes the folder in the cache that has a server's backends and the compiled one, or finds it there.

    The library is a copy: a gateway that starts again has the one that its deployment began with, even if the package
    has been upgraded since.

    Args:
        backend_dir: Backends of the server, which may not be changed.
        library: Compiled backend.

    Returns:
        A folder for --backend-directory.

    Raises:
        ArtifactError: The cache cannot be written.
    """
    content = library.read_bytes()
    others = sorted(path for path in backend_dir.iterdir() if path.name != BACKEND)
    digest = hashlib.sha256(repr([str(path) for path in others]).encode())
    digest.update(hashlib.sha256(content).digest())
    folder = cache_dir() / "backends" / digest.hexdigest()[:16]

    def write(fresh: Path) -> None:
        (fresh / BACKEND).mkdir()
        copy = fresh / BACKEND / library.name
        copy.write_bytes(content)
        copy.chmod(0o755)
        for path in others:
            (fresh / path.name).symlink_to(path)

    build_folder(folder, write)
    return folder


def build_info(library: Path) -> BuildInfo:
    """Asks a library about itself, in a process of its own. Blocks.

    Raises:
        ServerError: The library cannot be loaded here, or is not one of this project.
    """
    ran = _run([sys.executable, "-I", "-c", _ASK_LIBRARY, str(library)], os.environ)
    if ran is None or ran.returncode != 0:
        raise ServerError(f"the library cannot be loaded: {_story(ran)}", where=str(library), hint=REBUILD)
    try:
        found = json.loads(ran.stdout)
        return BuildInfo(found["version"], found["compiler"], Api.of(found["api"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"the library does not say how it was built: {ran.stdout.strip()!r}", where=str(library), hint=REBUILD
        ) from error


def server_library(binary: Path, env: Mapping[str, str]) -> Path | None:
    """Finds the library that a tritonserver's functions are in; None if the loader does not say. Blocks.

    Args:
        binary: Program of the server.
        env: Variables that it needs, to be laid over the inherited ones.
    """
    # The dynamic loader lists the libraries of a program instead of running it.
    traced = _run([str(binary)], {**os.environ, **env, "LD_TRACE_LOADED_OBJECTS": "1"})
    lines = traced.stdout.splitlines() if traced is not None else []
    words = next((line.split() for line in lines if "libtritonserver" in line.partition("=>")[0]), [])
    return Path(words[2]) if len(words) > 2 and words[2].startswith("/") else None


def server_api(binary: Path, env: Mapping[str, str]) -> Api | None:
    """Asks a tritonserver for the version of its backend API. Blocks.

    Args:
        binary: Program of the server.
        env: Variables that it needs, to be laid over the inherited ones.

    Returns:
        The version; None if that cannot be found out without starting the server.
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
    """Runs a command; None if it cannot be started or does not end."""
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


def _story(ran: subprocess.CompletedProcess[str] | None) -> str:
    if ran is None:
        return "it does not answer"
    lines = ran.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {ran.returncode}"
