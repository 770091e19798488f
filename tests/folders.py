"""Folders that tests compare."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Returns path below the folder -> content, for all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
