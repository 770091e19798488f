"""Rollouts: what `deploy` has planned and not begun yet, and what it warns of."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jigsaw_triton.api import controller, membership
from jigsaw_triton.api.files import Mistakes
from jigsaw_triton.api.machine import uncut_gpus
from jigsaw_triton.api.planning import make_diagnosed_plan
from jigsaw_triton.api.reporting import Reporter, Wording
from jigsaw_triton.api.request import Request, check_canary
from jigsaw_triton.api.shedding import Fit, Shed, fit
from jigsaw_triton.api.wanted import make_problem
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.gateway_load import GatewayLoad, gateway_load
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem

_GATEWAY_SHARE = 0.7
"""Largest share of a host's processors that the gateway may need: workers, clients and bursts need the rest."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A deployment or an update that is planned and not yet in progress.

    Attributes:
        request: Request for the controller.
        wanted: Graphs, profiles and cluster of the request, with the GPUs as they are now.
        problem: Planner's problem.
        plan: Plan that the controller will make too, unless the machine changes meanwhile.
        before: Status of the running deployment; None if nothing is served.
        sheds: Load that graphs have to shed, so that those that join fit.
    """

    request: Request
    wanted: Wanted
    problem: Problem
    plan: Plan
    before: Mapping[str, Any] | None
    sheds: tuple[Shed, ...] = ()

    def size_bytes(self) -> int:
        """Returns the size of the files of the models that are deployed."""
        tasks = (task for graph in self.wanted.graphs.values() for task in graph.tasks.values())
        files = {path for task in tasks for variant in task.variants for path in variant.artifacts.values()}
        return sum(path.stat().st_size for path in files if path.is_file())


def planned_rollout(
    paths: Paths,
    request: Request,
    before: Mapping[str, Any] | None,
    running: Plan | None,
    *,
    mistakes: Mistakes | None,
    reporter: Reporter,
    wording: Wording,
) -> Rollout:
    """Reads a request and plans for it; see `Deployment.prepare`.

    Args:
        paths: Paths of the deployment's files.
        request: The request.
        before: Status of the running deployment; None if nothing is served.
        running: Plan that is served; None if none is.
        mistakes: Mistakes that were found before.
        reporter: Recipient of notes and warnings.
        wording: Form in which mistakes name an option.
    """
    check_canary(request, before, wording)
    if before is not None:
        request = request.as_running(before)
    deployed = membership.deployed(paths) if request.changes_membership else None
    wanted = request.read(
        deployed.wanted if deployed is not None else None, mistakes=mistakes, reporter=reporter, wording=wording
    )
    named = {gpu.id for gpu in wanted.cluster.gpus}
    wanted = replace(wanted, cluster=controller.surveyed_with_foreign(paths, wanted.cluster))
    for gpu in sorted(named - {gpu.id for gpu in wanted.cluster.gpus}):
        reporter.warn(f"GPU {gpu} is lost; the plan does without it. Check dmesg")
    for sentence in uncut_gpus(wanted.cluster):
        reporter.warn(sentence)
    if before is not None and changes_processes(before, wanted.cluster):
        reporter.warn(
            "`processes` changes, which the plan does not show: every server is replaced, one slice after another"
        )
    problem = make_problem(wanted, running=running)
    if deployed is None:
        found = Fit(problem, make_diagnosed_plan(problem, wanted.options, reporter.note))
    else:
        joining = wanted.graphs.keys() - deployed.wanted.graphs.keys()
        provided_rps = membership.provided_rps(deployed, wanted)
        found = fit(problem, wanted.options, provided_rps=provided_rps, joining=joining, progress=reporter.note)
        request = replace(request, demand={**request.demand, **found.lowered_rps})
        wanted = replace(wanted, demand_rps={**wanted.demand_rps, **found.lowered_rps})
    if (warning := exposure(wanted.cluster)) is not None:
        reporter.warn(warning)
    if (warning := _gateway_overload(gateway_load(wanted.graphs, found.plan))) is not None:
        reporter.warn(warning)
    return Rollout(request, wanted, found.problem, found.plan, before, found.sheds)


def changes_processes(status: Mapping[str, Any], cluster: Cluster) -> bool:
    """Returns True if an update changes whether each instance of a model is a server of its own.

    Args:
        status: Status of the running deployment.
        cluster: Cluster of the update.
    """
    # A steps worker has no MIG instance.
    on_instances = (worker for worker in status["workers"] if worker["slice"] is not None)
    return any(bool(worker["process"]) != (cluster.processes == "mps") for worker in on_instances)


def exposure(cluster: Cluster) -> str | None:
    """Returns a warning if clients on other machines reach the gateway; None if none do.

    Args:
        cluster: Cluster with the gateway's address.
    """
    gateway, edge = cluster.gateway, cluster.edge
    if ipaddress.IPv4Address(gateway.address).is_loopback:
        return None
    tls = edge.tls if edge is not None else None
    guarded = (edge is not None and edge.api_keys is not None) or (tls is not None and tls.client_ca is not None)
    open_to_all = "the metrics" if guarded else "inference, the models' metadata and the metrics"
    advice = "" if guarded else "; `edge` in cluster.yaml adds API keys, TLS and client certificates"
    return (
        f"the gateway listens on {gateway.address}, so other machines can reach it. Commands that change servers need "
        f"the deployment's secret, but {open_to_all} are open to everyone: restrict the ports "
        f"{gateway.http}, {gateway.grpc} and {gateway.metrics} with a firewall{advice}"
    )


def _gateway_overload(load: GatewayLoad) -> str | None:
    """Returns a warning if the gateway may need more processors than this host has."""
    processors = len(os.sched_getaffinity(0))
    if load.processors <= _GATEWAY_SHARE * processors:
        return None
    return (
        f"the gateway would keep about {load.processors:.1f} of this host's {processors} processors busy with "
        f"{load.requests_rps:.4g} requests and {load.megabytes_s:.4g} MB a second: plan for less, or use a larger host"
    )
