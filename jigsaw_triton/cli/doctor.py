"""`doctor`: what is missing on this machine, and how to get it."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from jigsaw_triton.cli import options
from jigsaw_triton.cli.machine import visible_gpus
from jigsaw_triton.cli.output import Output
from jigsaw_triton.cli.table import Table
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import GatewayPorts
from jigsaw_triton.servers.checks import Check, checks
from jigsaw_triton.servers.ports import check_free


@options.command("doctor", examples=("doctor", "doctor -o json"))
def command(out: Output) -> int:
    """What is missing on this machine, and how to get it.

    Looks at what a deployment needs and changes nothing. The exit code is 1 where something is an error; warnings say
    what works until it does not.
    """
    with out.working("looking at this machine"):
        found = [_gpus(), *checks(), *_ports()]
    failed = any(check.status == "error" for check in found)
    data: dict[str, Any] = {"ok": not failed, "checks": [asdict(check) for check in found]}
    remedies = [f"{check.name}: {check.remedy}" for check in found if check.remedy]
    table = Table.of(("", "what", "found"), ((check.status, check.name, check.detail) for check in found))
    out.result(data, table, *(["What to do:", *(f"  {line}" for line in remedies)] if remedies else []))
    return 1 if failed else 0


def _gpus() -> Check:
    names = visible_gpus()
    if not names:
        return Check("GPUs", "ok", "none answers: MIG is emulated, models run on the processor")
    counts = ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))
    return Check(
        "GPUs",
        "warning",
        f"{counts}; MIG on real GPUs is not in this release",
        "use --driver emulated, or `driver: emulated` in cluster.yaml",
    )


def _ports() -> Iterator[Check]:
    gateway = GatewayPorts()
    for use, port in (("HTTP", gateway.http), ("gRPC", gateway.grpc), ("metrics", gateway.metrics)):
        name = f"port {port}"
        try:
            check_free(gateway.address, port)
        except InputError as error:
            hint = "stop what has it (`jigsaw-triton down` if it is a deployment), or set `gateway` in cluster.yaml"
            yield Check(name, "warning", f"{error.message}; the gateway's {use} wants it", hint)
        else:
            yield Check(name, "ok", f"free, for the gateway's {use}")
