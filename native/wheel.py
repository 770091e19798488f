"""Builds the portable wheel, which also runs on older systems, and tests it: `python -m native.wheel`."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from console.build import MODE_VARIABLE
from native.build import BACKEND, PLACE, ROOT
from native.compiler import CHOICE_VARIABLE, ZIG_GLIBC, BuildError
from native.elf import read_symbols

DIST = ROOT / "dist"
TRIAL = ROOT / "build" / "trial"

_TRY = """
import ctypes, json, os, sys
from pathlib import Path
import jigsaw_triton
from jigsaw_triton import errors, resources
folder = Path(jigsaw_triton.__file__).parent
assert folder.is_relative_to(sys.prefix), f"{folder} is not the installed package"
resources.templates_dir(), resources.applications_dir()
assert (folder / "console" / "assets" / "index.html").is_file(), "the wheel has no web console"
libc = ctypes.CDLL(None)
libc.dlopen.restype, libc.dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
libc.dlsym.restype, libc.dlsym.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
libc.dlerror.restype = ctypes.c_char_p
# Not ctypes.CDLL, which would resolve all functions immediately.
library = libc.dlopen(os.fsencode(folder.parent / sys.argv[1]), os.RTLD_LAZY)
assert library, libc.dlerror().decode()
print(json.dumps([name for name in json.load(sys.stdin) if not libc.dlsym(library, name.encode())]))
"""


def build_wheel(folder: Path) -> Path:
    """Builds the portable wheel with zig, which pip installs for the build only.

    Raises:
        BuildError: pip cannot build the wheel.
    """
    fresh = TRIAL / "wheel"
    shutil.rmtree(TRIAL, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    environment = {**os.environ, CHOICE_VARIABLE: "zig", MODE_VARIABLE: "require"}
    if subprocess.run([*command, "-w", str(fresh), str(ROOT)], env=environment, check=False).returncode != 0:
        raise BuildError("The wheel cannot be built. See the output of pip above.")
    (built,) = fresh.glob("*.whl")
    folder.mkdir(exist_ok=True)
    return Path(shutil.move(built, folder / built.name))


def try_wheel(wheel: Path) -> None:
    """Installs a wheel without its dependencies into an empty virtual environment, and loads the backend there.

    Raises:
        BuildError: The wheel cannot be installed, or its backend cannot be loaded.
    """
    environment = TRIAL / "venv"
    venv.create(environment, clear=True, with_pip=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    if subprocess.run([*install, str(wheel)], check=False).returncode != 0:
        raise BuildError(f"{wheel.name} cannot be installed here. See the output of pip above.")
    with zipfile.ZipFile(wheel) as archive:
        symbols = read_symbols(Path(archive.extract((PLACE / BACKEND).as_posix(), TRIAL)))
    if symbols.glibc is not None and symbols.glibc > ZIG_GLIBC:
        raise BuildError(
            f"{BACKEND} needs glibc {'.'.join(map(str, symbols.glibc))}, which is newer than the wheel's tag allows."
        )
    names = sorted(name for name in symbols.needed if not name.startswith("TRITON"))
    tried = subprocess.run(
        [python, "-I", "-c", _TRY, (PLACE / BACKEND).as_posix()],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        raise BuildError(f"{wheel.name} does not work in an empty environment:\n{tried.stderr.strip()}")
    if unresolved := json.loads(tried.stdout):
        raise BuildError(f"{BACKEND} needs symbols that no library defines: {', '.join(unresolved)}.")


def main() -> int:
    """Runs the command line and returns its exit status."""
    try:
        print("building the wheel with zig (some minutes the first time)", flush=True)
        wheel = build_wheel(DIST)
        try_wheel(wheel)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{wheel.relative_to(ROOT)}: installed and loaded in an empty environment")
    return 0


if __name__ == "__main__":
    sys.exit(main())
