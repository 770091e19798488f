"""`jigsaw-triton cells`: writes the files of a cluster's cells, deploys them, and takes them down."""

from pathlib import Path
from typing import Any

import click

from jigsaw_triton.api.cell_files import write_cells
from jigsaw_triton.api.cells import Cells
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.rollout import Rollout
from jigsaw_triton.cli.inputs import deployments, options
from jigsaw_triton.cli.inputs.pairs import pairs
from jigsaw_triton.cli.io.output import Output, listed
from jigsaw_triton.cli.views.cell_status import cells_view
from jigsaw_triton.cli.views.rollout import confirm_rollout, show_rollout
from jigsaw_triton.errors import StateError
from jigsaw_triton.logs import LogFormat

_CELL_HOST = "CELL=HOST"
_FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


def _hosts(flag: str, help_text: str) -> options.Decorator[Any]:
    return options.option(flag, metavar=_CELL_HOST, multiple=True, help=help_text)


def _only() -> options.Decorator[Any]:
    return options.option(
        "--cell", "names", metavar="NAME", multiple=True, help="Name of a cell; may be repeated.  [default: all]"
    )


@click.group("cells")
def command() -> None:
    """Deploy a cluster as several cells, each with a controller and a gateway of its own."""


@options.command(
    "create",
    examples=(
        "cells create traffic/ --cluster cluster.yaml --plan plan.json -O cells",
        "cells create traffic/ --cluster cluster.yaml --plan plan.json -O cells --gateway-host cell1=10.0.0.1 "
        "--gateway-host cell2=10.0.0.2",
    ),
)
@options.graphs()
@options.option("--cluster", required=True, metavar="FILE", type=click.Path(), help="cluster.yaml or its folder.")
@options.option(
    "--plan",
    "plan_path",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Plan with cells, which `plan --cells -O` has written.",
)
@_hosts("--gateway-host", "Host of the gateway of a cell, if it has a machine of its own.  [default: this machine]")
@_hosts("--standby-host", "Host of the standby gateway of a cell.")
@options.option(
    "--gateway-certificates",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder with cert.pem, key.pem and ca.pem, with which front and gateways speak TLS and verify each other.",
)
@options.option("--overwrite", is_flag=True, help="Replace the files of an earlier call.")
@options.out_file("Write a folder for each cell, and front.yaml, to this folder.", required=True)
def create(
    out: Output,
    graphs: tuple[str, ...],
    cluster: str,
    plan_path: Path,
    gateway_host: tuple[str, ...],
    standby_host: tuple[str, ...],
    gateway_certificates: Path | None,
    overwrite: bool,
    out_path: Path,
) -> None:
    """Write a folder for each cell of a plan, and the front.yaml of the front over them.

    The folder of a cell has its nodes (cluster.yaml), its share of the demand (cell.yaml), and the plan that it is
    expected to have (plan.json). Clients connect to the front, so it gets the ports and the edge of cluster.yaml.
    Gateways on this machine get other ports, and those on machines of their own the same ones.
    """
    names = write_cells(
        out_path,
        graphs,
        cluster=cluster,
        plan=plan_path,
        gateways=pairs("--gateway-host", gateway_host, form=_CELL_HOST),
        standbys=pairs("--standby-host", standby_host, form=_CELL_HOST),
        certificates=gateway_certificates,
        overwrite=overwrite,
        wording=COMMAND_LINE,
    )
    document = {"folder": str(out_path), "cells": list(names), "front": str(out_path / "front.yaml")}
    out.result(document, f"wrote {listed(names)} and front.yaml to {out_path}")


@options.command(
    "deploy",
    examples=(
        "cells deploy cells",
        "cells deploy cells --cell cell1",
        "cells deploy cells --controller-metrics 8104 --log-format json",
    ),
)
@_FOLDER
@_only()
@deployments.planning()
@deployments.deterministic()
@deployments.observing(
    "Serve the metrics of the first cell's controller on this port, for Prometheus, and those of the others on the "
    "ports after it.  [default: only on Unix sockets]"
)
@deployments.yes()
def deploy(
    out: Output,
    folder: Path,
    names: tuple[str, ...],
    controller_metrics: str | None,
    log_format: LogFormat | None,
    yes: bool,
    **settings: Any,
) -> int | None:
    """Deploy the cells of a folder, or update those that run, and return once all of them serve.

    All cells are planned before the first one starts. Each has a controller, a gateway and a state folder of its own,
    so that no failure affects two of them. If requests will be refused during the update of a cell, the
    command asks on a terminal before it goes on. Where the gateways have machines of their own, copy the folder to
    each, and name its cell with --cell.
    """
    cells = Cells(folder, names, log_format=log_format, controller_metrics=controller_metrics)

    def check(name: str, rollout: Rollout) -> None:
        out.note(f"cell {name}:")
        change = show_rollout(out, rollout)
        if not yes:
            confirm_rollout(out, rollout, change)

    cells.deploy(check=check, reporter=out, wording=COMMAND_LINE, **settings)
    return _show(out, cells)


@options.command("status", examples=("cells status cells", "cells status cells --cell cell1 -o json"))
@_FOLDER
@_only()
def status(out: Output, folder: Path, names: tuple[str, ...]) -> int | None:
    """Show the state of the cells on this machine, and of the front if it runs here.

    The command exits with 4 if a cell is not deployed or does not serve.
    """
    return _show(out, Cells(folder, names))


@options.command("down", examples=("cells down cells", "cells down cells --cell cell2"))
@_FOLDER
@_only()
def down(out: Output, folder: Path, names: tuple[str, ...]) -> None:
    """Stop the cells on this machine. Logs, events and files are kept. The front is stopped with Ctrl-C or SIGTERM.

    The command exits with 4 if none is deployed.
    """
    ended = Cells(folder, names).down(reporter=out)
    out.result({"stopped": list(ended)}, f"{listed(ended)} {'is' if len(ended) == 1 else 'are'} stopped")


def _show(out: Output, cells: Cells) -> int | None:
    found = cells.status()
    out.result(found, *cells_view(found))
    return None if found["serving"] else StateError.exit_code


for subcommand in (create, deploy, status, down):
    command.add_command(subcommand)
