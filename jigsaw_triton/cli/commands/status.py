"""`jigsaw-triton status`: what runs, and whether it is well."""

import time
from pathlib import Path

import click

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.running import Deployment
from jigsaw_triton.cli.views.status import status_view
from jigsaw_triton.errors import StateError

_POLL_S = 0.2


@options.command("status", examples=("status", "status --wait ready --timeout 120", "status -o json"))
@options.option(
    "--wait", "goal", type=click.Choice(("ready", "stopped")), help="Wait until the deployment reaches this state."
)
@options.option(
    "--timeout",
    type=options.Number(min=0),
    default=300.0,
    show_default=True,
    help="Wait for at most this many seconds.",
)
@options.state()
def command(out: Output, goal: str | None, timeout: float, state: Path | None) -> int | None:
    """Show the state of the deployment: gateway, graphs, workers and their slices.

    The command exits with 4 if nothing is deployed, or if the state of --wait is not reached in time.
    """
    deployment = Deployment.at(state)
    if goal == "stopped":
        _wait(deployment, goal, timeout)
        out.result({"state": "stopped"}, "nothing is deployed here")
        return None
    if goal is not None:
        _wait(deployment, goal, timeout)
    status = deployment.required_status()
    out.result(status, *status_view(status, out))
    return None


def _wait(deployment: Deployment, goal: str, timeout_s: float) -> None:
    """Waits for a state.

    Raises:
        StateError: It did not come in time, or cannot come any more.
    """
    give_up_at = time.monotonic() + timeout_s
    seen = False
    while True:
        status = deployment.status()
        state = status["state"] if status is not None else "stopped"
        healthy = status is not None and all(w["state"] == "ready" for w in status["workers"])
        if state == goal and (goal == "stopped" or healthy):
            return
        if status is None and seen:
            raise StateError("the deployment has ended", where=str(deployment.paths.state), hint="see the events")
        seen = seen or status is not None
        if time.monotonic() > give_up_at:
            if not seen:
                raise deployment.absent()
            raise StateError(f"not {goal} within {timeout_s:g} s: {state}", where=str(deployment.paths.state))
        time.sleep(_POLL_S)
