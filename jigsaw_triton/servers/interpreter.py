"""Makes Triton's python stubs run this interpreter with its packages.

A stub embeds Python and ignores all PYTHON* variables (measured with tritonserver 24.10). Like any Python, it derives
its prefix from the first `python3` on PATH, and it finds `libpython3.X.so.1.0` through the loader's search path. A
folder with the layout of a virtual environment that comes first on both therefore decides which packages a stub sees.
"""

import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import jigsaw_triton
from jigsaw_triton.errors import MissingDependencyError
from jigsaw_triton.packages import build_folder, cache_dir
from jigsaw_triton.runtime.spec import PACKAGES_VARIABLE

INSIDE = Path("/opt/jigsaw-triton")
"""Folder in containers into which this package is mounted."""

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Version of the running interpreter: `3.11`."""


def shared_library() -> Path:
    """Returns the shared library of the running interpreter.

    Raises:
        MissingDependencyError: The interpreter has no shared library.
    """
    name = f"libpython{VERSION}.so.1.0"
    folders = [Path(sys.base_prefix) / "lib"]
    if libdir := sysconfig.get_config_var("LIBDIR"):
        folders = [Path(libdir), Path(libdir) / (sysconfig.get_config_var("MULTIARCH") or ""), *folders]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise MissingDependencyError(
        f"this Python has no shared library {name}, which Triton's Python backend needs",
        where=sys.executable,
        hint=f"on Debian and Ubuntu: apt-get install libpython{VERSION}; "
        f"with pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {VERSION}",
    )


def prepare() -> Path:
    """Creates the folder in the cache that represents this interpreter, unless it exists.

    Returns:
        The folder, whose `bin` must come first on PATH and whose `lib` must come first on LD_LIBRARY_PATH.

    Raises:
        MissingDependencyError: The interpreter has no shared library.
        ArtifactError: The cache cannot be written.
    """
    library = shared_library()
    files = {f"lib/python{VERSION}/site-packages/jigsaw.pth": _path_file(), "pyvenv.cfg": _config()}
    links = {"bin/python3": _base_executable(), f"lib/{library.name}": library}
    return _folder(f"python{VERSION}", files, links)


def prepare_inside(version: str) -> Path:
    """Creates the folder in the cache that represents a container's interpreter, unless it exists.

    The folder refers to paths in the container: its own Python with its own packages, and this package.

    Args:
        version: Version of the Python at /usr/bin/python3 in the container: `3.10`.

    Returns:
        The folder, which must be mounted at the same path, and whose `bin` must come first on PATH in the container.

    Raises:
        ArtifactError: The cache cannot be written.
    """
    lines = f"{INSIDE}\nimport sys; sys.dont_write_bytecode = True\n"
    files = {
        f"lib/python{version}/site-packages/jigsaw.pth": lines,
        "pyvenv.cfg": "home = /usr/bin\ninclude-system-site-packages = true\n",
    }
    return _folder(f"inside-python{version}", files, {"bin/python3": Path("/usr/bin/python3")})


def environment(folder: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables through which a server finds this interpreter and its packages.

    Args:
        folder: Folder that `prepare` created, which comes first on PATH and LD_LIBRARY_PATH.
        inherited: Variables that the server inherits.
    """
    return {
        "PATH": _join(folder / "bin", inherited.get("PATH", os.defpath)),
        "LD_LIBRARY_PATH": _join(folder / "lib", inherited.get("LD_LIBRARY_PATH", "")),
        PACKAGES_VARIABLE: os.pathsep.join(package_folders()),
    }


def package_folders() -> list[str]:
    """Returns the folders of the installed packages, in the order of the interpreter's search path."""
    folders = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [folder for folder in [*folders, *site.getsitepackages()] if Path(folder).is_dir()]


def _folder(name: str, files: Mapping[str, str], links: Mapping[str, Path]) -> Path:
    key = hashlib.sha256(repr((sorted(files.items()), sorted(links.items()))).encode()).hexdigest()[:12]
    folder = cache_dir() / "interpreters" / f"{name}-{key}"
    build_folder(folder, lambda fresh: _write(fresh, files, links))
    return folder


def _join(first: Path, rest: str) -> str:
    return f"{first}{os.pathsep}{rest}" if rest else str(first)


def _write(folder: Path, files: Mapping[str, str], links: Mapping[str, Path]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)


def _base_executable() -> Path:
    """Returns the interpreter outside any virtual environment."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _config() -> str:
    return f"home = {_base_executable().parent}\ninclude-system-site-packages = false\n"


def _path_file() -> str:
    """Returns the text of a .pth file that adds this package and then all installed ones.

    The module `site` executes lines of a .pth file that begin with `import`.
    """
    package = Path(jigsaw_triton.__file__).resolve().parent.parent
    # A __pycache__ in a model's version folder would change its time stamp, and Triton would reload the model.
    lines = [str(package), "import sys; sys.dont_write_bytecode = True"]
    lines += [f"import site; site.addsitedir({folder!r})" for folder in package_folders()]
    return "\n".join(lines) + "\n"
