"""`jigsaw-triton rollback`: returns to an earlier generation."""

from pathlib import Path

import click

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.status import status_view


@options.command("rollback", examples=("rollback", "rollback 3", "rollback --no-wait"))
@click.argument("generation", metavar="[GENERATION]", required=False, type=click.IntRange(1))
@options.option("--no-wait", is_flag=True, help="Return at once. Wait later with `jigsaw-triton status --wait ready`.")
@options.state()
def command(out: Output, generation: int | None, no_wait: bool, state: Path | None) -> None:
    """Return to the graphs and the plan of an earlier generation, by default the last one that served before.

    The rollback is a change like any other: it gets a new generation, and loses no request. The models are those of
    that generation, whatever has happened to their files. During a canary, `rollback` without a generation ends the
    canary, and the running generation stays.
    """
    deployment = Deployment(state)
    deployment.rollback(generation, wait=not no_wait, reporter=out)
    if not no_wait:
        status = deployment.status()
        out.result(status, *status_view(status, out))
