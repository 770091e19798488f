"""`jigsaw-triton takeover`: starts the controller on the machine of the standby gateway."""

from pathlib import Path

import click

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output


@options.command(
    "takeover", examples=("takeover --agent /var/lib/jigsaw-agent --certificates ./certificates/controller",)
)
@options.option(
    "--agent",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of the agent of this machine (its --state), which keeps the standby gateway.",
)
@options.option(
    "--certificates",
    type=click.Path(path_type=Path),
    help="Folder with the controller's cert.pem, key.pem and ca.pem.  [default: the one of the lost controller]",
)
@options.state()
def command(out: Output, agent: Path, certificates: Path | None, state: Path | None) -> None:
    """Start the controller here, on the machine of the standby gateway, after its own machine was lost.

    It goes on from the copy of its state that the agent has, with all workers. A gateway here takes the place of the
    standby; requests are refused for the seconds between. Workers refuse the gateway of the lost machine from then on.
    """
    from jigsaw_triton.api.takeover import take_over

    take_over(agent, state=state, certificates=certificates, reporter=out)
    out.result({"taken_over": True}, "the controller runs here; see `jigsaw-triton status`")
