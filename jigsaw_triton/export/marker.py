"""The first line of exported files, by which a later export finds those that it may replace."""

from collections.abc import Mapping

MARK = "# Written by `jigsaw-triton export`, which replaces this file when it runs again."


def marked(files: Mapping[str, str]) -> dict[str, str]:
    """Returns the texts of files, each with the mark in its first line.

    Args:
        files: Text by name of the file; lines that begin with # are comments in all of them.
    """
    return {name: f"{MARK}\n{text}" for name, text in files.items()}
