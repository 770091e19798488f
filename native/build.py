"""Builds the compiled backend: `python -m native.build` installs it where the package loads it from.

tritonserver loads `libtriton_jigsaw.so`, built from `core/`, `onnx/` and `triton/`. Functions of Triton stay undefined
in it, because the server that loads it defines them. `libjigsaw_private.so`, built from `preload/`, is loaded before
the server itself. Tests load `libjigsaw_core_testing.so`, which also contains the fake server in `testing/`.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from native.compiler import BuildError, Compiler, fetch_zig, find_compiler, missing_requirements
from native.objects import Unit, compile_units, run

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "native"
FOLDER = ROOT / "build" / "native"
BACKEND = "libtriton_jigsaw.so"
PRELOAD = "libjigsaw_private.so"
TESTING = "libjigsaw_core_testing.so"
PLACE = Path("jigsaw_triton", "_native")
"""Folder of the libraries inside a checkout and inside a wheel."""

Sanitizer = Literal["address", "thread"]
"""Sanitizer: `address` is AddressSanitizer with UndefinedBehaviorSanitizer, `thread` is ThreadSanitizer."""

SANITIZER_VARIABLE = "JIGSAW_SANITIZER"
"""Environment variable that chooses the sanitizer of `build_testing`."""

_BACKEND_EXPORTS = "{ global: TRITONBACKEND_*; jigsaw_build_*; local: *; };\n"
_PRELOAD_EXPORTS = "{ global: fchmod; local: *; };\n"
_OPTIMISED = ("-O2", "-g0")
_INSTRUMENTED = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
# g++ gives false warnings of these kinds about its own library; AddressSanitizer finds the real errors.
_FALSE_ALARMS = ("-Wno-array-bounds", "-Wno-restrict", "-Wno-stringop-overflow", "-Wno-stringop-overread")
# Before glibc 2.34, dlopen() is in a library of its own.
_LIBRARIES = ("-ldl",)
_SANITIZE = {"address": "-fsanitize=address,undefined", "thread": "-fsanitize=thread"}


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library to build.

    Attributes:
        name: Name of the file.
        parts: Folders of its sources.
        exports: Version script of the linker, which names the exported symbols; empty to export all.
        sanitizer: Sanitizer to instrument it for; None for none.
        strict: True if a warning of the compiler is an error.
    """

    name: str
    parts: tuple[str, ...]
    exports: str = ""
    sanitizer: Sanitizer | None = None
    strict: bool = True


def build_backend(
    *, sources: Path = SOURCES, folder: Path = FOLDER, compiler: Compiler | None = None, strict: bool = True
) -> tuple[Path, Path]:
    """Builds the backend and the library that servers preload; does nothing if they are up to date.

    Args:
        sources: Folder that contains the sources `core`, `onnx`, `triton` and `preload`.
        folder: Folder of outputs and caches.
        compiler: Compiler to use; None finds one.
        strict: True if a warning of the compiler is an error.

    Returns:
        Paths of the two libraries inside `folder`.

    Raises:
        BuildError: There is no compiler, or something does not compile.
    """
    compiler = compiler or find_compiler()
    backend = Library(BACKEND, ("core", "onnx", "triton"), _BACKEND_EXPORTS, strict=strict)
    preload = Library(PRELOAD, ("preload",), _PRELOAD_EXPORTS, strict=strict)
    return _build(backend, sources, folder, compiler), _build(preload, sources, folder, compiler)


def build_testing(
    *,
    sanitizer: Sanitizer | None = None,
    sources: Path = SOURCES,
    folder: Path = FOLDER,
    compiler: Compiler | None = None,
) -> Path:
    """Builds the library that tests load; does nothing if it is up to date.

    Args:
        sanitizer: Sanitizer to instrument it for; None takes JIGSAW_SANITIZER from the environment, else none. An
            instrumented library loads only if LD_PRELOAD names the sanitizer's runtime (`native.sanitize`).
        sources: Folder that contains the sources `core`, `onnx`, `triton` and `testing`.
        folder: Folder of outputs and caches.
        compiler: Compiler to use; None finds one.

    Returns:
        Path of the library inside `folder`.

    Raises:
        BuildError: There is no compiler, or something does not compile.
    """
    chosen = sanitizer or _sanitizer(os.environ.get(SANITIZER_VARIABLE, ""))
    library = Library(TESTING, ("core", "onnx", "triton", "testing"), sanitizer=chosen)
    return _build(library, sources, folder, compiler or find_compiler())


def install(library: Path, target: Path) -> bool:
    """Copies a library to the path that it is loaded from.

    An old file is replaced, never overwritten, because processes may have it mapped.

    Returns:
        True if the file has changed.
    """
    content = library.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.chmod(0o755)
    temporary.replace(target)
    return True


