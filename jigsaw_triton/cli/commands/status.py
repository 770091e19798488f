"""`jigsaw-triton status`: prints the state of the deployment."""

from pathlib import Path
from typing import Literal

import click

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.inputs import option_types, options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.status import status_view
from jigsaw_triton.errors import StateError


@options.command("status", examples=("status", "status --wait ready --timeout 120", "status -o json"))
@options.option(
    "--wait", "goal", type=click.Choice(("ready", "stopped")), help="Wait until the deployment reaches this state."
)
@options.option(
    "--timeout",
    type=option_types.Number(min=0),
    default=300.0,
    show_default=True,
    help="Wait for at most this many seconds.",
)
@options.state()
def command(out: Output, goal: Literal["ready", "stopped"] | None, timeout: float, state: Path | None) -> int | None:
    """Show the state of the deployment: gateway, graphs, workers and their slices.

    The command exits with 4 if nothing is deployed, if a graph is not served, or if the state of --wait is not reached
    in time.
    """
    deployment = Deployment(state)
    if goal is not None:
        try:
            deployment.wait(goal, timeout_s=timeout)
        except (KeyboardInterrupt, SystemExit):
            out.note(f"interrupted before the deployment was {goal}")
            raise
    if goal == "stopped":
        out.result({"state": "stopped"}, "nothing is deployed here")
        return None
    status = deployment.status()
    out.result(status, *status_view(status, out))
    return None if status["serving"] else StateError.exit_code
