"""Files with which a node proves its identity to the other nodes of its deployment."""

from dataclasses import dataclass
from pathlib import Path

CERT, KEY, CA = "cert.pem", "key.pem", "ca.pem"
"""Names of the files in a folder that `jigsaw-triton certificates issue` writes."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM files of a node, as absolute paths.

    Attributes:
        cert: Certificate of the node with its intermediates.
        key: Private key of the certificate, which only its owner may read.
        ca: Certificates of the authorities that the node trusts. Every holder of a certificate of theirs may call the
            node's workers, so an authority belongs to one deployment.
    """

    cert: Path
    key: Path
    ca: Path


def credentials_in(folder: Path) -> Credentials:
    """Returns the credentials in a folder that `jigsaw-triton certificates issue` wrote. Reads no file."""
    return Credentials(folder / CERT, folder / KEY, folder / CA)


def identity(node: str) -> str:
    """Returns the DNS name that the certificate of a node carries. No node can use the certificate of another one.

    The name is no name of a host, so a certificate for a host does not stand for the node that is called the same.
    """
    return f"{node}.node.jigsaw-triton"
