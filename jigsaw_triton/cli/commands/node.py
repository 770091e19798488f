"""`jigsaw-triton node`: lists the machines of a deployment, withdraws and returns them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table

_NODE = click.argument("node", metavar="NODE")


@click.group("node")
def command() -> None:
    """List the machines of the deployment, withdraw one from new plans, and return it."""


@options.command("list", examples=("node list", "node list -o json"))
@options.state()
def listing(out: Output, state: Path | None) -> None:
    """List the machines of the deployment: their state, labels, GPUs and workers."""
    status = Deployment(state).status()
    nodes: list[Mapping[str, Any]] = status["nodes"]
    standby = status.get("standby_gateway") or {}
    rows = [
        (
            node["name"],
            f"{node['state']}, standby gateway" if node["name"] == standby.get("node") else node["state"],
            node["agent"] or "-",
            ", ".join(f"{label}={value}" for label, value in node.get("topology", {}).items()) or "-",
            ", ".join(f"{count}x{board}" for board, count in node["gpus"].items()),
            str(len(node["workers"])),
        )
        for node in nodes
    ]
    out.result({"nodes": nodes}, Table.of(("node", "state", "agent", "labels", "GPUs", "workers"), rows))


@options.command("cordon", examples=("node cordon a",))
@_NODE
@options.state()
def cordon(out: Output, node: str, state: Path | None) -> None:
    """Withdraw a machine from new plans. Its workers stay until the next plan."""
    Deployment(state).cordon(node)
    out.result({"node": node, "cordoned": True}, f"new plans do without node {node}, until `node uncordon {node}`")


@options.command("uncordon", examples=("node uncordon a",))
@_NODE
@options.state()
def uncordon(out: Output, node: str, state: Path | None) -> None:
    """Return a machine that was withdrawn. The deployment is planned anew with it."""
    Deployment(state).uncordon(node)
    out.result({"node": node, "cordoned": False}, f"new plans may use node {node}")


@options.command("drain", examples=("node drain a",))
@_NODE
@options.state()
def drain(out: Output, node: str, state: Path | None) -> None:
    """Withdraw a machine from new plans, and replace its workers now, without a lost request.

    If the other machines cannot carry the demand, the workers stay, and the command fails. The machine remains
    withdrawn in either case, until `node uncordon`.
    """
    Deployment(state).drain(node, reporter=out)
    out.result({"node": node, "cordoned": True, "workers": []}, f"node {node} has no workers any more")


for subcommand in (listing, cordon, uncordon, drain):
    command.add_command(subcommand)
