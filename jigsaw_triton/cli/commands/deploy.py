"""`jigsaw-triton deploy`: plans, starts, serves; or changes what serves."""

import os
from dataclasses import replace
from typing import Any

import click

from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.inputs.files import Mistakes, problem, read_graphs, read_wanted
from jigsaw_triton.cli.inputs.machine import uncut
from jigsaw_triton.cli.inputs.request import Request
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.running import SETTLED, Deployment, raise_failure, require_paths, running_plan
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.dry_run import dry_run as what_would_be_done
from jigsaw_triton.cli.views.status import status_view
from jigsaw_triton.cli.views.transition import transition_view
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.domain.gateway_load import GatewayLoad, gateway_load
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.planner.transition.transition import transition
from jigsaw_triton.servers.edge.haproxy import find_haproxy
from jigsaw_triton.servers.image import pull_image
from jigsaw_triton.servers.installation import Installation, find_installation, require_compiled_backend
from jigsaw_triton.servers.mps import find_control

DEFAULT_RPS = 1.0

_MOST_BUSY = 0.7
"""Part of a host's processors that the gateway may need: workers, clients and bursts need some, too."""


@options.command(
    "deploy",
    examples=(
        "deploy app --gpus 2xcpu --demand 2 --detach",
        "deploy app --gpus 2xcpu --demand 6",
        "deploy app --gpus 1xA100-80GB --demand 20 --dry-run",
        "deploy traffic social --cluster cluster.yaml --demand traffic=40,social=15",
    ),
)
@options.graphs()
@options.cluster()
@options.demand(required=False)
@options.share()
@options.change_price()
@options.latency_model()
@options.option(
    "--target",
    type=click.Choice(("auto", "graph", "ensemble", "bls")),
    help="Target to compile to, instead of the graphs' own.",
)
@options.option("--http", type=click.IntRange(1, 65535), help="HTTP port of the gateway.  [default: 8000]")
@options.option("--grpc", type=click.IntRange(1, 65535), help="gRPC port of the gateway.  [default: 8001]")
@options.option("--metrics", type=click.IntRange(1, 65535), help="Metrics port of the gateway.  [default: 8002]")
@options.option("--address", help="IPv4 address that the gateway listens on.  [default: 127.0.0.1]")
@options.option("--detach", is_flag=True, help="Return once the deployment serves, and leave it running.")
@options.option(
    "--dry-run", is_flag=True, help="Print what the command would do, with all command lines, and do nothing."
)
@options.option("--no-wait", is_flag=True, help="Return at once. Wait later with `jigsaw-triton status --wait ready`.")
@options.state()
def command(out: Output, detach: bool, dry_run: bool, no_wait: bool, state: Any, **given: Any) -> int | None:
    """Deploy graphs, or update the running deployment.

    The command plans for the demand, creates MIG instances, starts a tritonserver in each and the gateway in front, and
    then follows the load. If a deployment is running, it is updated: new models are loaded and checked beside the old
    ones, and no request is lost. In the foreground the deployment serves until Ctrl-C, which takes it down.
    """
    deployment = Deployment.at(state)
    request = _request(given)
    before = deployment.living_status()
    owner = before is None
    if before is None and not dry_run and deployment.serving():
        out.note("no controller runs here, but servers do; a new controller goes on with them")
        deployment.start()
        before = deployment.required_status()
    # A controller that found nothing to go on with is as good as a new one.
    fresh = before is None or before["state"] == "idle"
    started, following = owner and before is not None, False
    try:
        if before is not None and not fresh:
            request = _as_it_runs(request, before)
        wanted, plan = _show_plan(out, request, deployment, None if fresh else before)
        if dry_run:
            would = what_would_be_done(wanted, plan, _server(out), deployment, before)
            out.result({**would.to_json(), "plan": plan.to_json()}, *would.view())
            return None
        _ensure_programs(out, wanted.cluster)
        if before is None:
            deployment.start()
            started = True
        after = deployment.last_event()
        deployment.client.deploy(request.to_json())
        if no_wait:
            return None
        answer = deployment.follow(out.note, after, lambda a: a["state"] in SETTLED and not a["queued"])
        raise_failure(answer, out)
        status = deployment.required_status()
        out.result(status, *status_view(status, out))
        if not detach and owner:
            out.note("serving; Ctrl-C takes all down")
            following = True
            deployment.follow(out.note, deployment.last_event(), lambda a: a["state"] == "stopped")
    except BaseException:
        # A first deployment that was broken off leaves nothing; an update goes on, for it belongs to all its users.
        if following or (started and fresh and not (detach and _serves(deployment))):
            deployment.take_down(out.note)
        raise
    return None


