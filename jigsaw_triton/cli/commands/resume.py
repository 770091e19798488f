"""`jigsaw-triton resume`: follows the measured load again."""

from pathlib import Path

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output


@options.command("resume", examples=("resume", "resume --state ./state"))
@options.state()
def command(out: Output, state: Path | None) -> None:
    """Follow the measured load again after `pause`.

    The controller ignores the load before `resume`, so the first change comes after a few seconds of load.
    """
    Deployment(state).resume()
    out.result({"paused": False}, "the plan follows the measured load again")
