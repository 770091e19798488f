"""`jigsaw-triton deploy`: deploys graphs, or updates what is running."""

from typing import Any

import click
from click.core import ParameterSource

from jigsaw_triton.api.console import check_console, start_console
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.files import Mistakes
from jigsaw_triton.api.observed import raise_failure
from jigsaw_triton.api.programs import find_server
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.request import SETTINGS, Request
from jigsaw_triton.api.sources import absolute_path
from jigsaw_triton.cli.inputs import deployments, option_types, options
from jigsaw_triton.cli.inputs.demand import parse_demand
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.views.dry_run import preview_rollout
from jigsaw_triton.cli.views.rollout import confirm_rollout, show_rollout
from jigsaw_triton.cli.views.status import status_view
from jigsaw_triton.console.web.settings import PORT as CONSOLE_PORT


@options.command(
    "deploy",
    examples=(
        "deploy app --gpus 2xcpu --demand 2 --detach",
        "deploy app --gpus 2xcpu --demand 6",
        "deploy app --gpus 2xcpu --canary 5% --canary-for 10m",
        "deploy app --gpus 2xcpu --detach --console",
        "deploy --add other --demand 3",
        "deploy app --gpus 1xA100-80GB --demand 20 --dry-run",
        "deploy traffic social --cluster cluster.yaml --demand traffic=40,social=15",
    ),
)
@options.graphs()
@options.option(
    "--add",
    "joins",
    is_flag=True,
    help="Add the graphs to those that are deployed, and keep the settings that are not given.",
)
@options.cluster()
@options.demand(required=False)
@deployments.planning()
@options.option(
    "--target",
    type=click.Choice(("auto", "graph", "ensemble", "bls")),
    help="Target to compile to, instead of the graphs' own.",
)
@deployments.deterministic()
@options.option("--http", type=click.IntRange(1, 65535), help="HTTP port of the gateway.  [default: 8000]")
@options.option("--grpc", type=click.IntRange(1, 65535), help="gRPC port of the gateway.  [default: 8001]")
@options.option("--metrics", type=click.IntRange(1, 65535), help="Metrics port of the gateway.  [default: 8002]")
@options.option("--address", help="IPv4 address that the gateway listens on.  [default: 127.0.0.1]")
@deployments.observing(
    "Serve the controller's metrics on this port, for Prometheus.  [default: only on its Unix socket]"
)
@options.option(
    "--canary",
    metavar="SHARE",
    type=option_types.Share(),
    help="Let the update answer this share of the requests first, such as 5%, and take it back if it does worse.",
)
@options.option(
    "--canary-for",
    "canary_s",
    metavar="DURATION",
    type=option_types.Duration(),
    default="5m",
    show_default=True,
    help="Decide about the canary after this time.",
)
@options.option(
    "--console",
    "console_port",
    # The name JIGSAW_CONSOLE is taken: it decides whether an installation builds the console.
    variable="JIGSAW_CONSOLE_PORT",
    metavar="[PORT]",
    type=click.IntRange(1, 65535),
    is_flag=False,
    flag_value=CONSOLE_PORT,
    help=f"Start the web console, too, on this port of this machine, by default {CONSOLE_PORT}. It ends with the "
    "deployment.",
)
@options.option("--detach", is_flag=True, help="Return once the deployment serves, and leave it running.")
@options.option(
    "--dry-run", is_flag=True, help="Print what the command would do, with all command lines, and do nothing."
)
@deployments.yes()
@options.option("--no-wait", is_flag=True, help="Return at once. Wait later with `jigsaw-triton status --wait ready`.")
@options.state()
def command(
    out: Output,
    console_port: int | None,
    detach: bool,
    dry_run: bool,
    yes: bool,
    no_wait: bool,
    state: Any,
    **given: Any,
) -> None:
    """Deploy graphs, or update the running deployment.

    The command plans for the demand, creates MIG instances, starts a tritonserver in each and the gateway in front, and
    then follows the load. If a deployment is running, it is updated: new models are loaded and checked beside the old
    ones, and no request is lost. If there is no room for that, the table of steps says how many requests will find no
    capacity, and on a terminal the command asks before it goes on. With --canary, the new models first answer a share
    of the requests, and are compared with the running ones on errors and latency. With --add, the graphs join those
    that are deployed, which stay as they were deployed: their files are not read again. In the foreground the
    deployment serves until Ctrl-C, which takes it down.
    """
    if given["canary"] is None and _is_given("canary_s"):
        raise click.UsageError("--canary-for needs a canary; add --canary.")
    if given["joins"] and given["canary"] is not None:
        raise click.UsageError("--canary compares changed graphs, and --add changes none; omit one of the two.")
    process = {name: given.pop(name) for name in ("log_format", "controller_metrics")}
    mistakes, deployment = Mistakes(), Deployment(state, **process)
    if console_port is not None:
        check_console(deployment.paths, console_port)
    # In the foreground, the command that started the controller takes the deployment down at the end.
    started = deployment.wait_status() is None
    if not dry_run:
        deployment.adopt(reporter=out)
    if given["joins"]:
        given |= {name: None for name in SETTINGS if not _is_given(name)}
    request = _request(given, mistakes)
    rollout = deployment.prepare(request, mistakes=mistakes, reporter=out, wording=COMMAND_LINE)
    change = show_rollout(out, rollout)
    if not (dry_run or yes):
        confirm_rollout(out, rollout, change)
    if dry_run:
        with out.working("looking for tritonserver") as report:
            installation = find_server(rollout.wanted, report)
        preview = preview_rollout(rollout, installation, deployment.paths)
        out.result({**preview.to_json(), "plan": rollout.plan.to_json()}, *preview.view())
        return
    with out.working("looking for the programs of the servers") as report:
        deployment.ensure_programs(rollout, report, out)
    deployment.roll_out(rollout, wait=not no_wait, keep_serving=detach, reporter=out)
    if no_wait:
        _open_console(out, deployment, console_port)
        return
    following, last = False, None
    try:
        _open_console(out, deployment, console_port)
        status = deployment.status()
        out.result(status, *status_view(status, out))
        if started and not detach:
            out.note("serving; Ctrl-C stops the deployment")
            following = True
            last = deployment.follow(out.note, deployment.last_event(), lambda a: bool(a["state"] == "stopped"))
    except BaseException:
        # An update continues, because the deployment belongs to all its users.
        if following or (rollout.before is None and not detach):
            deployment.down(missing_ok=True, reporter=out)
        raise
    if last is not None and last["state"] == "gone":
        raise_failure(last)


def _open_console(out: Output, deployment: Deployment, port: int | None) -> None:
    """Starts the web console on a port, if one is given, and prints the URL that opens it."""
    if port is not None:
        out.note(f"web console: {start_console(deployment.paths, port)}")


def _is_given(parameter: str) -> bool:
    """Returns True if the user has set a parameter, on the command line or in the environment."""
    return click.get_current_context().get_parameter_source(parameter) is not ParameterSource.DEFAULT


def _request(given: dict[str, Any], mistakes: Mistakes) -> Request:
    graphs = tuple(absolute_path(path) for path in given.pop("graphs"))
    cluster = given.pop("cluster")
    if cluster is not None:
        cluster = absolute_path(cluster)
    return Request(graphs=graphs, cluster=cluster, demand=parse_demand(given.pop("demand"), mistakes), **given)
