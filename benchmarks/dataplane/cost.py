"""Processor time of the gateway: for a request, for each call of a worker, and for each megabyte.

The constants of `planner.domain.gateway_load` are such figures of an earlier run. This part also measures the time
that a Python step adds to a request.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs, sides
from benchmarks.dataplane.sides import Side
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.os_process import processor_s

WARM_UP_S = 1.0
RUN_S = 3.0
CLIENTS = 8
STAGES = ("first", "second", "third")
LARGE_FLOATS = 150_000
"""Floats in the input and in the output of the large graph's only stage: 600 kB each."""

STEPPED = "stepped"

_MEGABYTES = 2 * LARGE_FLOATS * 4 / 1e6

Costs = Mapping[str, Sequence[float]]
"""Graph -> processor time of the gateway for one request in microseconds, one value for each round."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Loads chains of one to three stages, a stage with large tensors, and a stage with a Python step, in turn."""
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        small = {f"calls-{n}": graphs.chain(Path(path), f"calls-{n}", stages=STAGES[:n]) for n in (1, 2, 3)}
        large = graphs.chain(Path(path), "large", stages=STAGES[:1], floats=LARGE_FLOATS)
        stepped = graphs.stepped(Path(path), STEPPED)
        wanted = sides.one_worker_per_task([*small.values(), large, stepped], system.cluster("cpu", 2))
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
    """Returns the mean time of a request in milliseconds, with one request at a time."""
    request = client.request(side.graph.name, {"X": np.ones((1, graphs.FLOATS), np.float32)})
    rate = await client.closed_loop(side.ports, request, 1, warm_up_s=0.2, seconds=effort.seconds(RUN_S))
    return 1e3 / max(rate, 1e-3)


async def _cost_us(side: Side, floats: int, effort: Effort) -> float:
    """Returns the processor time of the gateway for one request, in microseconds."""
    gateway = side.fleet.server(side.fleet.GATEWAY)
    assert gateway is not None
    assert gateway.process.pid is not None
    request = client.request(side.graph.name, {"X": np.ones((1, floats), np.float32)})

    async def load(usual_s: float) -> float:
        seconds = effort.seconds(usual_s)
        return seconds * await client.closed_loop(side.ports, request, CLIENTS, warm_up_s=0.0, seconds=seconds)

    await load(WARM_UP_S)
    before_s = processor_s([gateway.process.pid])
    requests = await load(RUN_S)
    return 1e6 * (processor_s([gateway.process.pid]) - before_s) / max(1.0, requests)


def figures(costs: Costs) -> list[Figure]:
    """Computes the cost of a call (slope over the calls), of a request without calls (intercept), and of a megabyte."""
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
            f"a megabyte between gateway and worker by shared memory, with the client's part; {load}, {spread(added)}",
        ),
    ]


def step_figure(times: Mapping[str, Sequence[float]]) -> Figure:
    """Computes the time that a Python step after one stage adds to a request.

    Args:
        times: Graph -> milliseconds of one request, one value for each round.
    """
    added = [with_it - without for with_it, without in zip(times[STEPPED], times["calls-1"], strict=True)]
    stage = [two - one for two, one in zip(times["calls-2"], times["calls-1"], strict=True)]
    note = (
        f"mean time that a Python step of {graphs.FLOATS} floats adds, one client over HTTP, median of {len(added)} "
        f"rounds, {spread(added)}; baseline: time that another stage with a Python model adds, ms"
    )
    return figure("dataplane.cost.step_ms", median(added), "ms", note, baseline=median(stage))
