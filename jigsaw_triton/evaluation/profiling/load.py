"""Closed-loop load on one model of a slice, with as many concurrent batches as the model has instances.

The loop speaks Triton's HTTP protocol on the Unix socket that the gateway would use, so it measures the latency of a
batch as the gateway sees it. perf_analyzer cannot do this: it cannot connect to a Unix socket or measure a batch that
consists of several concurrent requests, and it repeats windows until they agree, while this loop takes about the same
time for every configuration.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.profiling.figures import Span, within
from jigsaw_triton.evaluation.profiling.protocol import CallError
from jigsaw_triton.evaluation.profiling.tensors import Batch
from jigsaw_triton.runtime.dtypes import Array, Arrays

_POLL_S = 0.01


class LaneConnection(Protocol):
    """Connection of a lane to a server; the subset of `connection.Connection` that the loop uses."""

    def send(self, model: str, inputs: Arrays, outputs: tuple[str, ...]) -> None:
        """Sends a request."""
        ...

    def receive(self) -> dict[str, Array]:
        """Waits for the answer and returns its outputs."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Duration of a loop.

    Attributes:
        seconds: Minimum duration of the measurement in seconds.
        warm_up_s: Minimum duration of the warm-up in seconds.
        warm_up_batches: Minimum number of batches per lane in the warm-up.
        least_batches: Minimum number of measured batches per lane, however long they take.
    """

    seconds: float = 3.0
    warm_up_s: float = 0.5
    warm_up_batches: int = 2
    least_batches: int = 5


@dataclass(frozen=True, slots=True)
class Target:
    """Model to measure.

    Attributes:
        model: Name of the model on the server.
        outputs: Names of the requested outputs.
        connect: Function that opens a connection for a lane, given its number, to the server or to one of several.
    """

    model: str
    outputs: tuple[str, ...]
    connect: Callable[[int], LaneConnection]


async def closed_loop(target: Target, batches: Sequence[Batch], lanes: int, pace: Pace) -> list[list[Span]]:
    """Sends batches one after the other in each of several concurrent lanes, and measures each batch.

    Args:
        target: Model to measure.
        batches: Batches to send in turn; each lane starts with another one.
        lanes: Number of lanes, and so of concurrent batches.
        pace: Duration of the loop.

    Returns:
        The measured batches of each lane. All lanes were busy throughout, and shortly before and after.

    Raises:
        ServerError: A batch was not answered.
    """
    stop = threading.Event()
    spans: list[list[Span]] = [[] for _ in range(lanes)]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
        tasks = [
            loop.run_in_executor(pool, _lane, target, index, batches, index * len(batches) // lanes, spans[index], stop)
            for index in range(lanes)
        ]

        async def until(enough: Callable[[], bool]) -> float:
            while not enough():
                done, _ = await asyncio.wait(tasks, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    await task  # A lane that ends before `stop` is set has failed.
            return time.perf_counter()

        try:
            begun = time.perf_counter()
            start = await until(
                lambda: (
                    time.perf_counter() >= begun + pace.warm_up_s
                    and all(len(lane) >= pace.warm_up_batches for lane in spans)
                )
            )
            warm = [len(lane) for lane in spans]
            end = await until(
                # One batch more than the minimum, because the batch in flight at the start does not count.
                lambda: (
                    time.perf_counter() >= start + pace.seconds
                    and all(len(lane) - warm[i] > pace.least_batches for i, lane in enumerate(spans))
                )
            )
        finally:
            stop.set()
        await asyncio.gather(*tasks)
    return [within(lane, start, end) for lane in spans]


def _lane(
    target: Target, lane: int, batches: Sequence[Batch], first: int, spans: list[Span], stop: threading.Event
) -> None:
    connections: list[LaneConnection] = []
    try:
        connections += [target.connect(lane) for _ in batches[0]]
        number = first
        while not stop.is_set():
            begun = time.perf_counter()
            for connection, request in zip(connections, batches[number % len(batches)], strict=True):
                connection.send(target.model, request, target.outputs)
            for connection in connections:
                connection.receive()
            spans.append((begun, time.perf_counter()))
            number += 1
    except CallError as error:
        raise ServerError(f"a batch was not answered: {error.reason}", where=target.model) from error
    finally:
        for connection in connections:
            connection.close()
