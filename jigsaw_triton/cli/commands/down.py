"""`jigsaw-triton down`: stops the deployment."""

from pathlib import Path

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output


@options.command("down", examples=("down", "down --state ./state"))
@options.state()
def command(out: Output, state: Path | None) -> None:
    """Stop the gateway and the workers, and destroy their MIG instances.

    Logs and events are kept. The command exits with 4 if nothing is deployed.
    """
    Deployment(state).down(reporter=out)
    out.result({"state": "stopped"}, "the deployment is stopped")
