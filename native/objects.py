"""Incremental compilation: a source is recompiled only if the contents of its inputs have changed."""

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from native.compiler import BuildError, Compiler, environment

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Unit:
    """A source file and the flags to compile it with.

    Attributes:
        source: Path of the file, relative to the folder of sources.
        flags: Flags of the compiler.
    """

    source: Path
    flags: tuple[str, ...]


def compile_units(compiler: Compiler, units: Sequence[Unit], sources: Path, folder: Path, caches: Path) -> list[Path]:
    """Compiles the files that have changed, in parallel.

    Args:
        compiler: Compiler to run.
        units: Files to compile.
        sources: Folder of sources. The compiler runs in it, so that objects contain no absolute path.
        folder: Folder of the objects; the caller must exclude other processes.
        caches: Folder of the compiler's own caches.

    Returns:
        Paths of the objects, in the order of the units. The name of an object contains a hash of its inputs.

    Raises:
        BuildError: A file does not compile. The message has the compiler's output for each such file.
    """
    objects = [folder / _object_name(compiler, unit, sources) for unit in units]
    stale = [(unit, target) for unit, target in zip(units, objects, strict=True) if not target.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        errors = list(pool.map(lambda job: _compile(compiler, job[0], sources, job[1], caches), stale))
    if found := [error for error in errors if error]:
        raise BuildError("\n".join(found))
    return objects


def run(command: Iterable[str], cwd: Path, caches: Path) -> subprocess.CompletedProcess[str]:
    """Runs a compiler or linker in `cwd`, with its own caches in `caches`."""
    return subprocess.run(
        list(command),
        cwd=cwd,
        env=environment(caches),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _compile(compiler: Compiler, unit: Unit, sources: Path, target: Path, caches: Path) -> str:
    """Compiles one file; returns an error message, or an empty string."""
    temporary = target.with_name(f".{target.name}.new")
    command = [*compiler.command, *unit.flags, "-c", unit.source.as_posix(), "-o", str(temporary)]
    ran = run(command, sources, caches)
    if ran.returncode != 0:
        temporary.unlink(missing_ok=True)
        return f"{unit.source} does not compile: {shlex.join(command)}\n{ran.stderr.strip()}"
    temporary.replace(target)
    return ""


def _object_name(compiler: Compiler, unit: Unit, sources: Path) -> str:
    digest = hashlib.sha256(repr((compiler.identity, unit.flags)).encode())
    for file in sorted(_with_includes(unit.source, sources)):
        digest.update(f"\0{file.as_posix()}\0".encode())
        digest.update(hashlib.sha256((sources / file).read_bytes()).digest())
    return f"{'.'.join(unit.source.with_suffix('').parts)}-{digest.hexdigest()[:20]}.o"


def _with_includes(source: Path, sources: Path) -> set[Path]:
    """Returns a file and all files of the sources that it includes, directly or not; conditions are ignored."""

    @cache
    def included(file: Path) -> tuple[Path, ...]:
        try:
            text = (sources / file).read_text(encoding="utf-8")
        except OSError as error:
            raise BuildError(f"{sources / file} cannot be read: {error.strerror}.") from error
        names = _INCLUDE.findall(text)
        near = (Path(os.path.normpath(file.parent / name)) for name in names)
        found = (path if (sources / path).is_file() else Path(name) for path, name in zip(near, names, strict=True))
        return tuple(path for path in found if (sources / path).is_file())

    seen, waiting = set[Path](), [source]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting.extend(included(file))
    return seen