def _serves(deployment: Deployment) -> bool:
    """Whether a generation serves."""
    status = deployment.status()
    return status is not None and status["generation"] > 0 and status["state"] != "stopping"


def _request(given: dict[str, Any]) -> Request:
    graphs = require_paths(list(given.pop("graphs")))
    cluster = given.pop("cluster")
    if cluster is not None:
        (cluster,) = require_paths([cluster])
    return Request(graphs=tuple(graphs), cluster=cluster, demand=tuple(given.pop("demand")), **given)


def _as_it_runs(request: Request, status: dict[str, Any]) -> Request:
    """An update keeps what it does not name: the demand, and the gateway's ports unless a cluster file says them."""
    if not request.demand:
        # What is wrong with the graphs is told where all of the input is read.
        stay = read_graphs(request.graphs, Mistakes()).keys() & status["graphs"].keys()
        kept = tuple(f"{name}={status['graphs'][name]['base_rps']}" for name in sorted(stay))
        request = replace(request, demand=kept)
    gateway = status["gateway"]
    if request.cluster is None and "ports" in gateway:
        ports = gateway["ports"]
        request = replace(
            request,
            http=request.http or ports["http"],
            grpc=request.grpc or ports["grpc"],
            metrics=request.metrics or ports["metrics"],
            address=request.address or ports["address"],
        )
    return request


def _changes_processes(status: dict[str, Any], cluster: Cluster) -> bool:
    """Whether an instance of a model is to be a server of its own that is none now, or the other way round."""
    # A steps worker is on no instance.
    on_instances = (worker for worker in status["workers"] if worker["slice"] is not None)
    return any(bool(worker["process"]) != (cluster.processes == "mps") for worker in on_instances)


def _too_much(load: GatewayLoad) -> str | None:
    """Why this host's processors may not carry a plan; None where they may."""
    processors = len(os.sched_getaffinity(0))
    if load.processors <= _MOST_BUSY * processors:
        return None
    return (
        f"the gateway would keep about {load.processors:.1f} of this host's {processors} processors busy with "
        f"{load.requests_rps:.4g} requests and {load.megabytes_s:.4g} MB a second: plan for less, or use a larger host"
    )


def _show_plan(
    out: Output, request: Request, deployment: Deployment, before: dict[str, Any] | None
) -> tuple[Wanted, Plan]:
    """Reads and plans here first, so that what is wrong is told before anything is touched."""
    wanted = request.read(out, read_wanted, default_rps=DEFAULT_RPS)
    wanted = replace(wanted, cluster=deployment.around_others(wanted.cluster))
    for sentence in uncut(wanted.cluster):
        out.warn(sentence)
    if before is not None and _changes_processes(before, wanted.cluster):
        out.warn("`processes` changes, which the plan does not show: every server is replaced, one slice after another")
    asked = problem(wanted, running=running_plan(before))
    plan = make_plan(asked, wanted.options)
    demand = ", ".join(f"{name} {rps:g}/s" for name, rps in wanted.demand_rps.items())
    out.note(f"plan for {demand}: {plan.slices_used} of {plan.slices_total} slices on {plan.gpus_used} GPUs")
    if (warning := _too_much(gateway_load(wanted.graphs, plan))) is not None:
        out.warn(warning)
    if asked.running is None:
        for change in difference(None, plan):
            out.note(f"  {change}")
        return wanted, plan
    for part in transition_view(transition(asked, plan, wanted.options), plan):
        text = part.plain() if isinstance(part, Table) else str(part)
        for line in filter(None, text.splitlines()):
            out.note(f"  {line}")
    return wanted, plan


def _ensure_programs(out: Output, cluster: Cluster) -> None:
    """Brings what has to run before the controller asks for it, so that a download is seen."""
    if cluster.processes == "mps" and cluster.driver == "nvml":
        find_control()
    if cluster.image is not None:
        with out.working(f"looking for the image {cluster.image.name}, which takes a while where it has to be pulled"):
            pull_image(cluster.image)
    if cluster.gateway_image is not None:
        with out.working(f"looking for the image {cluster.gateway_image.name}, which may have to be pulled"):
            pull_image(cluster.gateway_image)
    if cluster.edge is not None:
        with out.working("looking for HAProxy") as tell:
            find_haproxy(lambda package, mib: tell(f"fetching {package.purpose}: {mib:.0f} MiB"))
    _server(out)


def _server(out: Output) -> Installation:
    with out.working("looking for tritonserver") as tell:
        found = find_installation(lambda package, mib: tell(f"fetching {package.purpose}: {mib:.0f} MiB"))
    return require_compiled_backend(found)
