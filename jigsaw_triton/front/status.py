"""The status of a front as one JSON document, from HAProxy itself."""

from collections.abc import Mapping
from typing import Any

from jigsaw_triton.controller.persistence.lock import is_locked
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.front.config import LAST
from jigsaw_triton.front.haproxy_stats import Servers, ServerState
from jigsaw_triton.front.model import Front
from jigsaw_triton.front.process import front_place
from jigsaw_triton.front.rules import backend
from jigsaw_triton.front.runtime_api import RuntimeApi
from jigsaw_triton.servers.edge.config import PROTOCOLS


async def front_status(paths: Paths, front: Front) -> dict[str, Any] | None:
    """Returns the status of the front with this folder; None if none runs.

    Args:
        paths: Paths of the front's files.
        front: Settings of the front.
    """
    servers = await RuntimeApi(front_place(paths).admin).servers()
    if servers is None:
        return None
    return document(front, servers, supervised=is_locked(paths.lock))


def document(front: Front, servers: Servers, *, supervised: bool) -> dict[str, Any]:
    """Returns the status as a document.

    Args:
        front: Settings of the front.
        servers: HAProxy's view of the servers.
        supervised: True if the front's process runs, so that weights follow the cells.
    """
    graphs = {graph: _graph(front, graph, servers) for graph in front.graphs}
    ports = front.ports
    return {
        "state": "ready" if supervised else "unsupervised",
        "http": f"{ports.address}:{ports.http}",
        "grpc": f"{ports.address}:{ports.grpc}",
        "metrics": f"http://{ports.address}:{ports.metrics}/metrics",
        "serving": all(any(cell["up"] for cell in cells) for cells in graphs.values()),
        "graphs": graphs,
    }


def _graph(front: Front, graph: str, servers: Servers) -> list[dict[str, Any]]:
    """Returns the servers of a graph: each cell's gateway, and its standby gateway if it has one."""
    found = {
        name: states
        for (section, name), state in servers.items()
        if section == backend("http", graph) and not name.endswith(LAST)
        for states in [[state, servers.get((backend("grpc", graph), name), state)]]
    }
    total = sum(states[0].weight for states in found.values() if states[0].up)
    planned: Mapping[str, float] = {cell.name: cell.shares[graph] for cell in front.cells_of(graph)}
    return [_server(name, states, total, planned.get(name)) for name, states in sorted(found.items())]


def _server(name: str, states: list[ServerState], total: int, planned: float | None) -> dict[str, Any]:
    http = states[0]
    return {
        "cell": name,
        "up": http.up,
        "reason": http.reason,
        "planned_share": planned,
        "share": http.weight / total if http.up and total else 0.0,
        "requests": dict(zip(PROTOCOLS, (state.requests for state in states), strict=True)),
        "in_flight": sum(state.in_flight for state in states),
    }
