"""Files with which a node proves its identity to the other nodes of its deployment, and their checks.

HAProxy checks most of this, too, but its errors name neither the file that is wrong nor what to do.
"""

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.certificates.library import cryptography

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

CERT, KEY, CA = "cert.pem", "key.pem", "ca.pem"
"""Names of the files in a folder that `jigsaw-triton certificates issue` writes."""

REMIND_BEFORE = timedelta(days=30)
"""Time before a certificate expires from which its owner is reminded."""

_IDENTITY_END = ".node.jigsaw-triton"
_LONGEST_CHAIN = 8


CONTROLLER = "controller"
"""Common name in the certificate of the controller, which alone may command agents."""


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


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """Content of a certificate.

    Attributes:
        subject: Common name of its owner, or the whole subject if there is none.
        issuer: Common name of the authority that issued it, or its whole subject.
        nodes: Names of the nodes for which the deployment's own authority issued it.
        hosts: Other names and addresses of hosts for which it is valid.
        begins: Time from which it is valid.
        expires: Time until which it is valid.
    """

    subject: str
    issuer: str
    nodes: tuple[str, ...]
    hosts: tuple[str, ...]
    begins: datetime
    expires: datetime


def credentials_in(folder: Path) -> Credentials:
    """Returns the credentials in a folder that `jigsaw-triton certificates issue` wrote. Reads no file."""
    return Credentials(folder / CERT, folder / KEY, folder / CA)


def identity(node: str) -> str:
    """Returns the DNS name that the certificate of a node carries. No node can use the certificate of another one.

    The name is no name of a host, so a certificate for a host does not stand for the node that is called the same.
    """
    return f"{node}{_IDENTITY_END}"


def check_credentials(credentials: Credentials, node: str = "", *, now: datetime | None = None) -> datetime:
    """Checks the files of a node before HAProxy reads them. Blocks.

    Args:
        credentials: Files to check.
        node: Name of the node; empty if it does not matter.
        now: Present time; None for that of the clock.

    Returns:
        Time at which the first of the certificates expires.

    Raises:
        InputError: A file cannot be read, is no PEM file, has expired, or does not fit the others.
        MissingDependencyError: The package `cryptography` is missing.
    """
    now = now or datetime.now(UTC)
    chain, trusted = read_certificates(credentials.cert), read_certificates(credentials.ca)
    check_key(credentials.key, chain[0], credentials.cert)
    check_time(chain[0], credentials.cert, now)
    issuers = _issuers(chain, trusted, credentials)
    for issuer in issuers:
        check_time(issuer, credentials.ca if issuer in trusted else credentials.cert, now)
    nodes = info(chain[0]).nodes
    if node and nodes and node not in nodes:
        hint = f"use the certificate of node {node}, or issue one: jigsaw-triton certificates issue {node}"
        raise InputError(f"the certificate is that of node {', '.join(nodes)}", where=str(credentials.cert), hint=hint)
    return min(certificate.not_valid_after_utc for certificate in (chain[0], *issuers))


def read_certificates(path: Path) -> "list[Certificate]":
    """Reads the certificates of a PEM file, at least one.

    Raises:
        InputError: The file cannot be read, or holds no certificate.
        MissingDependencyError: The package `cryptography` is missing.
    """
    x509 = cryptography().x509
    data = _read(path, "certificate")
    try:
        found: list[Certificate] = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        hint = "give a PEM file, which begins with -----BEGIN CERTIFICATE-----"
        raise InputError("the file holds no certificate that can be read", where=str(path), hint=hint) from error
    return found


def is_open(mode: int, owner: int, reader: int) -> bool:
    """Returns True if others than the owner and the reader may use a private key.

    A key of root may be readable by its group, for readers other than root: Kubernetes mounts secrets like that, with a
    group of the pod's own.

    Args:
        mode: Mode of the file.
        owner: User id of its owner.
        reader: User id of the process that reads it.
    """
    allowed = 0o040 if owner == 0 and reader != 0 else 0
    return bool(stat.S_IMODE(mode) & 0o077 & ~allowed)


