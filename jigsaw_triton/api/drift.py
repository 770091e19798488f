"""Drift of a running deployment: the service times of its workers beside the profiles of their models."""

from collections import Counter
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any
from urllib.request import ProxyHandler, build_opener

from jigsaw_triton.api.observed import ObservedDeployment
from jigsaw_triton.controller.core.slowness import read_times_by_batch
from jigsaw_triton.errors import StateError
from jigsaw_triton.profiles.drift import LEAST_BATCHES, Answered, Drift, drifts
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable
from jigsaw_triton.servers.metrics import parse_metrics

_TIMEOUT_S = 10.0


def live_drifts(graph: str, table: ProfileTable, deployment: ObservedDeployment) -> list[Drift]:
    """Compares the batches that a deployment has answered with the profiles.

    The batches are those since the gateway started. The profiled times are those that the graph was deployed with.

    Args:
        graph: Name of the graph.
        table: Profiles of the graph.
        deployment: The deployment.

    Raises:
        StateError: The graph is not deployed, or no configuration has answered `LEAST_BATCHES` batches.
    """
    status = deployment.status()
    where = str(deployment.paths.state)
    if graph not in status["graphs"]:
        names = ", ".join(status["graphs"]) or "none"
        hint = "deploy it, or name another deployment with --state"
        raise StateError(f"the graph {graph} is not served here; served are: {names}", where=where, hint=hint)
    found = drifts(table, _answered(graph, status, gateway_metrics(status["gateway"], where)))
    if all(one.verdict == "too few batches" for one in found):
        most = max((one.batches for one in found), default=0.0)
        raise StateError(
            f"no profiled configuration of {graph} has answered {LEAST_BATCHES} batches yet, the busiest {most:.0f}",
            where=where,
            hint="send requests, as with `jigsaw-triton bench`, and check again",
        )
    return found


def gateway_metrics(gateway: Mapping[str, Any], where: str) -> str:
    """Returns the text of the gateway's metrics.

    Args:
        gateway: Status of the gateway.
        where: State folder of the deployment, for errors.

    Raises:
        StateError: The gateway does not answer.
    """
    url = gateway.get("metrics")
    if url is None:
        raise StateError("the deployment has no gateway", where=where, hint="see `jigsaw-triton status`")
    try:
        # The gateway is in this cluster; a proxy of the environment is for other networks.
        with build_opener(ProxyHandler({})).open(url, timeout=_TIMEOUT_S) as answer:
            return str(answer.read(), "utf-8")
    except (OSError, HTTPException, ValueError) as error:
        message = f"the metrics of the gateway cannot be read ({error})"
        raise StateError(message, where=url, hint="see `jigsaw-triton status`") from error


def _answered(graph: str, status: Mapping[str, Any], metrics: str) -> Iterator[Answered]:
    """Yields the batches of each model on each worker, by batch size."""
    workers = {worker["name"]: worker for worker in status["workers"] if worker["slice"] is not None}
    # Under MPS each instance is a worker of its own.
    processes = Counter(_place(worker) for worker in workers.values())
    for (served, batch), times in read_times_by_batch(parse_metrics(metrics, ("jigsaw_service_",))).items():
        worker = workers.get(served.worker)
        if served.graph != graph or worker is None or not batch:
            continue
        for model in worker["models"]:
            if (model["graph"], model["task"], model["variant"]) == (served.graph, served.task, served.variant):
                instances = model["instances"] * processes[_place(worker)]
                key = ProfileKey(worker["model"], served.task, served.variant, worker["slice"], instances, int(batch))
                yield Answered(key, times.batches, times.seconds, times.profiled_s)
                break


def _place(worker: Mapping[str, Any]) -> tuple[Any, ...]:
    return worker["node"], worker["gpu"], worker["start"]
