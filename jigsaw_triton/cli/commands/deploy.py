"""`jigsaw-triton deploy`: deploys graphs, or updates what is running."""

from typing import Any

import click
from click.core import ParameterSource

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.files import Mistakes
from jigsaw_triton.api.observed import raise_failure
from jigsaw_triton.api.programs import find_server
from jigsaw_triton.api.reporting import COMMAND_LINE
from jigsaw_triton.api.request import Request
from jigsaw_triton.api.rollout import Rollout
from jigsaw_triton.api.sources import absolute_path
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.demand import parse_demand
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.dry_run import preview_rollout
from jigsaw_triton.cli.views.status import status_view
from jigsaw_triton.cli.views.transition import transition_view
from jigsaw_triton.errors import StateError
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.transition.transition import Transition, check_room, transition


@options.command(
    "deploy",
    examples=(
        "deploy app --gpus 2xcpu --demand 2 --detach",
        "deploy app --gpus 2xcpu --demand 6",
        "deploy app --gpus 2xcpu --canary 5% --canary-for 10m",
        "deploy app --gpus 1xA100-80GB --demand 20 --dry-run",
        "deploy traffic social --cluster cluster.yaml --demand traffic=40,social=15",
    ),
)
@options.graphs()
@options.cluster()
@options.demand(required=False)
@options.objective()
@options.share()
@options.change_price()
@options.standby()
@options.period()
@options.baseline()
@options.option(
    "--target",
    type=click.Choice(("auto", "graph", "ensemble", "bls")),
    help="Target to compile to, instead of the graphs' own.",
)
@options.option(
    "--deterministic",
    is_flag=True,
    help="Let emulated models take the profiled median time, and yield even numbers of rows, instead of drawing both.",
)
@options.option("--http", type=click.IntRange(1, 65535), help="HTTP port of the gateway.  [default: 8000]")
@options.option("--grpc", type=click.IntRange(1, 65535), help="gRPC port of the gateway.  [default: 8001]")
@options.option("--metrics", type=click.IntRange(1, 65535), help="Metrics port of the gateway.  [default: 8002]")
@options.option("--address", help="IPv4 address that the gateway listens on.  [default: 127.0.0.1]")
@options.option(
    "--canary",
    metavar="SHARE",
    type=options.Share(),
    help="Let the update answer this share of the requests first, such as 5%, and take it back if it does worse.",
)
@options.option(
    "--canary-for",
    "canary_s",
    metavar="DURATION",
    type=options.Duration(),
    default="5m",
    show_default=True,
    help="Decide about the canary after this time.",
)
@options.option("--detach", is_flag=True, help="Return once the deployment serves, and leave it running.")
@options.option(
    "--dry-run", is_flag=True, help="Print what the command would do, with all command lines, and do nothing."
)
@options.option("--yes", is_flag=True, help="Do not ask before a change during which requests will be refused.")
@options.option("--no-wait", is_flag=True, help="Return at once. Wait later with `jigsaw-triton status --wait ready`.")
@options.state()
def command(out: Output, detach: bool, dry_run: bool, yes: bool, no_wait: bool, state: Any, **given: Any) -> None:
    """Deploy graphs, or update the running deployment.

    The command plans for the demand, creates MIG instances, starts a tritonserver in each and the gateway in front, and
    then follows the load. If a deployment is running, it is updated: new models are loaded and checked beside the old
    ones, and no request is lost. If there is no room for that, the table of steps says how many requests will find no
    capacity, and on a terminal the command asks before it goes on. With --canary, the new models first answer a share
    of the requests, and are compared with the running ones on errors and latency. In the foreground the deployment
    serves until Ctrl-C, which takes it down.
    """
    source = click.get_current_context().get_parameter_source("canary_s")
    if given["canary"] is None and source is not ParameterSource.DEFAULT:
        raise click.UsageError("--canary-for needs a canary; add --canary.")
    mistakes = Mistakes()
    deployment, request = Deployment(state), _request(given, mistakes)
    # In the foreground, the command that started the controller takes the deployment down at the end.
    started = deployment.wait_status() is None
    if not dry_run:
        deployment.adopt(reporter=out)
    rollout = deployment.prepare(request, mistakes=mistakes, reporter=out, wording=COMMAND_LINE)
    change = _show_plan(out, rollout)
    if change is not None and change.shortfalls and not (dry_run or yes):
        _confirm(out, change)
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
        return
    following, last = False, None
    try:
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


def _request(given: dict[str, Any], mistakes: Mistakes) -> Request:
    graphs = tuple(absolute_path(path) for path in given.pop("graphs"))
    cluster = given.pop("cluster")
    if cluster is not None:
        cluster = absolute_path(cluster)
    return Request(graphs=graphs, cluster=cluster, demand=parse_demand(given.pop("demand"), mistakes), **given)


def _show_plan(out: Output, rollout: Rollout) -> Transition | None:
    """Prints the plan. Returns the transition to it from the running plan; None if nothing runs."""
    wanted, plan = rollout.wanted, rollout.plan
    demand = ", ".join(f"{name} {rps:g}/s" for name, rps in wanted.demand_rps.items())
    out.note(f"plan for {demand}: {plan.slices_used} of {plan.slices_total} slices on {plan.gpus_used} GPUs")
    if rollout.problem.running is None:
        for change in difference(None, plan):
            out.note(f"  {change}")
        return None
    check_room(rollout.problem, plan)
    found = transition(rollout.problem, plan, wanted.options)
    for part in transition_view(found, plan):
        text = part.plain() if isinstance(part, Table) else str(part)
        for line in filter(None, text.splitlines()):
            out.note(f"  {line}")
    return found


def _confirm(out: Output, change: Transition) -> None:
    """Asks whether to go on with a change during which requests find no capacity, if someone can answer.

    Raises:
        StateError: The answer is no.
    """
    lost = ", ".join(f"{s.graph}: about {s.requests:.0f} in {s.seconds:.0f} s" for s in change.shortfalls)
    out.warn(f"requests will be refused during this change ({lost})")
    if out.interactive and not click.confirm("Go on?", err=True):
        raise StateError("the update was not started", hint="free a slice, or try again when the load is low")