def read_key(path: Path) -> Any:
    """Reads a private key.

    Raises:
        InputError: The file cannot be read, is open to other users, or holds no private key.
        MissingDependencyError: The package `cryptography` is missing.
    """
    serialization = cryptography().serialization
    data = _read(path, "private key")
    status = path.stat()
    if is_open(status.st_mode, status.st_uid, os.getuid()):
        raise InputError("the private key is open to other users", where=str(path), hint=f"run chmod 600 {path}")
    try:
        return serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        hint = "give a PEM file without a password, which begins with -----BEGIN PRIVATE KEY-----"
        raise InputError("the file holds no private key that can be read", where=str(path), hint=hint) from error


def check_key(path: Path, certificate: "Certificate", where: Path) -> Any:
    """Reads a private key and checks that it is that of a certificate.

    Args:
        path: File of the key.
        certificate: Certificate of the key.
        where: File of the certificate.

    Raises:
        InputError: The key cannot be read, or belongs to another certificate.
    """
    key = read_key(path)
    if key.public_key() != certificate.public_key():
        hint = "give the two files that were made together"
        raise InputError(f"the private key is not that of the certificate {where}", where=str(path), hint=hint)
    return key


def check_time(certificate: "Certificate", path: Path, now: datetime) -> None:
    """Checks that a certificate is valid now.

    Raises:
        InputError: The certificate has expired, or is not valid yet.
    """
    name = f"the certificate of {info(certificate).subject!r}"
    if now > certificate.not_valid_after_utc:
        hint = "renew it: jigsaw-triton certificates issue"
        raise InputError(f"{name} expired on {_when(certificate.not_valid_after_utc)}", where=str(path), hint=hint)
    if now < certificate.not_valid_before_utc:
        hint = f"check the clock of this machine, on which it is {_when(now)}"
        raise InputError(
            f"{name} is valid only from {_when(certificate.not_valid_before_utc)}", where=str(path), hint=hint
        )


def info(certificate: "Certificate") -> CertificateInfo:
    """Returns the content of a certificate."""
    x509 = cryptography().x509
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = []
    values = [str(name.value) for name in names]
    return CertificateInfo(
        _common_name(certificate.subject),
        _common_name(certificate.issuer),
        tuple(value.removesuffix(_IDENTITY_END) for value in values if value.endswith(_IDENTITY_END)),
        tuple(value for value in values if not value.endswith(_IDENTITY_END)),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _issuers(chain: "list[Certificate]", trusted: "list[Certificate]", credentials: Credentials) -> "list[Certificate]":
    """Returns the authorities from that of the first certificate of a chain to a trusted one.

    Raises:
        InputError: No trusted authority has issued the certificate.
    """
    found: list[Certificate] = []
    current = chain[0]
    while len(found) < _LONGEST_CHAIN:
        issuer = next((one for one in (*trusted, *chain[1:]) if _issued(current, one)), None)
        if issuer is None:
            break
        found.append(issuer)
        if issuer in trusted:
            return found
        current = issuer
    raise InputError(
        f"the certificate was issued by {info(current).issuer!r}, which is no authority in {credentials.ca}",
        where=str(credentials.cert),
        hint="give the files of one authority: a certificate and a ca.pem that were made together",
    )


def _issued(certificate: "Certificate", issuer: "Certificate") -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # `cryptography` raises several kinds of errors for a certificate of another issuer.
        return False
    return True


def _common_name(name: Any) -> str:
    found = name.get_attributes_for_oid(cryptography().x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else str(name.rfc4514_string())


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        hint = "check the path and its permissions"
        raise InputError(f"the {what} cannot be read: {error.strerror}", where=str(path), hint=hint) from error
