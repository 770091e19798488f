"""Changes of files that are undone if a later one fails."""

import errno
import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jigsaw_triton.errors import InputError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns failures to write a path into an `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "free space on its disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another folder"
        raise InputError(f"this cannot be written ({reason})", where=str(path), hint=hint) from error


def kept_path(target: Path) -> Path:
    """Returns the path at which a file is kept while another replaces it."""
    return target.with_name(f".{target.name}.before")


def restore(target: Path) -> bool:
    """Puts back a file that was being replaced when the process was killed. Returns false if there is none."""
    kept = kept_path(target)
    if not os.path.lexists(kept):
        return False
    with writing(target):
        kept.replace(target)
    return True


class Undo:
    """Creates files and folders, and removes them again if the block raises.

    Attributes:
        made: Files that were created or replaced.
    """

    def __init__(self) -> None:
        self.made: list[Path] = []
        self._folders: list[Path] = []
        self._before: dict[Path, Path] = {}

    def __enter__(self) -> "Undo":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            for path in self.made:
                path.unlink(missing_ok=True)
            for path, kept in self._before.items():
                kept.replace(path)
            for folder in reversed(self._folders):
                with suppress(OSError):
                    folder.rmdir()
        else:
            for kept in self._before.values():
                kept.unlink(missing_ok=True)

    def folder(self, folder: Path) -> None:
        """Creates a folder and those that contain it."""
        with writing(folder):
            for path in reversed([folder, *folder.parents]):
                if not path.is_dir():
                    path.mkdir()
                    self._folders.append(path)

    def copy(self, source: Path, target: Path, *, hint: str, replace: bool = False) -> None:
        """Copies a file, unless the target has its content already.

        Args:
            source: File to copy.
            target: Path of the copy, which appears when it is complete.
            hint: Advice if the target is another file.
            replace: True if another file at the target is replaced.

        Raises:
            InputError: The target is another file that is not to be replaced, or cannot be written.
        """
        self.folder(target.parent)
        with writing(target):
            present = os.path.lexists(target)  # A dangling link counts as present: writing would follow it.
            if present:
                if target.is_file() and filecmp.cmp(source, target, shallow=False):
                    return
                if not replace:
                    raise InputError("another file is there already", where=str(target), hint=hint)
            part = target.with_name(f".{target.name}.part")
            part.unlink(missing_ok=True)  # A process that was killed may have left it.
            try:
                with source.open("rb") as content, part.open("xb") as copy:
                    shutil.copyfileobj(content, copy)
                if present:
                    # A copy that a killed process left holds the file's content from before that process.
                    kept = kept_path(target)
                    if not os.path.lexists(kept):
                        os.link(target, kept, follow_symlinks=False)
                    self._before[target] = kept
                self.made.append(target)
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
