"""Cost of a call to a worker on another node: through both sides of the transport, relative to its Unix socket.

One deployment has two graphs of one model each: one with tiny tensors, one with tensors of 600 kB. Clients load them in
turn through the gateway, while the gateway reaches the same workers in one of these ways:

- directly by their Unix sockets, with shared memory for large tensors, as a gateway calls workers on its own host
- through both HAProxies, over mutual TLS and the loopback interface
- by their Unix sockets without shared memory, which the other ways are compared with

All processes share this machine's processors. With nodes of their own they would not.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs, sides
from benchmarks.dataplane.sides import Side
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.certificates.credentials import Credentials, credentials_in
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.ports import free_ports
from jigsaw_triton.servers.transport.config import Link, Node
from jigsaw_triton.servers.transport.gateway_side import GatewaySide
from jigsaw_triton.servers.transport.node_side import NodeSide

RUN_S = 1.5
LEAST_S = 1.0
WARM_UP_S = 0.5
ROUNDS = 4
"""Rounds for each round of the effort: short ones, because the ways alternate and other load varies."""

CLIENTS = 32
SLO_MS = 30_000

FLOATS = {"tiny": graphs.FLOATS, "600_kb": 150_000}
"""Graph -> floats in each of its tensors."""

GOALS = {"tiny": 0.8, "600_kb": 0.5}

Way = Literal["local", "remote", "socket"]
WAYS: tuple[Way, ...] = ("local", "remote", "socket")

Runs = Mapping[tuple[str, Way], Sequence[float]]
"""(graph, way to its worker) -> requests/s in each round."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts the deployment and both sides of the transport, loads the ways in turn, and compares."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jigsaw-bench-")))
        made = [
            graphs.chain(folder, f"g{name}", stages=("work",), floats=floats, slo_ms=SLO_MS)
            for name, floats in FLOATS.items()
        ]
        wanted = sides.one_worker_per_task(made, system.cluster("cpu", 2))
        progress("starting a deployment of two workers, and both sides of the transport")
        found = await stack.enter_async_context(sides.behind_gateway(find_installation(), wanted))
        ways = Ways(folder, _run_dir(next(iter(found.values()))))
        stack.push_async_callback(ways.stop)
        await ways.start()

        async def load(graph: str, seconds: float) -> float:
            tensor = np.arange(FLOATS[graph], dtype=np.float32).reshape(1, -1)
            request, ports = client.request(f"g{graph}", {"X": tensor}), wanted.cluster.gateway
            await _check(ports, request, tensor)
            warm_up_s = WARM_UP_S if effort.warm_ups else 0.0
            return await client.closed_loop(ports, request, CLIENTS, warm_up_s=warm_up_s, seconds=seconds)

        rounds = ROUNDS * effort.rounds if effort.warm_ups else 1
        runs: dict[tuple[str, Way], list[float]] = {}
        for number in range(rounds):
            for way in WAYS:
                ways.lead(way)
                for graph in FLOATS:
                    progress(f"round {number + 1} of {rounds}: {graph}, {way}")
                    runs.setdefault((graph, way), []).append(await load(graph, effort.seconds(RUN_S, least_s=LEAST_S)))
    return figures(runs)


async def _check(ports: GatewayPorts, request: bytes, tensor: Array) -> None:
    """Checks that a request is answered with twice its tensor.

    Raises:
        ServerError: The request fails, or its answer has another tensor.
    """
    async with client.connections(ports, 1) as (connection,):
        reply = await connection.ask(request)
    if reply.tensors != (2 * tensor).tobytes():
        raise ServerError(f"a request has a wrong answer: {reply.status} {reply.text.decode()}", where="gateway")


def _run_dir(side: Side) -> Path:
    gateway = side.fleet.server(side.fleet.GATEWAY)
    assert gateway is not None
    return Path(gateway.process.command.env["JIGSAW_RUN_DIR"])


