"""`jigsaw-triton doctor`: checks this machine for everything that a deployment needs."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.addresses import read_address
from jigsaw_triton.cli.inputs.gpu_checks import gpu_checks
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.servers.certificates.credentials import credentials_in
from jigsaw_triton.servers.checks import Check, certificates_check, checks
from jigsaw_triton.servers.ports import check_free


@options.command("doctor", examples=("doctor", "doctor -o json", "doctor --certificates ./a --listen 0.0.0.0:7440"))
@options.option(
    "--certificates",
    type=click.Path(path_type=Path),
    help="Check the certificates in this folder, which an agent or a controller of several machines uses.",
)
@options.option("--listen", metavar="HOST:PORT", help="Check that an agent can listen here.")
def command(out: Output, certificates: Path | None, listen: str | None) -> int:
    """Check this machine for everything that a deployment needs.

    Each finding that is not ok says how to fix it. The command changes nothing. It exits with 1 if a finding is an
    error; a warning names something that limits a deployment.
    """
    with out.working("checking this machine"):
        found = [*gpu_checks(), *checks(), *_ports()]
        if certificates is not None:
            found.append(certificates_check(credentials_in(certificates.absolute())))
        if listen is not None:
            found.append(_listen(*read_address(listen)))
    failed = any(check.status == "error" for check in found)
    data: dict[str, Any] = {"ok": not failed, "checks": [asdict(check) for check in found]}
    remedies = [f"{check.name}: {check.remedy}" for check in found if check.remedy]
    table = Table.of(("", "check", "finding"), ((check.status, check.name, check.detail) for check in found))
    out.result(data, table, *(["To fix:", *(f"  {line}" for line in remedies)] if remedies else []))
    return 1 if failed else 0


def _listen(address: str, port: int) -> Check:
    name = f"port {port}"
    try:
        check_free(address, port)
    except InputError as error:
        hint = "stop the program that uses it, or give the agent another port with --listen"
        return Check(name, "error", f"{error.message}; the agent needs it", error.hint or hint)
    return Check(name, "ok", "free for the agent")


def _ports() -> Iterator[Check]:
    gateway = GatewayPorts()
    for use, port in (("HTTP", gateway.http), ("gRPC", gateway.grpc), ("metrics", gateway.metrics)):
        name = f"port {port}"
        try:
            check_free(gateway.address, port)
        except InputError as error:
            hint = (
                "stop the program that uses it (a deployment: `jigsaw-triton down`), or set `gateway` in cluster.yaml"
            )
            yield Check(name, "warning", f"{error.message}; the gateway needs it for {use}", hint)
        else:
            yield Check(name, "ok", f"free for the gateway's {use}")
