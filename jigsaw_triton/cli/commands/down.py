"""`jigsaw-triton down`: stops the deployment, or removes graphs from it."""

from pathlib import Path

import click

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.status import status_view


@options.command("down", examples=("down", "down other", "down --state ./state"))
@click.argument("graphs", metavar="[GRAPH]...", nargs=-1)
@options.option(
    "--yes",
    is_flag=True,
    help="Do not ask before a change during which requests will be refused, or by which graphs shed load.",
)
@options.state()
def command(out: Output, graphs: tuple[str, ...], yes: bool, state: Path | None) -> None:
    """Stop the gateway and the workers, and destroy their MIG instances. With names, remove only these graphs.

    The other graphs go on without a lost request. Requests that a removed graph has received are answered; later ones
    are refused as those of an unknown model. The removal of the last graph stops everything. Logs and events are kept.
    The command exits with 4 if nothing is deployed.
    """
    deployment = Deployment(state)
    if graphs:
        deployment.adopt(reporter=out)
    if not graphs or deployment.is_all(graphs):
        if graphs:
            deployment.remove_all(graphs, reporter=out)
        else:
            deployment.down(reporter=out)
        out.result({"state": "stopped"}, "the deployment is stopped")
        return
    # Planning takes half a second to import, which the end of a deployment does not wait for.
    from jigsaw_triton.cli.views.rollout import confirm_rollout, show_rollout

    rollout = deployment.prepare(deployment.removal(graphs), reporter=out, wording=COMMAND_LINE)
    change = show_rollout(out, rollout)
    if not yes:
        confirm_rollout(out, rollout, change)
    deployment.roll_out(rollout, reporter=out)
    status = deployment.status()
    out.result(status, *status_view(status, out))
