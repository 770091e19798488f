"""The package that reads and signs certificates, imported on first use: a deployment on one host does not need it."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from jigsaw_triton.errors import MissingDependencyError


@dataclass(frozen=True, slots=True)
class Cryptography:
    """Modules of the package `cryptography`."""

    x509: Any
    serialization: Any
    hashes: Any
    ec: Any


@cache
def cryptography() -> Cryptography:
    """Imports the package.

    Raises:
        MissingDependencyError: The package is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        hint = "run pip install 'jigsaw-triton[agents]'"
        raise MissingDependencyError("certificates need the package cryptography", hint=hint) from error
    return Cryptography(x509, serialization, hashes, ec)
