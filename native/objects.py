"""Incremental compilation: an object file is compiled again only if its inputs have other contents."""

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
    """One source file and how it is compiled.

    Attributes:
        source: Path of the file, relative to the folder of sources.
        flags: Flags of the compiler.
    """

    source: Path
    flags: tuple[str, ...]


def compile_units(compiler: Compiler, units: Sequence[Unit], sources: Path, folder: Path, caches: Path) -> list[Path]:
    """Compiles what has changed, in parallel.

    Args:
        compiler: Compiler to run.
        units: Files to compile.
        sources: Folder of sources, in which the compiler runs: no absolute path gets into the objects.
        folder: Folder of the objects, written by one process at a time.
        caches: Folder of the compiler's own caches.

    Returns:
        Paths of the objects, in the order of the units. The name of an object changes with its inputs.

    Raises:
        BuildError: A file does not compile; the message has what the compiler said about each that does not.
    """
    objects = [folder / _object_name(compiler, unit, sources) for unit in units]
    stale = [(unit, target) for unit, target in zip(units, objects, strict=True) if not target.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        stories = list(pool.map(lambda job: _compile(compiler, job[0], sources, job[1], caches), stale))
    if failures := [story for story in stories if story]:
        raise BuildError("\n".join(failures))
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
    """Compiles one file; empty if that worked, else what the compiler said."""
    fresh = target.with_name(f".{target.name}.new")
    command = [*compiler.command, *unit.flags, "-c", unit.source.as_posix(), "-o", str(fresh)]
    ran = run(command, sources, caches)
    if ran.returncode != 0:
        fresh.unlink(missing_ok=True)
        return f"{unit.source} does not compile: {shlex.join(command)}\n{ran.stderr.strip()}"
    fresh.replace(target)
    return ""


def _object_name(compiler: Compiler, unit: Unit, sources: Path) -> str:
    digest = hashlib.sha256(repr((compiler.identity, unit.flags)).encode())
    for file in sorted(_closure(unit.source, sources)):
        digest.update(f"\0{file.as_posix()}\0".encode())
        digest.update(hashlib.sha256((sources / file).read_bytes()).digest())
    return f"{'.'.join(unit.source.with_suffix('').parts)}-{digest.hexdigest()[:20]}.o"


def _closure(source: Path, sources: Path) -> set[Path]:
    """A file and all that it includes from the folder of sources, directly or not, whatever the conditions."""

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
