"""Writing exported files: all or none, and none of somebody else's."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.export.marker import MARK


def write_exported(folder: Path, files: Mapping[str, str], *, overwrite: bool, alone: bool = False) -> None:
    """Writes files into a folder, which is created if it is missing.

    All texts are on the disk before the first file is replaced, so that a full disk leaves the folder as it was.

    Args:
        folder: Folder to write to.
        files: Text by name of the file.
        overwrite: True to replace files that no export wrote, too.
        alone: True to remove other files of an earlier export from the folder.

    Raises:
        InputError: The folder cannot be written, or has a file that may not be replaced.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            if (folder / name).exists() and not (folder / name).is_file():
                hint = "choose another path; without -O, one file is written to standard output"
                raise InputError("this is not a regular file", where=str(folder / name), hint=hint)
            if not overwrite and (folder / name).exists() and not _is_exported(folder / name):
                hint = "choose another path, or replace it with --overwrite"
                raise InputError("`jigsaw-triton export` did not write this file", where=str(folder / name), hint=hint)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
            for name, text in files.items():
                Path(part, name).write_text(text, encoding="utf-8")
            for name in files:
                Path(part, name).replace(folder / name)
        if alone:
            for other in sorted(folder.iterdir()):
                if other.name not in files and other.is_file() and _is_exported(other):
                    other.unlink()
    except OSError as error:
        raise InputError(
            f"the folder cannot be written ({error.strerror})", where=str(folder), hint="choose another path"
        ) from error


def _is_exported(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(len(MARK) + 1).rstrip(b"\n") == MARK.encode()
