"""Builds the web console: `python -m console.build` puts its assets where the package serves them from.

The assets are built only if the sources or the lockfile have changed. `--types` checks the types instead.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from console.node import BuildError, Node, provide_node, run

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "console"
FOLDER = ROOT / "build" / "console"
PLACE = Path("jigsaw_triton", "console", "assets")
"""Folder of the assets inside a checkout and inside a wheel."""

MODE_VARIABLE = "JIGSAW_CONSOLE"
"""Environment variable for installations: `require` fails without the console, `skip` leaves it out."""

_NODE = "node"
"""Folder of a Node.js that was downloaded, inside the folder of outputs and caches."""

_PACKAGES_STAMP = Path("node_modules", ".jigsaw")
"""File among the installed packages with the digest of their lockfile."""

_INPUTS = ("package.json", "package-lock.json", "build.mjs", "tsconfig.json", "src")
_NPM_OPTIONS = (
    # No package needs its installation scripts, and such a script could do anything.
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    # By default npm tries for minutes before it reports that there is no network.
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=5000",
)
_INSTALL_TIMEOUT_S = 600.0
_BUILD_TIMEOUT_S = 300.0


def build(*, sources: Path = SOURCES, folder: Path = FOLDER, develop: bool = False) -> Path:
    """Builds the assets; does nothing if they are up to date.

    Args:
        sources: Folder with package.json, the lockfile and `src`.
        folder: Folder of outputs and caches.
        develop: True to also install the packages that only types and tests need.

    Returns:
        Folder of the assets inside `folder`.

    Raises:
        BuildError: There is no Node.js, the packages cannot be downloaded, or the bundler fails.
    """
    assets, stamp = folder / "assets", folder / "digest"
    wanted = digest(sources)
    with _locked(folder):
        current = _read(stamp) == wanted and (assets / "index.html").is_file()
        if current and (not develop or _has_packages(sources, develop=True)):
            return assets
        node = provide_node(folder / _NODE)
        _install_packages(sources, node, develop=develop)
        if current:
            return assets
        fresh = folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        failure = "The console cannot be built. The bundler says:"
        run(node.command("build.mjs", str(fresh)), sources, node, failure=failure, timeout_s=_BUILD_TIMEOUT_S)
        # After an interruption, incomplete assets must not count as those of the sources.
        stamp.unlink(missing_ok=True)
        shutil.rmtree(assets, ignore_errors=True)
        fresh.rename(assets)
        stamp.write_text(wanted, encoding="utf-8")
    return assets


def install(assets: Path, target: Path) -> bool:
    """Copies the assets to the folder that they are served from. Returns True if a file has changed."""
    target.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in assets.iterdir()}
    changed = False
    for path in [path for path in target.iterdir() if path.name not in names]:
        path.unlink()
        changed = True
    for name in sorted(names):
        content = (assets / name).read_bytes()
        if (target / name).is_file() and (target / name).read_bytes() == content:
            continue
        # A running console may read the file at this moment, so it is replaced as a whole.
        temporary = target / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        temporary.replace(target / name)
        changed = True
    return changed


def check_types(sources: Path = SOURCES) -> None:
    """Checks the types of the sources.

    Raises:
        BuildError: The types are wrong, or the compiler cannot be installed.
    """
    with _locked(FOLDER):
        node = provide_node(FOLDER / _NODE)
        _install_packages(sources, node, develop=True)
    compiler = node.command(
        str(sources / "node_modules" / "typescript" / "bin" / "tsc"), "--noEmit", "--pretty", "false"
    )
    run(compiler, sources, node, failure="The types of the console are wrong:", timeout_s=_BUILD_TIMEOUT_S)


def digest(sources: Path) -> str:
    """Returns a digest of all files that the assets are built from."""
    found = hashlib.sha256()
    for name in _INPUTS:
        path = sources / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                content = file.read_bytes()
                found.update(f"{file.relative_to(sources)} {len(content)}\n".encode())
                found.update(content)
    return found.hexdigest()


def _install_packages(sources: Path, node: Node, *, develop: bool) -> None:
    """Installs exactly the packages of the lockfile, without their scripts, unless they are there."""
    if _has_packages(sources, develop=develop):
        return
    options = [*_NPM_OPTIONS, *([] if develop else ["--omit=dev"])]
    failure = (
        "The packages of the console cannot be installed. They are downloaded from the npm registry once; "
        "a wheel of jigsaw-triton needs neither them nor a network. npm says:"
    )
    stamp = sources / _PACKAGES_STAMP
    stamp.unlink(missing_ok=True)
    run(node.npm_command("ci", *options), sources, node, failure=failure, timeout_s=_INSTALL_TIMEOUT_S)
    stamp.write_text(f"{_lockfile_digest(sources)} {'develop' if develop else ''}\n", encoding="utf-8")


def _has_packages(sources: Path, *, develop: bool) -> bool:
    """Returns True if the packages of the lockfile are installed."""
    known = _read(sources / _PACKAGES_STAMP).split()
    return known[:1] == [_lockfile_digest(sources)] and (not develop or "develop" in known)


def _lockfile_digest(sources: Path) -> str:
    return hashlib.sha256((sources / "package-lock.json").read_bytes()).hexdigest()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lets one build at a time work in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Runs the command line and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m console.build", description="Builds the web console.")
    parser.add_argument("--types", action="store_true", help="check the types instead")
    arguments = parser.parse_args()
    if os.environ.get(MODE_VARIABLE) == "skip":
        print(f"the console is left out, because {MODE_VARIABLE} is skip", file=sys.stderr)
        return 0
    try:
        if arguments.types:
            check_types()
            return 0
        if install(build(develop=True), ROOT / PLACE):
            print(f"{PLACE}: the web console is built")
    except BuildError as error:
        print(f"{error}\nTo continue without the console, set {MODE_VARIABLE}=skip.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
