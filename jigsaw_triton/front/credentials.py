"""Checks the files for TLS to the gateways before HAProxy reads them. Its own errors name neither file nor remedy."""

from datetime import UTC, datetime
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.front.model import GatewayTls
from jigsaw_triton.servers.certificates.credentials import check_key, check_time, read_certificates


def check_gateway_tls(tls: GatewayTls, *, now: datetime | None = None) -> None:
    """Checks the authorities of the gateways, and the front's own certificate if it has one. Blocks.

    Args:
        tls: Files to check.
        now: Present time; None for that of the clock.

    Raises:
        InputError: A file cannot be read, is no PEM file, has expired, or does not fit the other one.
        MissingDependencyError: The package `cryptography` is missing.
    """
    now = now or datetime.now(UTC)
    path = Path(tls.ca)
    expired: list[InputError] = []
    authorities = read_certificates(path)
    for authority in authorities:
        try:
            check_time(authority, path, now)
        except InputError as error:
            expired.append(error)
    # A bundle of many authorities may have some that have expired.
    if len(expired) == len(authorities):
        raise expired[0]
    if tls.cert is not None and tls.key is not None:
        own = read_certificates(Path(tls.cert))[0]
        check_key(Path(tls.key), own, Path(tls.cert))
        check_time(own, Path(tls.cert), now)
