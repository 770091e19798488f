"""Measures how busy neighbours on other slices of the same GPU slow a configuration down."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.profiling.figures import Figures, figures
from jigsaw_triton.evaluation.profiling.load import Pace, closed_loop
from jigsaw_triton.evaluation.profiling.measure import Profiler
from jigsaw_triton.evaluation.profiling.neighbour import BusyNeighbour, NeighbourLoad
from jigsaw_triton.evaluation.profiling.workers import ProfilingWorkers
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow


@dataclass(frozen=True, slots=True)
class Interference:
    """Figures of a configuration with idle and with busy neighbours.

    Attributes:
        key: Configuration, of the measured slice and of each neighbour.
        neighbours: Number of neighbouring slices.
        idle: Figures while the neighbours have their models loaded and no requests.
        busy: Figures while all instances of the neighbours are busy.
    """

    key: ProfileKey
    neighbours: int
    idle: Figures
    busy: Figures

    @property
    def latency(self) -> float:
        """Factor of the 95th percentile of the latency by which the neighbours slow the slice down."""
        return self.busy.latency_p95_ms / self.idle.latency_p95_ms

    @property
    def throughput(self) -> float:
        """Share of the throughput that is left."""
        return self.busy.throughput_rps / self.idle.throughput_rps


def most_efficient(rows: Sequence[ProfileRow], most_ms: float) -> list[ProfileKey]:
    """Returns the measured configuration of each variant on each kind of slice that carries most within a latency.

    Args:
        rows: Rows of the variants.
        most_ms: Largest 95th percentile of the latency. A variant that is slower in all configurations is left out.
    """
    best: dict[tuple[str, str, str], ProfileRow] = {}
    for row in rows:
        name = (row.key.task, row.key.variant, row.key.slice)
        if row.source != "measured" or row.latency_p95_ms > most_ms:
            continue
        if name not in best or row.throughput_rps > best[name].throughput_rps:
            best[name] = row
    return [row.key for row in best.values()]


async def interference(
    profiler: Profiler, workers: ProfilingWorkers, key: ProfileKey, neighbours: int, pace: Pace
) -> Interference:
    """Measures a configuration with idle neighbours, and then with busy ones.

    Each neighbour serves the same configuration on a slice of the same kind of the same GPU.

    Args:
        profiler: Profiler that has made inputs for the task.
        workers: Workers of the profiler.
        key: Configuration.
        neighbours: Number of neighbours, at least one.
        pace: Duration of each of the two measurements.

    Raises:
        PlacementError: The GPU has no room for so many slices.
        ServerError: A slice does not start, a model does not load, or a batch is not answered.
    """
    async with AsyncExitStack() as slices:
        load = await slices.enter_async_context(profiler.serving(key))
        loads = []
        for _ in range(neighbours):
            beside = workers.neighbour()
            slices.push_async_callback(beside.stop)
            theirs = await slices.enter_async_context(profiler.on(beside).serving(key))
            loads.append(NeighbourLoad.of(theirs, beside.addresses))
        idle = await closed_loop(load, pace)
        with ExitStack() as running:
            around = []
            for one in loads:
                around.append(await asyncio.to_thread(BusyNeighbour, one))
                running.callback(around[-1].close)
            busy = await closed_loop(load, pace)
            if not all(one.busy for one in around):
                raise ServerError("the load on a neighbouring slice ended", where=key.variant)
    return Interference(key, neighbours, figures(idle.lanes, key.batch), figures(busy.lanes, key.batch))
