"""Digests of files."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal. Blocks.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
