"""Settings of the console, and what makes them safe."""

import ipaddress
import ssl
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jigsaw_triton.errors import InputError

PORT = 8080
LOOPBACK = "127.0.0.1"

_LEAST_PASSWORD = 12
"""Characters that a password must have at least. A convention."""


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """Settings of the console.

    Attributes:
        address: IP address to listen on.
        port: TCP port to listen on; 0 for any that is free.
        allow_changes: True if the pages may change the deployment.
        tls_cert: Certificate with its intermediates, as a PEM file; None for plain HTTP.
        tls_key: Private key of the certificate.
        password: Password that opens the console; None for tokens that open it once.
        hosts: Names under which browsers reach the console, beside IP addresses and `localhost`.
        behind_proxy: True if a proxy in front of the console encrypts the traffic.
    """

    address: str = LOOPBACK
    port: int = PORT
    allow_changes: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    password: str | None = None
    hosts: tuple[str, ...] = ()
    behind_proxy: bool = False

    @property
    def encrypted(self) -> bool:
        """True if browsers reach the console over HTTPS."""
        return self.tls_cert is not None or self.behind_proxy

    def checked(self) -> "ConsoleSettings":
        """Returns these settings.

        Raises:
            InputError: The settings would let others read the traffic or open the console.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "--tls-key" if self.tls_key is None else "--tls-cert"
            raise InputError("TLS needs a certificate and its private key", where=missing, hint=f"add {missing}")
        if self.password is not None and len(self.password) < _LEAST_PASSWORD:
            raise InputError(
                f"the password has fewer than {_LEAST_PASSWORD} characters",
                where="--password-file",
                hint="choose a longer one, such as `openssl rand -base64 18`",
            )
        safe = (self.tls_cert is not None and self.password is not None) or self.behind_proxy
        if not is_loopback(self.address) and not safe:
            raise InputError(
                "other machines could read what the console shows",
                where=f"--address {self.address}",
                hint="add --tls-cert, --tls-key and --password-file; or keep the default and use `ssh -L`; or add "
                "--behind-proxy if a proxy encrypts and authenticates",
            )
        return self

    def tls(self) -> ssl.SSLContext | None:
        """Returns the TLS context; None for plain HTTP.

        Raises:
            InputError: The certificate or its key cannot be read, or they do not belong together.
        """
        if self.tls_cert is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # Without a password, OpenSSL would ask for that of an encrypted key on the terminal.
            context.load_cert_chain(self.tls_cert, self.tls_key, password="")
        except (OSError, ssl.SSLError) as error:
            hint = "give PEM files: the certificate with its intermediates, and its private key without a passphrase"
            raise InputError(
                f"the certificate cannot be used: {error}", where=f"{self.tls_cert}, {self.tls_key}", hint=hint
            ) from error
        return context

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON, without the password. Paths are absolute."""
        paths = {"tls_cert": self.tls_cert, "tls_key": self.tls_key}
        return {
            **asdict(self),
            **{name: str(path.resolve()) if path is not None else None for name, path in paths.items()},
            "password": self.password is not None,
            "hosts": list(self.hosts),
        }

    def accepts_host(self, header: str) -> bool:
        """Returns True if a Host header names this console.

        A page of another site could have its own name resolve to this machine (DNS rebinding). It cannot do that with
        an IP address, so these are accepted, whatever the port: it may be forwarded.
        """
        name = _without_port(header)
        return _is_ip(name) or name.lower() == "localhost" or self.names(header)

    def names(self, header: str) -> bool:
        """Returns True if a host, with or without a port, is one of `hosts`."""
        return _without_port(header).lower() in {host.lower() for host in self.hosts}

    def url(self, port: int) -> str:
        """Returns the address to open in a browser, without a path.

        Args:
            port: Port on which the console listens.
        """
        if self.behind_proxy and self.hosts:
            return f"https://{self.hosts[0]}"
        scheme = "http" if self.tls_cert is None else "https"
        own = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.address, self.address)
        host = self.hosts[0] if self.hosts else own
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def read_password(path: Path) -> str:
    """Reads the first line of a password file.

    Raises:
        InputError: The file cannot be read, or other users can read it.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"the password file cannot be read: {error}", where=str(path)) from error
    if stat.S_IMODE(mode) & 0o077:
        raise InputError("other users can read the password file", where=str(path), hint=f"run `chmod 600 {path}`")
    return lines[0] if lines else ""


def is_loopback(address: str) -> bool:
    """Returns True if only this machine reaches an IP address.

    Raises:
        InputError: The text is no IP address.
    """
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError as error:
        hint = f"give an IP address, such as {LOOPBACK} or 0.0.0.0"
        raise InputError(f"{address!r} is not an IP address", where="--address", hint=hint) from error


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