def package_version(root: Path = ROOT) -> str:
    """Reads the version of the package from its sources."""
    text = (root / "jigsaw_triton" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise BuildError(f"{root / 'jigsaw_triton' / '__init__.py'} has no line with __version__.")
    return match[1]


def _build(library: Library, sources: Path, folder: Path, compiler: Compiler) -> Path:
    sources, folder = sources.resolve(), folder.resolve()
    if library.sanitizer and compiler.kind == "zig":
        raise BuildError("zig has no sanitizer runtimes. Install g++, or name another compiler with CXX=...")
    files = [path.relative_to(sources) for part in library.parts for path in sorted((sources / part).glob("*.cc"))]
    for part in library.parts:
        if not any(file.parts[0] == part for file in files):
            raise BuildError(f"There are no C++ sources in {sources / part}.")
    flags = _compile_flags(library, compiler, sources)
    output = folder / f"{compiler.kind}-{library.sanitizer or 'release'}"
    with _lock(folder):
        units = [Unit(file, flags) for file in files]
        objects = compile_units(compiler, units, sources, output / "objects", folder / "zig")
        target = _link(library, compiler, objects, output, folder / "zig")
        _drop_old_objects(files, objects)
    return target


def _compile_flags(library: Library, compiler: Compiler, sources: Path) -> tuple[str, ...]:
    return (
        "-std=c++20",
        *(_INSTRUMENTED if library.sanitizer else _OPTIMISED),
        *([_SANITIZE[library.sanitizer]] if library.sanitizer else []),
        "-fPIC",
        "-pthread",
        # Symbols must stay visible to the linker, because Triton's entry points carry no export attribute. The version
        # script hides the others. With this flag the compiler may still optimise calls as if symbols were hidden.
        "-fno-semantic-interposition",
        "-fvisibility-inlines-hidden",
        *(["-fno-gnu-unique"] if compiler.kind == "g++" else []),
        *("-Wall", "-Wextra", "-Wdate-time"),
        *(_FALSE_ALARMS if compiler.kind == "g++" else []),
        *(["-Werror"] if library.strict and compiler.kind != "zig" else []),
        f"-ffile-prefix-map={sources}=native",
        "-I.",
        f'-DJIGSAW_VERSION="{package_version()}"',
        f'-DJIGSAW_COMPILER="{compiler.name}"',
        *shlex.split(os.environ.get("CXXFLAGS", "")),
    )


def _link(library: Library, compiler: Compiler, objects: Sequence[Path], output: Path, caches: Path) -> Path:
    exports = output / f"{library.name}.map"
    flags = ["-shared", "-pthread", f"-Wl,-soname,{library.name}", "-Wl,--build-id=none", "-Wl,--as-needed"]
    if library.exports:
        # Lazy binding resolves functions of Triton at their first call, so `doctor` can load the library without a
        # server.
        flags += ["-Wl,-z,lazy", "-Wl,-z,defs", f"-Wl,--version-script={exports.name}"]
        flags += ["-Wl,--gc-sections", "-Wl,--strip-debug"]
        # libstdc++ is linked statically, so the server's own libstdc++ may be older.
        flags += [] if compiler.kind == "zig" else ["-static-libstdc++", "-static-libgcc"]
    else:
        flags.append("-Wl,-z,defs" if not library.sanitizer else _SANITIZE[library.sanitizer])
    flags += shlex.split(os.environ.get("LDFLAGS", ""))
    target, record = output / library.name, output / f"{library.name}.key"
    key = hashlib.sha256(
        repr((compiler.identity, flags, _LIBRARIES, library.exports, [path.name for path in objects])).encode()
    ).hexdigest()
    if target.is_file() and record.is_file() and record.read_text(encoding="utf-8") == key:
        return target
    exports.write_text(library.exports, encoding="utf-8")
    temporary = output / f".{library.name}.new"
    names = [path.relative_to(output).as_posix() for path in objects]
    ran = run([*compiler.command, *flags, "-o", temporary.name, *names, *_LIBRARIES], output, caches)
    if ran.returncode != 0:
        raise BuildError(f"{library.name} cannot be linked by {compiler.name}:\n{ran.stderr.strip()}")
    temporary.replace(target)
    record.write_text(key, encoding="utf-8")
    return target


def _drop_old_objects(files: Sequence[Path], objects: Sequence[Path]) -> None:
    """Removes outdated objects of the same sources."""
    current = {path.name for path in objects}
    prefixes = {".".join(file.with_suffix("").parts) for file in files}
    for path in objects[0].parent.glob("*.o"):
        if path.name not in current and path.name.rpartition("-")[0] in prefixes:
            path.unlink()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Locks the folder against concurrent builds; the kernel releases the lock if this process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sanitizer(name: str) -> Sanitizer | None:
    for known in get_args(Sanitizer):
        if name == known:
            return known  # type: ignore[no-any-return]  # get_args returns Any
    if name:
        raise BuildError(f"The sanitizer {name!r} is unknown. Set {SANITIZER_VARIABLE} to address or thread.")
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m native.build", description="Build the compiled backend.")
    parser.add_argument(
        "what", nargs="?", choices=("backend", "testing"), default="backend", help="Choose the libraries to build."
    )
    parser.add_argument("--compiler", choices=("auto", "zig"), help="Choose the kind of compiler.")
    parser.add_argument("--sanitizer", choices=get_args(Sanitizer), help="Instrument the library for tests.")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="Copy what is built to this folder.")
    parser.add_argument("--fetch", action="store_true", help="Install zig with pip if there is no compiler.")
    parser.add_argument("--no-werror", action="store_true", help="Accept compiler warnings.")
    options = parser.parse_args(arguments)
    try:
        if options.fetch and missing_requirements(options.compiler):
            print("no C++ compiler is installed; installing zig with pip (about 100 MB)", flush=True)
            fetch_zig()
        compiler = find_compiler(options.compiler)
        if options.what == "testing":
            libraries: tuple[Path, ...] = (build_testing(sanitizer=options.sanitizer, compiler=compiler),)
        else:
            libraries = build_backend(compiler=compiler, strict=not options.no_werror)
        folder = options.output or (ROOT / PLACE if options.what == "backend" else None)
        for library in libraries:
            if folder is None:
                print(library)
            elif install(library, folder / library.name):
                print(f"{library.name}: built with {compiler.name}")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
