"""Reading what users wrote from disk, and keeping the paths in it inside their folder."""

import sys
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import Diagnostic, SpecError

STDIN = "-"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that a document refers to.

    Attributes:
        path: Absolute, symbolic links resolved.
        inside: Whether that is in the document's folder, and was written as a plain relative path.
        exists: Whether it is a regular file now.
    """

    path: Path
    inside: bool
    exists: bool


def load_text(path: Path | str, *, limit_bytes: int) -> str:
    """The text of a UTF-8 file; `-` is standard input.

    Raises:
        SpecError: It is not there, cannot be read, is longer than `limit_bytes` or is not UTF-8.
    """
    data = _read_bytes(path, limit_bytes + 1)
    if len(data) > limit_bytes:
        raise _error(
            path, f"the file is larger than {limit_bytes // 1024} KiB", hint="split it or remove what is not needed"
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
            raise _error(path, "this is not a regular file")
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError as error:
        raise _error(path, "there is no such file", hint="check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _error(path, f"the file cannot be read ({reason})", hint="check the path and its permissions") from error


def _error(path: Path | str, message: str, *, line: int = 0, hint: str = "") -> SpecError:
    return SpecError([Diagnostic(str(path), line, message, hint)])


def locate(folder: Path, text: str) -> LocalFile:
    """The file that `text` names in a document of `folder`.

    Args:
        folder: Absolute, symbolic links resolved.
        text: As written in the document.
    """
    written = Path(text)
    plain = bool(text) and not written.is_absolute() and ".." not in written.parts
    try:
        path = (folder / written).resolve()
        return LocalFile(path, inside=plain and path.is_relative_to(folder) and path != folder, exists=path.is_file())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name too long, a zero byte
        return LocalFile(folder, inside=False, exists=False)


def named(folder: Path, text: str) -> LocalFile:
    """The file that `text` names, which may lie outside the folder: an operator's certificate, for one.

    Args:
        folder: Absolute; relative paths start there.
        text: As written in the document. Links are kept, since certificates are renewed by changing them.
    """
    path = folder / text
    try:
        return LocalFile(path, inside=True, exists=path.is_file())
    except (OSError, ValueError):
        return LocalFile(path, inside=True, exists=False)