class Ways:
    """The ways from the gateway of a deployment to its workers. `stop` it before the deployment.

    Args:
        folder: Folder for certificates and logs.
        run: Run directory of the deployment.
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self._run = run
        self._workers = sorted({entry["worker"] for path in self._routes() for entry in _entries(path)})
        create_authority(folder / "ca", "benchmark")
        port = free_ports("127.0.0.1", 1)[0]
        self._node = NodeSide(
            "far",
            "127.0.0.1",
            port,
            self._credentials(folder, "far"),
            agent=run / "agent.sock",
            folder=run / "far",
            log=folder / "far.log",
            report=_refuse_errors,
        )
        self._gateway = GatewaySide(
            self._credentials(folder, "near"), folder=run / "near", log=folder / "near.log", report=_refuse_errors
        )
        self._nodes = [Node("far", "127.0.0.1", port)]

    async def start(self) -> None:
        """Starts both sides of the transport."""
        for worker in self._workers:
            os.link(self._socket(worker), self._socket(worker, "direct"))
        await self._node.start({worker: self._socket(worker, "direct") for worker in self._workers})
        links = [Link(worker, "far", "1", self._socket(worker, "far")) for worker in self._workers]
        await self._gateway.start(self._nodes, links)

    def lead(self, way: Way) -> None:
        """Leads the gateway's calls to the workers this way from now on."""
        for worker in self._workers:
            _link(self._socket(worker, "far" if way == "remote" else "direct"), self._socket(worker))
        for path in self._routes():
            route = json.loads(path.read_text())
            for entry in route["workers"]:
                entry["remote"] = way != "local"
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(route))
            fresh.replace(path)

    async def stop(self) -> None:
        """Leads the calls to the workers directly, and stops both sides."""
        self.lead("local")
        await self._gateway.stop()
        await self._node.stop()

    def _routes(self) -> list[Path]:
        return sorted((self._run / "routes").glob("*.json"))

    def _socket(self, worker: str, way: str = "") -> Path:
        return self._run / "workers" / f"{worker}{way and f'.{way}'}.sock"

    @staticmethod
    def _credentials(folder: Path, node: str) -> Credentials:
        return credentials_in(issue(folder / "ca", node).path.parent)


def _entries(route: Path) -> Sequence[Mapping[str, str]]:
    found: Sequence[Mapping[str, str]] = json.loads(route.read_text())["workers"]
    return found


def _link(target: Path, path: Path) -> None:
    if not path.samefile(target):
        fresh = path.with_suffix(".new")
        os.link(target, fresh)
        fresh.replace(path)


def _refuse_errors(kind: str, text: str) -> None:
    if kind == "error":
        raise ServerError(text)


def figures(runs: Runs) -> list[Figure]:
    """Computes the figures: the transport relative to a Unix socket, and to one with shared memory if it has a part."""
    near = "by its Unix socket, requests/s"
    found = [_cost(runs, graph, "socket", f"cluster.remote_cost.{graph}", near, GOALS[graph]) for graph in FLOATS]
    shared = "cluster.remote_cost.600_kb_shared"
    return [*found, _cost(runs, "600_kb", "local", shared, "by its Unix socket and shared memory, requests/s", None)]


def _cost(runs: Runs, graph: str, other: Way, name: str, baseline: str, goal: float | None) -> Figure:
    remote_rps, other_rps = runs[graph, "remote"], runs[graph, other]
    ratios = [one / another for one, another in zip(remote_rps, other_rps, strict=True)]
    note = (
        f"{CLIENTS} clients, tensors of {4 * FLOATS[graph]:,} bytes in and out, both HAProxies on this machine; median "
        f"of {len(ratios)} rounds, {spread(ratios)}; {median(remote_rps):.4g} requests/s; baseline: the same worker "
        f"{baseline}"
    )
    return figure(name, median(ratios), "ratio", note, at_least=goal, baseline=median(other_rps))
