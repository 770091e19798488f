"""Choice of the C++ compiler: $CXX, else g++ or clang++, else zig from the Python package `ziglang`."""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CHOICE_VARIABLE = "JIGSAW_COMPILER"
"""Environment variable that chooses the kind of compiler; `zig` builds a library that also runs on older systems."""

ZIG_REQUIREMENT = "ziglang==0.17.1"
"""Requirement that installs zig. The version is pinned, so that the portable wheel is reproducible."""

ZIG_GLIBC = (2, 28)
"""Oldest glibc that a library compiled by zig runs on."""

ADVICE = (
    "install g++ 11 or later (Debian, Ubuntu: apt-get install g++), or name another compiler with CXX=..., "
    f"or install zig where there is a network: pip install {ZIG_REQUIREMENT}"
)

Kind = Literal["g++", "clang++", "zig"]

_MACROS = (
    *("__GNUC__", "__GNUC_MINOR__", "__GNUC_PATCHLEVEL__"),
    *("__clang_major__", "__clang_minor__", "__clang_patchlevel__"),
)
_PROBE = f"#include <version>\ncompiler __cplusplus {' '.join(_MACROS)}\n"
_CPP20 = 202002
_TIMEOUT_S = 120


class BuildError(Exception):
    """The backend cannot be built. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler that compiles C++20.

    Attributes:
        command: Program and arguments that start it.
        kind: Family of the compiler, which determines the flags.
        version: Version of the compiler, such as `12.4.0`.
    """

    command: tuple[str, ...]
    kind: Kind
    version: str

    @property
    def name(self) -> str:
        """Name for messages and for the build information in the library, such as `g++ 12.4.0`."""
        return f"{self.kind} {self.version}"

    @property
    def identity(self) -> tuple[str, ...]:
        """Properties that determine the output; the path of zig is not one of them."""
        command = self.command[len(_zig_start()) :] if self.kind == "zig" else self.command
        return (self.kind, self.version, *command)

    @property
    def platform_tag(self) -> str:
        """Platform tag of a wheel that contains a library built by this compiler."""
        machine = platform.machine()
        if self.kind == "zig":
            return f"manylinux_{ZIG_GLIBC[0]}_{ZIG_GLIBC[1]}_{machine}"
        return f"linux_{machine}"


def find_compiler(choice: str | None = None) -> Compiler:
    """Finds the compiler to use.

    Args:
        choice: `zig` for zig, `auto` for the first one found; None takes JIGSAW_COMPILER from the environment, else
            `auto`.

    Raises:
        BuildError: No compiler is installed, or the chosen one cannot be used.
    """
    choice = choice or os.environ.get(CHOICE_VARIABLE) or "auto"
    if choice not in ("auto", "zig"):
        raise BuildError(f"The compiler {choice!r} is unknown. Set {CHOICE_VARIABLE} to zig or auto, or use CXX.")
    if choice == "zig":
        found = _zig()
        if found is None:
            raise BuildError(f"zig is not installed for {sys.executable}. Install it: pip install {ZIG_REQUIREMENT}")
        return found
    if command := shlex.split(os.environ.get("CXX", "")):
        return _probe(command)
    errors = []
    for program in ("g++", "clang++"):
        if path := shutil.which(program):
            try:
                return _probe([path])
            except BuildError as error:
                errors.append(str(error))
    found = _zig()
    if found is None:
        raise BuildError(" ".join([*errors, f"No C++20 compiler is installed: {ADVICE}."]))
    return found


def missing_requirements(choice: str | None = None) -> list[str]:
    """Lists the packages that `find_compiler` needs to find a compiler; empty if it finds one already."""
    try:
        find_compiler(choice)
    except BuildError:
        # A CXX that does not work is an error to report, not a reason to download another compiler.
        return (
            [] if os.environ.get("CXX") and (choice or os.environ.get(CHOICE_VARIABLE)) != "zig" else [ZIG_REQUIREMENT]
        )
    return []


def fetch_zig() -> None:
    """Installs zig with pip into the running Python, which needs a network.

    Raises:
        BuildError: pip cannot install it.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ZIG_REQUIREMENT]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if ran.returncode != 0:
        details = "\n".join(f"  {line}" for line in ran.stderr.strip().splitlines()[-4:])
        raise BuildError(
            f"No C++20 compiler is installed, and zig cannot be downloaded. pip says:\n{details}\n"
            f"To continue, {ADVICE}."
        )
    importlib.invalidate_caches()


def environment(caches: Path) -> dict[str, str]:
    """Environment for compilers: zig keeps its caches in `caches`, and messages are in English."""
    return {**_inherited(), "ZIG_GLOBAL_CACHE_DIR": str(caches), "ZIG_LOCAL_CACHE_DIR": str(caches)}


def _inherited() -> dict[str, str]:
    # Tests under a sanitizer may run a build, but compilers must not load the sanitizer's runtime.
    return {**{name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}, "LC_ALL": "C"}


def _zig() -> Compiler | None:
    if importlib.util.find_spec("ziglang") is None:
        return None
    start = _zig_start()
    ran = subprocess.run(
        [*start, "version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
    )
    if ran.returncode != 0:
        raise BuildError(f"zig does not run: {_last(ran.stderr)}. Install it again: pip install {ZIG_REQUIREMENT}")
    target = f"{platform.machine()}-linux-gnu.{ZIG_GLIBC[0]}.{ZIG_GLIBC[1]}"
    return Compiler((*start, "c++", "-target", target), "zig", ran.stdout.strip())


def _zig_start() -> tuple[str, ...]:
    return (sys.executable, "-m", "ziglang")


def _probe(command: Sequence[str]) -> Compiler:
    """Identifies a compiler by its predefined macros: one preprocessor run gives family, version and language level."""
    shown = shlex.join(command)
    try:
        ran = subprocess.run(
            [*command, "-std=c++20", "-E", "-P", "-x", "c++", "-"],
            input=_PROBE,
            env=_inherited(),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"The compiler {shown} does not run: {error}. To continue, {ADVICE}.") from error
    line = next((line for line in reversed(ran.stdout.splitlines()) if line.startswith("compiler ")), "")
    words = line.split()[1:]
    if ran.returncode != 0 or len(words) != 1 + len(_MACROS):
        raise BuildError(f"The compiler {shown} cannot compile C++20: {_last(ran.stderr)}. To continue, {ADVICE}.")
    level = int(words[0].rstrip("L"))
    # A macro that the compiler does not define is printed unchanged.
    kind: Kind = "clang++" if words[4].isdigit() else "g++"
    version = ".".join(words[4:] if kind == "clang++" else words[1:4])
    if level < _CPP20:
        raise BuildError(f"The compiler {shown} ({kind} {version}) is too old for C++20. To continue, {ADVICE}.")
    return Compiler(tuple(command), kind, version)


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it printed no message"
