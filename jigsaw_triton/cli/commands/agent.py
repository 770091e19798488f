"""`jigsaw-triton agent`: runs the agent of a machine."""

import logging
import os
from pathlib import Path

import click

from jigsaw_triton.agent.process import AgentSettings, run_agent
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.addresses import read_address
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.logs import LOG_FORMATS, LogFormat, formatter
from jigsaw_triton.servers.installation import find_installation


@options.command(
    "agent", examples=("agent --name a --listen 10.0.0.1:7440 --certificates ./certificates/a --state ./agent",)
)
@options.option("--name", required=True, help="Name of this machine in the cluster.yaml of the controller.")
@options.option("--listen", required=True, metavar="HOST:PORT", help="Address and port to listen on.")
@options.option(
    "--certificates",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with this machine's cert.pem, key.pem and ca.pem.",
)
@options.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default="text",
    show_default=True,
    help="Write the lines of the log on standard error in this form.",
)
@options.state()
def command(out: Output, name: str, listen: str, certificates: Path, log_format: LogFormat, state: Path | None) -> None:
    """Run the agent of this machine until SIGTERM. It starts workers here for the controller of a cluster.

    The controller's cluster.yaml has `engine: agents`, and this machine as a node. The workers go on when the agent
    ends, and the next one adopts them. The agent and the controller recognise each other by certificates of the same
    authority; see `certificates`.
    """
    host, port = read_address(listen)
    os.umask(0o077)
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    out.note(f"agent of node {name} on {listen}; end it with Ctrl-C, its workers go on")
    settings = AgentSettings(name, host, port, certificates.absolute())
    run_agent(deployment_paths(state), find_installation(), settings)
