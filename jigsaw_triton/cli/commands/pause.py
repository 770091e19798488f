"""`jigsaw-triton pause`: stops following the measured load."""

from pathlib import Path

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output


@options.command("pause", examples=("pause", "pause --state ./state"))
@options.state()
def command(out: Output, state: Path | None) -> None:
    """Stop following the measured load.

    Servers that die are still restarted, and `deploy` and `rollback` still work. The pause lasts until `resume`, even
    if the controller restarts meanwhile.
    """
    Deployment(state).pause()
    out.result({"paused": True}, "the measured load causes no change until `jigsaw-triton resume`")
