"""`jigsaw-triton agent`: runs the agent of a machine."""

import os
import sys
from pathlib import Path

import click

from jigsaw_triton.agent.background import end_agent, start_agent
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.addresses import read_address
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.logs import LogFormat, log_to_stderr


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
@options.log_format()
@options.option("--detach", is_flag=True, help="Return as soon as the agent listens, and run it in the background.")
@options.option("--replace", is_flag=True, help="End the agent that runs with this state folder first.")
@options.state()
def command(
    out: Output,
    name: str,
    listen: str,
    certificates: Path,
    log_format: LogFormat,
    detach: bool,
    replace: bool,
    state: Path | None,
) -> None:
    """Run the agent of this machine until SIGTERM. It starts workers here for the controller of a cluster.

    The controller's cluster.yaml has `engine: agents`, and this machine as a node. The workers go on when the agent
    ends, and the next one adopts them. The agent and the controller recognise each other by certificates of the same
    authority; see `certificates`.
    """
    host, port = read_address(listen)
    os.umask(0o077)
    paths = deployment_paths(state)
    if replace:
        end_agent(paths)
    if detach:
        # The agent reads its options from the environment too.
        for variable in ("JIGSAW_DETACH", "JIGSAW_REPLACE"):
            os.environ.pop(variable, None)
        values = {
            "name": name,
            "listen": listen,
            "certificates": certificates.absolute(),
            "log-format": log_format,
            "state": paths.state,
        }
        arguments = [text for option, value in values.items() for text in (f"--{option}", str(value))]
        pid = start_agent(paths, [sys.executable, "-P", "-m", "jigsaw_triton.cli.main", "agent", *arguments])
        out.result({"pid": pid, "log": str(paths.log("agent"))}, f"agent of node {name} on {listen}, process {pid}")
        return
    # The process that starts an agent in the background does not wait for these imports.
    from jigsaw_triton.agent.process import AgentSettings, run_agent
    from jigsaw_triton.servers.installation import find_installation

    log_to_stderr(log_format)
    out.note(f"agent of node {name} on {listen}; end it with Ctrl-C, its workers go on")
    settings = AgentSettings(name, host, port, certificates.absolute())
    run_agent(paths, find_installation(), settings)
