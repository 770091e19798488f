"""`jigsaw-triton export`: writes files for programs that start deployments and agents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from jigsaw_triton.api.exporting import (
    export_compose,
    export_envoy,
    export_kubernetes,
    export_systemd,
    export_systemd_agent,
    export_systemd_front,
)
from jigsaw_triton.api.files import Mistakes
from jigsaw_triton.api.machine import Driver
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.demand import parse_demand
from jigsaw_triton.cli.io.exported import write_exported
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.export.kubernetes.agents import OFF

_OVERWRITE = options.option("--overwrite", is_flag=True, help="Also replace files that no export wrote.")
_FILE = options.out_file("File to write, or folder for it.  [default: standard output]")
_DRIVER = options.option(
    "--driver",
    type=click.Choice(("nvml", "emulated")),
    help="MIG driver, instead of the one in cluster.yaml.  [default: nvml]",
)
_IMAGE = options.option(
    "--image", metavar="NAME", required=True, help="Container image with tritonserver and jigsaw-triton."
)


@click.group("export")
def command() -> None:
    """Write files for other programs: for systemd, Compose and Kubernetes, which start deployments, and for Envoy.

    Nothing is started, and the files contain no secret. GPUs are expected to be real, whatever this machine has, unless
    cluster.yaml or --driver says that they are emulated.
    """


@options.command(
    "systemd",
    examples=(
        "export systemd /srv/app --gpus 4xA100-80GB --demand 50 -O jigsaw-triton.service",
        "export systemd --agent a --listen 10.0.0.1:7440 --certificates /etc/jigsaw-triton/certificates",
        "export systemd --front /srv/cells/front.yaml -O jigsaw-triton-front.service",
    ),
)
@options.graphs(required=False)
@options.cluster(driver="nvml")
@options.demand(required=False)
@options.option("--agent", metavar="NODE", help="Write the unit of this node's agent instead of a deployment's.")
@options.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default="0.0.0.0:7440",
    show_default=True,
    help="IP address and port that the agent listens on.",
)
@options.option("--certificates", metavar="DIR", help="Folder with the certificates of the agent's node.")
@options.option(
    "--front",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the unit of the front of this front.yaml instead of a deployment's.",
)
@options.option(
    "--program",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Path of jigsaw-triton on the machine.  [default: this one]",
)
@options.option("--user", default="jigsaw-triton", show_default=True, help="User that runs the servers.")
@_FILE
@_OVERWRITE
def _systemd(
    out: Output,
    graphs: tuple[str, ...],
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    demand: tuple[str, ...],
    agent: str | None,
    listen: str,
    certificates: str | None,
    front: Path | None,
    program: Path | None,
    user: str,
    out_path: Path | None,
    overwrite: bool,
) -> None:
    """Write the systemd unit of a deployment, of the agent of a node, or of a front of cells.

    The unit says how to install it. Its controller is restarted when it dies, and the servers outlive it. `systemctl
    reload` updates the deployment without losing a request, `systemctl stop` takes it down.
    """
    if agent is None and (unused := _on_command_line("listen", "certificates")):
        message = f"Only an agent takes {unused}: add --agent NODE, or omit {unused}."
        raise click.UsageError(f"{message} A front and a deployment have theirs in front.yaml and cluster.yaml.")
    if front is not None:
        if agent is not None:
            raise click.UsageError("An agent and a front have a unit each; omit --agent or --front.")
        if graphs or gpus is not None or cluster is not None or demand or driver is not None:
            message = "A front serves the cells of its file; omit GRAPH, --gpus, --cluster, --driver and --demand."
            raise click.UsageError(message)
        files = export_systemd_front(front, program=program, user=user, wording=COMMAND_LINE)
    elif agent is None:
        if not graphs:
            message = "Missing argument 'GRAPH...'; for another unit, add --agent NODE or --front FILE."
            raise click.UsageError(message)
        mistakes = Mistakes()
        rps = parse_demand(demand, mistakes)
        given: dict[str, Any] = {"demand": rps, "gpus": gpus, "cluster": cluster, "driver": driver}
        files = export_systemd(
            graphs, **given, program=program, user=user, mistakes=mistakes, reporter=out, wording=COMMAND_LINE
        )
    else:
        if graphs or gpus is not None or cluster is not None or demand:
            message = "An agent serves what its controller deploys; omit GRAPH, --gpus, --cluster and --demand."
            raise click.UsageError(message)
        if certificates is None:
            raise click.UsageError("An agent needs certificates; add --certificates DIR.")
        files = export_systemd_agent(
            agent,
            listen=listen,
            certificates=certificates,
            driver=driver or "nvml",
            program=program,
            user=user,
            wording=COMMAND_LINE,
        )
    _deliver_one(out, files, out_path, overwrite=overwrite)


@options.command(
    "compose",
    examples=("export compose app --image registry.example/jigsaw:1 --gpus 4xA100-80GB --demand 50 -O compose.yaml",),
)
@options.graphs()
@_IMAGE
@options.cluster(driver="nvml")
@options.demand(required=False)
@_FILE
@_OVERWRITE
def _compose(
    out: Output,
    graphs: tuple[str, ...],
    image: str,
    gpus: str | None,
    cluster: str | None,
    driver: Driver | None,
    demand: tuple[str, ...],
    out_path: Path | None,
    overwrite: bool,
) -> None:
    """Write a Compose file for a deployment on one machine.

    The container reads the graphs from their folders, and publishes the gateway's ports on the address of the cluster.
    """
    mistakes = Mistakes()
    files = export_compose(
        graphs,
        image=image,
        demand=parse_demand(demand, mistakes),
        gpus=gpus,
        cluster=cluster,
        driver=driver,
        mistakes=mistakes,
        reporter=out,
        wording=COMMAND_LINE,
    )
    _deliver_one(out, files, out_path, overwrite=overwrite)


@options.command(
    "envoy", examples=("export envoy cells/front.yaml -O envoy.yaml", "export envoy cells -O /etc/envoy/envoy.yaml")
)
@click.argument("front", metavar="FILE", type=click.Path(path_type=Path))
@_FILE
@_OVERWRITE
def _envoy(out: Output, front: Path, out_path: Path | None, overwrite: bool) -> None:
    """Write the configuration of an Envoy that balances requests over the cells of front.yaml, in place of `front`.

    Run it with `envoy -c envoy.yaml`. It sends each request to a cell that has the graph ready, by the weights of the
    file. Unlike `front`, it does not follow what the cells carry, nor changes of front.yaml.
    """
    _deliver_one(out, export_envoy(front, reporter=out), out_path, overwrite=overwrite)


@options.command(
    "kubernetes",
    examples=(
        "export kubernetes app --image registry.example/jigsaw:1 --cluster cluster.yaml --demand 50 -O manifests/",
        "export kubernetes app --image registry.example/jigsaw:1 --cluster cluster.yaml --gateway infra/public "
        "--hostname models.example --service-monitor -O manifests/",
    ),
)
@options.graphs()
@_IMAGE
@options.option(
    "--cluster",
    metavar="FILE",
    required=True,
    type=click.Path(),
    help="cluster.yaml or its folder; the names of its nodes are DNS labels.",
)
@_DRIVER
@options.demand(required=False)
@options.option("--namespace", default="jigsaw-triton", show_default=True, help="Namespace of all objects.")
@options.option(
    "--models",
    metavar="CLAIM",
    help="PersistentVolumeClaim with a folder for each graph, for graphs whose files do not fit into a ConfigMap.",
)
@options.option("--storage", metavar="SIZE", default="20Gi", show_default=True, help="Size of the controller's volume.")
@options.option(
    "--runtime-class",
    metavar="NAME",
    default="nvidia",
    show_default=True,
    help="RuntimeClass that gives containers NVIDIA's driver; '' for the cluster's default.",
)
@options.option(
    "--gateway",
    metavar="[NAMESPACE/]NAME",
    help="Gateway of the Gateway API to attach an HTTPRoute and a GRPCRoute to.  [default: no routes]",
)
@options.option(
    "--hostname", "hostnames", metavar="NAME", multiple=True, help="Host name of the routes; may be repeated."
)
@options.option(
    "--service-monitor", "monitor", is_flag=True, help="Write a ServiceMonitor for the Prometheus Operator."
)
@options.option("--ray", is_flag=True, help="Write a RayCluster for KubeRay, in which Ray starts the agents.")
@options.out_file("Folder for the manifests.", required=True)
@_OVERWRITE
def _kubernetes(
    out: Output, graphs: tuple[str, ...], demand: tuple[str, ...], out_path: Path, overwrite: bool, **given: Any
) -> None:
    """Write manifests for Kubernetes: an agent on each node with GPUs, and a controller with the gateway.

    kustomization.yaml says how to install them, and agents.yaml or raycluster.yaml what must be off on the nodes.
    Certificates, Ray's token, and the edge's keys are in Secrets that you create.
    """
    mistakes = Mistakes()
    rps = parse_demand(demand, mistakes)
    files = export_kubernetes(graphs, demand=rps, **given, mistakes=mistakes, reporter=out, wording=COMMAND_LINE)
    write_exported(out_path, files, overwrite=overwrite, alone=True)
    if any("privileged: true" in text for text in files.values()):
        for text in OFF:
            out.warn(f"must be off on the nodes: {text}")
    out.result({"folder": str(out_path), "files": files}, *(f"wrote {out_path / name}" for name in files))


def _on_command_line(*parameters: str) -> str:
    """Returns which of these options the user has given on the command line. Others may share their variables."""
    context = click.get_current_context()
    given = (name for name in parameters if context.get_parameter_source(name) is ParameterSource.COMMANDLINE)
    return " and ".join(f"--{name}" for name in given)


for leaf in (_systemd, _compose, _envoy, _kubernetes):
    command.add_command(leaf)


def _deliver_one(out: Output, files: Mapping[str, str], path: Path | None, *, overwrite: bool) -> None:
    """Writes the only file to a path, to a folder under its own name, or to standard output."""
    ((name, text),) = files.items()
    if path is not None:
        target = path / name if path.is_dir() else path
        write_exported(target.parent, {target.name: text}, overwrite=overwrite)
        out.note(f"wrote {target}")
    elif not out.json:
        out.raw(text)
    if out.json:
        out.result({"files": files})
