"""Processor time that the gateway itself takes: for a request, for each call of a worker, and for each megabyte.

`planner.gateway_load` reckons with these figures.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs, sides
from benchmarks.dataplane.effort import FULL, Effort
from benchmarks.dataplane.sides import Side
from benchmarks.harness import Figure, Tell, figure, spread
from jigsaw_triton.servers.installation import find_installation

WARM_UP_S = 1.0
RUN_S = 3.0
CLIENTS = 8
STAGES = ("first", "second", "third")
LARGE_FLOATS = 150_000
"""Floats in and out of the one stage of the large graph: 600 kB each."""

_MEGABYTES = 2 * LARGE_FLOATS * 4 / 1e6

Costs = Mapping[str, Sequence[float]]
"""Graph -> the gateway's microseconds for one request, one a round."""


async def measure(tell: Tell, effort: Effort = FULL) -> list[Figure]:
    """Loads chains of one to three stages, and one stage with large tensors, in turn."""
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        small = {f"calls-{n}": graphs.chain(Path(path), f"calls-{n}", stages=STAGES[:n]) for n in (1, 2, 3)}
        large = graphs.chain(Path(path), "large", stages=STAGES[:1], floats=LARGE_FLOATS)
        wanted = sides.one_worker_a_task([*small.values(), large], system.cluster("cpu", 1))
        tell("cost: starting seven workers")
        async with sides.behind_gateway(find_installation(), wanted) as found:
            costs: dict[str, list[float]] = {name: [] for name in found}
            for number in range(effort.rounds):
                tell(f"cost: round {number + 1} of {effort.rounds}")
                for name, side in found.items():
                    floats = LARGE_FLOATS if name == "large" else graphs.FLOATS
                    costs[name].append(await _cost_us(side, floats, effort))
    return figures(costs)


async def _cost_us(side: Side, floats: int, effort: Effort) -> float:
    """The gateway's processor time for one request, in microseconds."""
    gateway = side.fleet.server(side.fleet.GATEWAY)
    assert gateway is not None
    assert gateway.process.pid is not None
    request = client.request(side.graph.name, {"X": np.ones((1, floats), np.float32)})

    async def load(usual_s: float) -> float:
        seconds = effort.seconds(usual_s)
        return seconds * await client.closed_loop(side.ports, request, CLIENTS, warm_up_s=0.0, seconds=seconds)

    await load(WARM_UP_S)
    before_s = system.cpu_s(gateway.process.pid)
    requests = await load(RUN_S)
    return 1e6 * (system.cpu_s(gateway.process.pid) - before_s) / max(1.0, requests)


def figures(costs: Costs) -> list[Figure]:
    """Slope over the number of calls, what is left of a request without any, and what large tensors add."""
    slopes, starts = [], []
    for values in zip(*(costs[f"calls-{n}"] for n in (1, 2, 3)), strict=True):
        slope, start = np.polyfit((1, 2, 3), values, 1)
        slopes.append(float(slope))
        starts.append(float(start))
    added = [(big - one) / _MEGABYTES for big, one in zip(costs["large"], costs["calls-1"], strict=True)]
    load = f"the gateway's processor time, {CLIENTS} clients over HTTP, median of {len(slopes)} rounds"
    return [
        figure(
            "dataplane.cost.request_us", median(starts), "us", f"a request without its calls; {load}, {spread(starts)}"
        ),
        figure("dataplane.cost.call_us", median(slopes), "us", f"each call of a worker; {load}, {spread(slopes)}"),
        figure(
            "dataplane.cost.megabyte_us",
            median(added),
            "us",
            f"a megabyte to or from a worker, by shared memory, and the client's; {load}, {spread(added)}",
        ),
    ]
