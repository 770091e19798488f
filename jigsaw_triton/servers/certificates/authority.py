"""The certificate authority of a deployment: a folder with its key, from which each node gets a certificate.

```
FOLDER/ca.pem, ca.key.pem         the authority; its key stays with the operator
FOLDER/NODE/{cert,key,ca}.pem     what node NODE needs
```
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.servers.certificates.credentials import (
    CA,
    CERT,
    CertificateInfo,
    Credentials,
    check_key,
    check_time,
    credentials_in,
    identity,
    info,
    read_certificates,
    read_key,
)
from jigsaw_triton.servers.certificates.library import cryptography
from jigsaw_triton.spec.words import NAME_PATTERN

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

AUTHORITY_KEY = "ca.key.pem"
"""Name of the file with the authority's private key."""

AUTHORITY_DAYS, NODE_DAYS = 3650, 365
"""Days for which certificates of an authority and of a node are valid by default."""

_CLOCK_SKEW = timedelta(hours=1)
"""Time before its creation from which a certificate is valid, because clocks of nodes differ."""

_HOST = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in the folder of an authority.

    Attributes:
        path: File of the certificate.
        info: Content of the certificate.
    """

    path: Path
    info: CertificateInfo


def create_authority(folder: Path, name: str, days: int = AUTHORITY_DAYS, *, renew: bool = False) -> Issued:
    """Creates an authority, or renews its certificate. Blocks.

    A renewed authority keeps its key, so the certificates of nodes stay valid.

    Args:
        folder: Folder of the authority, which is created.
        name: Name of the deployment.
        days: Days for which its certificate is valid.
        renew: True to replace the certificate of an existing authority.

    Raises:
        StateError: There is an authority already, or none that can be renewed.
        InputError: The folder cannot be written, or its key cannot be read.
        MissingDependencyError: The package `cryptography` is missing.
    """
    c = cryptography()
    cert_path, key_path = folder / CA, folder / AUTHORITY_KEY
    if renew:
        (before,) = _authority(folder)
        key, subject = read_key(key_path), before.subject
    else:
        if key_path.exists() or cert_path.exists():
            hint = "give another --folder, or renew its certificate with --renew"
            raise StateError("there is an authority already", where=str(folder), hint=hint)
        key = c.ec.generate_private_key(c.ec.SECP256R1())
        subject = c.x509.Name([c.x509.NameAttribute(c.x509.NameOID.COMMON_NAME, f"jigsaw-triton {name}")])
    usage = c.x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    extensions = [(c.x509.BasicConstraints(ca=True, path_length=0), True), (usage, True)]
    certificate = _signed(subject, subject, key.public_key(), key, days, extensions)
    if not renew:
        _write(key_path, _key_pem(key), secret=True)
    _write(cert_path, _pem(certificate))
    return Issued(cert_path, info(certificate))


def issue(folder: Path, node: str, hosts: Sequence[str] = (), days: int = NODE_DAYS) -> Issued:
    """Issues the certificate of a node, with a new key, and replaces the one before if there is one. Blocks.

    Args:
        folder: Folder of the authority.
        node: Name of the node.
        hosts: Names and addresses of its host; empty for those in the certificate before, if there is one.
        days: Days for which the certificate is valid, at most as long as that of the authority.

    Raises:
        StateError: There is no authority.
        InputError: A name is invalid, the authority has expired, or a file cannot be read or written.
        MissingDependencyError: The package `cryptography` is missing.
    """
    if not re.fullmatch(NAME_PATTERN, node):
        hint = "begin with a letter, and use up to 64 letters, digits, '_' and '-', as in cluster.yaml"
        raise InputError(f"{node!r} is no name of a node", hint=hint)
    c = cryptography()
    (authority,) = _authority(folder)
    check_time(authority, folder / CA, datetime.now(UTC))
    authority_key = check_key(folder / AUTHORITY_KEY, authority, folder / CA)
    files = credentials_in(folder / node)
    if not hosts and files.cert.exists():
        hosts = info(read_certificates(files.cert)[0]).hosts
    names = [c.x509.DNSName(identity(node)), *(_host(host) for host in hosts)]
    key = c.ec.generate_private_key(c.ec.SECP256R1())
    usage = c.x509.ExtendedKeyUsage([c.x509.ExtendedKeyUsageOID.SERVER_AUTH, c.x509.ExtendedKeyUsageOID.CLIENT_AUTH])
    extensions = [
        (c.x509.BasicConstraints(ca=False, path_length=None), True),
        (c.x509.SubjectAlternativeName(names), False),
        (usage, False),
    ]
    subject = c.x509.Name([c.x509.NameAttribute(c.x509.NameOID.COMMON_NAME, node)])
    days = min(days, (authority.not_valid_after_utc - datetime.now(UTC)).days)
    certificate = _signed(subject, authority.subject, key.public_key(), authority_key, days, extensions)
    _write_credentials(files, _pem(certificate), _key_pem(key), _pem(authority))
    return Issued(files.cert, info(certificate))


def provide(folder: Path, name: str, nodes: Iterable[str]) -> None:
    """Issues certificates for nodes that have none, or whose certificate has less than a third of its time left.

    Args:
        folder: Folder of the authority, which is created if missing.
        name: Name of the deployment.
        nodes: Names of the nodes.

    Raises:
        JigsawError: See `create_authority` and `issue`.
    """
    if not (folder / CA).exists():
        create_authority(folder, name)
    for node in nodes:
        path = credentials_in(folder / node).cert
        if not path.exists() or _is_old(info(read_certificates(path)[0])):
            issue(folder, node)


def _is_old(certificate: CertificateInfo) -> bool:
    return datetime.now(UTC) > certificate.expires - (certificate.expires - certificate.begins) / 3


def issued(folder: Path) -> tuple[Issued, ...]:
    """Returns the certificates of an authority and of its nodes. Blocks.

    Raises:
        StateError: There is no authority.
        InputError: A certificate cannot be read.
        MissingDependencyError: The package `cryptography` is missing.
    """
    (authority,) = _authority(folder)
    paths = sorted(path for path in folder.glob(f"*/{CERT}") if path.is_file())
    nodes = (Issued(path, info(read_certificates(path)[0])) for path in paths)
    return (Issued(folder / CA, info(authority)), *nodes)


def _authority(folder: Path) -> "list[Certificate]":
    if not (folder / CA).exists():
        hint = "create one: jigsaw-triton certificates create"
        raise StateError("there is no authority", where=str(folder), hint=hint)
    return read_certificates(folder / CA)[:1]


def _host(host: str) -> Any:
    x509 = cryptography().x509
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            hint = "give the host names and addresses under which the node is reached"
            raise InputError(f"{host!r} is neither an address nor a name of a host", hint=hint) from None
        return x509.DNSName(host)


def _signed(
    subject: Any, issuer: Any, public_key: Any, key: Any, days: int, extensions: Iterable[tuple[Any, bool]]
) -> "Certificate":
    c = cryptography()
    now = datetime.now(UTC).replace(microsecond=0)
    builder = (
        c.x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(c.x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(c.x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(c.x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signed: Certificate = builder.sign(key, c.hashes.SHA256())
    return signed


def _pem(certificate: "Certificate") -> bytes:
    return bytes(certificate.public_bytes(cryptography().serialization.Encoding.PEM))


def _key_pem(key: Any) -> bytes:
    s = cryptography().serialization
    return bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))


def _write_credentials(files: Credentials, cert: bytes, key: bytes, ca: bytes) -> None:
    _write(files.ca, ca)
    _write(files.key, key, secret=True)
    _write(files.cert, cert)


def _write(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Writes a file atomically. A secret file is readable by its owner only, from the beginning."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if secret else 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        hint = "check the folder's permissions and its free space"
        raise InputError(f"the file cannot be written: {error.strerror}", where=str(path), hint=hint) from error
