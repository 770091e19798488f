"""Processor time that the gateway itself takes: for a request, for each call of a worker, and for each megabyte.

`planner.domain.gateway_load` reckons with these figures. Beside them, the time that a python step adds to a request.
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
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.servers.installation import find_installation

WARM_UP_S = 1.0
RUN_S = 3.0
CLIENTS = 8
STAGES = ("first", "second", "third")
LARGE_FLOATS = 150_000
"""Floats in and out of the one stage of the large graph: 600 kB each."""

STEPPED = "stepped"

_MEGABYTES = 2 * LARGE_FLOATS * 4 / 1e6

Costs = Mapping[str, Sequence[float]]
"""Graph -> the gateway's microseconds for one request, one a round."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Loads chains of one to three stages, and one stage with large tensors, in turn."""
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        small = {f"calls-{n}": graphs.chain(Path(path), f"calls-{n}", stages=STAGES[:n]) for n in (1, 2, 3)}
        large = graphs.chain(Path(path), "large", stages=STAGES[:1], floats=LARGE_FLOATS)
        stepped = graphs.stepped(Path(path), STEPPED)
        wanted = sides.one_worker_a_task([*small.values(), large, stepped], system.cluster("cpu", 2))
        progress("cost: starting nine workers")
        async with sides.behind_gateway(find_installation(), wanted) as found:
            costs: dict[str, list[float]] = {name: [] for name in (*small, "large")}
            times: dict[str, list[float]] = {name: [] for name in (*small, STEPPED)}
            for number in range(effort.rounds):
                progress(f"cost: round {number + 1} of {effort.rounds}")
                for name, known in costs.items():
                    floats = LARGE_FLOATS if name == "large" else graphs.FLOATS
                    known.append(await _cost_us(found[name], floats, effort))
                for name, taken in times.items():
                    taken.append(await _time_ms(found[name], effort))
    return [*figures(costs), step_figure(times)]


async def _time_ms(side: Side, effort: Effort) -> float:
    """The mean time of one request after the other, in milliseconds."""
    request = client.request(side.graph.name, {"X": np.ones((1, graphs.FLOATS), np.float32)})
    rate = await client.closed_loop(side.ports, request, 1, warm_up_s=0.2, seconds=effort.seconds(RUN_S))
    return 1e3 / max(rate, 1e-3)


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


def step_figure(times: Mapping[str, Sequence[float]]) -> Figure:
    """The time that a python step after one stage adds to a request.

    Args:
        times: Graph -> milliseconds of one request, one a round.
    """
    added = [with_it - without for with_it, without in zip(times[STEPPED], times["calls-1"], strict=True)]
    stage = [two - one for two, one in zip(times["calls-2"], times["calls-1"], strict=True)]
    note = (
        f"mean time that a python step of {graphs.FLOATS} floats adds, one client over HTTP, median of {len(added)} "
        f"rounds, {spread(added)}; baseline: what one more stage of a model in Python adds, ms"
    )
    return figure("dataplane.cost.step_ms", median(added), "ms", note, baseline=median(stage))
