"""Digest of the model of a variant, to find out if it has changed since it was measured."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from jigsaw_triton.graph.model import Variant

DIGITS = 12
"""Hexadecimal digits of a digest: enough to tell the versions of one model apart."""


def model_digest(variant: Variant, identity: Callable[[Path], str]) -> str:
    """Returns the digest of all that decides what a variant computes: template, parameters, and the files' content.

    Args:
        variant: The variant.
        identity: Function that maps a file's path to a string that identifies its content.

    Returns:
        The first `DIGITS` digits of a SHA-256; empty for a variant without files, such as an emulated one.

    Raises:
        InputError: A file cannot be read.
    """
    if not variant.artifacts:
        return ""
    files = {name: identity(path) for name, path in sorted(variant.artifacts.items())}
    parts = [variant.template, dict(sorted(variant.parameters.items())), files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:DIGITS]
