"""`jigsaw-triton certificates`: an authority for a deployment on several machines, and a certificate for each node."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output, listed
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.servers.certificates.authority import (
    AUTHORITY_DAYS,
    AUTHORITY_KEY,
    NODE_DAYS,
    Issued,
    create_authority,
    issue,
    issued,
)
from jigsaw_triton.servers.certificates.credentials import info, read_certificates

_NOT_VALID = 4
_SOON = timedelta(days=30)

_FOLDER = options.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("certificates"),
    show_default=True,
    help="Folder of the authority.",
)


def _days(default: int) -> options.Decorator[Any]:
    return options.option(
        "--days",
        metavar="DAYS",
        type=click.IntRange(1, 36_500),
        default=default,
        show_default=True,
        help="Days for which the certificate is valid.",
    )


@click.group("certificates")
def command() -> None:
    """Create the certificates with which the nodes of a deployment recognise each other."""


@options.command(
    "create", examples=("certificates create", "certificates create --name staging", "certificates create --renew")
)
@_FOLDER
@options.option("--name", metavar="NAME", default="deployment", show_default=True, help="Name in the certificate.")
@_days(AUTHORITY_DAYS)
@options.option("--renew", is_flag=True, help="Renew the certificate of the authority, and keep its key.")
def _create(out: Output, folder: Path, name: str, days: int, renew: bool) -> None:
    """Create the authority of a deployment.

    Each deployment has an authority of its own, because all nodes with a certificate of an authority may call each
    other. Its private key stays in the folder: no node needs it. Keep the folder safe.

    Certificates of nodes stay valid after --renew. Copy the new ca.pem to the nodes before the old one expires.
    """
    made = create_authority(folder, name, days, renew=renew)
    done = f"{'renewed' if renew else 'created'} the authority {made.info.subject} in {folder}"
    out.result(
        _document(made),
        f"{done}; its certificate expires on {_date(made.info.expires)}",
        f"keep {folder / AUTHORITY_KEY} secret; `jigsaw-triton certificates issue NODE` makes the files of a node",
    )


@options.command(
    "issue", examples=("certificates issue a gpu-a.example.org 10.0.0.11", "certificates issue a --days 90")
)
@click.argument("node", metavar="NODE")
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@_FOLDER
@_days(NODE_DAYS)
def _issue(out: Output, node: str, hosts: tuple[str, ...], folder: Path, days: int) -> None:
    """Issue the certificate of a node, or renew it.

    NODE is the node's name in cluster.yaml. HOST are host names and addresses under which other programs than
    jigsaw-triton reach it; to renew a certificate, they may be omitted. The files are in the folder of the node's name:
    copy all three to the node. A running deployment reads changed files within seconds and loses no request.
    """
    made = issue(folder, node, hosts, days)
    out.result(
        _document(made),
        f"issued the certificate of node {node}, which expires on {_date(made.info.expires)}",
        f"copy cert.pem, key.pem and ca.pem from {made.path.parent} to the node; only its owner may read key.pem",
    )


@options.command("show", examples=("certificates show", "certificates show /etc/jigsaw-triton/cert.pem -o json"))
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@_FOLDER
def _show(out: Output, files: Sequence[Path], folder: Path) -> int | None:
    """Show certificates, and when each expires.

    Without a FILE, shows the authority in the folder and all nodes. The command exits with 4 if a certificate has
    expired or is not valid yet.
    """
    found = tuple(Issued(file, info(one)) for file in files for one in read_certificates(file)) or issued(folder)
    rows = [
        (one.info.subject, listed(one.info.hosts), one.info.issuer, _date(one.info.expires), _state(one), one.path)
        for one in found
    ]
    table = Table.of(("certificate", "hosts", "issued by", "expires", "state", "file"), rows)
    out.result({"certificates": [_document(one) for one in found]}, table)
    return None if all(_valid(one) for one in found) else _NOT_VALID


def _valid(one: Issued) -> bool:
    return one.info.begins <= datetime.now(UTC) <= one.info.expires


def _state(one: Issued) -> str:
    now = datetime.now(UTC)
    if now > one.info.expires:
        return "expired"
    if now < one.info.begins:
        return "not valid yet"
    return "expires soon" if one.info.expires - now < _SOON else "ok"


def _date(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


def _document(one: Issued) -> dict[str, Any]:
    return {
        "file": str(one.path),
        "subject": one.info.subject,
        "issuer": one.info.issuer,
        "nodes": list(one.info.nodes),
        "hosts": list(one.info.hosts),
        "begins": one.info.begins.isoformat(),
        "expires": one.info.expires.isoformat(),
        "days_left": max((one.info.expires - datetime.now(UTC)).days, 0),
        "state": _state(one),
    }


for _leaf in (_create, _issue, _show):
    command.add_command(_leaf)
