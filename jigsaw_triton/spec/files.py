"""Reads and replaces users' files, and resolves the paths in them, which must stay in the file's folder."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import Diagnostic, SpecError

STDIN = "-"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that a document refers to.

    Attributes:
        path: Absolute path, with symbolic links resolved.
        inside: True if the path is in the document's folder and was written as a plain relative path.
        exists: True if the path was a regular file when it was looked up.
    """

    path: Path
    inside: bool
    exists: bool


def load_text(path: Path | str, *, limit_bytes: int) -> str:
    """Returns the text of a UTF-8 file; `-` is standard input.

    Raises:
        SpecError: The file does not exist, cannot be read, is larger than `limit_bytes` or is not UTF-8.
    """
    data = _read_bytes(path, limit_bytes + 1)
    if len(data) > limit_bytes:
        raise _error(
            path, f"the file is larger than {limit_bytes // 1024} KiB", hint="split it, or remove what is not needed"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(path, "the file is not UTF-8 text", line=line, hint="save it as UTF-8") from error


def _read_bytes(path: Path | str, size: int) -> bytes:
    if str(path) == STDIN:
        return sys.stdin.buffer.read(size)
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise _error(path, "this is not a regular file", hint="check the path")
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError as error:
        raise _error(path, "there is no such file", hint="check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _error(path, f"the file cannot be read ({reason})", hint="check the path and its permissions") from error


def replace_text(path: Path, text: str) -> None:
    """Replaces the content of a UTF-8 file in one step, or creates it. Its permissions stay.

    Args:
        path: Path of the file. If it is a symbolic link, the file that it names is replaced. A device or a pipe, such
            as /dev/stdout, is written to.
        text: New content, with the line ends to write.

    Raises:
        OSError: The file cannot be written.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", newline="")
        return
    path = path.resolve()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
        fresh = Path(folder, path.name)
        fresh.write_text(text, encoding="utf-8", newline="")
        if path.exists():
            fresh.chmod(path.stat().st_mode & 0o777)
        fresh.replace(path)


def _error(path: Path | str, message: str, *, line: int = 0, hint: str = "") -> SpecError:
    return SpecError([Diagnostic(str(path), line, message, hint)])


def locate(folder: Path, text: str) -> LocalFile:
    """Returns the file that a document refers to, which should lie in the document's folder.

    Args:
        folder: Absolute path of the document's folder, with symbolic links resolved.
        text: Path as written in the document.
    """
    written = Path(text)
    plain = bool(text) and not written.is_absolute() and ".." not in written.parts
    try:
        path = (folder / written).resolve()
        return LocalFile(path, inside=plain and path.is_relative_to(folder) and path != folder, exists=path.is_file())
    except (OSError, RuntimeError, ValueError):  # A loop of links, a name that is too long, or a null byte.
        return LocalFile(folder, inside=False, exists=False)


def locate_anywhere(folder: Path, text: str) -> LocalFile:
    """Returns the file that a document refers to, which may lie outside its folder, such as a certificate.

    Symbolic links are not resolved, because certificates are renewed by changing the links to them.

    Args:
        folder: Absolute path of the folder to which relative paths refer.
        text: Path as written in the document.
    """
    path = folder / text
    try:
        return LocalFile(path, inside=True, exists=path.is_file())
    except (OSError, ValueError):
        return LocalFile(path, inside=True, exists=False)
