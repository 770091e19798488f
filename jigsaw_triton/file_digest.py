"""Digests of files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

_PIECE_BYTES = 2**20


def sha256_of(path: Path, check: Callable[[], None] = lambda: None) -> str:
    """Returns the SHA-256 of a file in hexadecimal. Blocks.

    Args:
        path: The file.
        check: Function that is called after each piece. It may raise an error, which ends the call.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            check()
    return digest.hexdigest()
