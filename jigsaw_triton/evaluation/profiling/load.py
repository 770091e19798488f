"""Closed-loop load on one model of a slice, with as many concurrent batches as the model has instances.

The loop speaks Triton's HTTP protocol on the Unix socket that the gateway would use, so it measures the latency of a
batch as the gateway sees it. perf_analyzer cannot do this: it cannot connect to a Unix socket or measure a batch that
consists of several concurrent requests, and it repeats windows until three in a row agree, which states no confidence.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.profiling.confidence import HalfWidths, half_widths
from jigsaw_triton.evaluation.profiling.figures import Span, within
from jigsaw_triton.evaluation.profiling.protocol import CallError
from jigsaw_triton.evaluation.profiling.tensors import Batch
from jigsaw_triton.runtime.dtypes import Array, Arrays

_POLL_S = 0.01

_GROWTH = 1.3
"""Factor by which a measurement has grown when its confidence is computed again. That takes the interpreter from the
lanes for some milliseconds, so it must be rare."""


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


@dataclass(frozen=True, slots=True)
class Pace:
    """Duration of a loop.

    Attributes:
        most_s: Seconds after which the measurement ends in any case, once it has `least_batches`.
        least_s: Minimum duration of the measurement in seconds.
        half_width: Relative half width of the confidence intervals at which the measurement ends.
        warm_up_s: Minimum duration of the warm-up in seconds.
        warm_up_batches: Minimum number of batches per lane in the warm-up.
        least_batches: Minimum number of measured batches per lane, however long they take.
    """

    most_s: float = 10.0
    least_s: float = 1.0
    half_width: float = 0.05
    warm_up_s: float = 0.5
    warm_up_batches: int = 2
    least_batches: int = 5

    def at_most(self, seconds: float) -> "Pace":
        """Returns a pace whose measurement takes no longer than this one's, and at most this many seconds."""
        return replace(self, most_s=min(self.most_s, seconds))


@dataclass(frozen=True, slots=True)
class Load:
    """Load of a closed loop.

    Attributes:
        target: Model to call.
        batches: Batches to send in turn; each lane starts with another one.
        lanes: Number of lanes, and so of concurrent batches.
    """

    target: Target
    batches: Sequence[Batch]
    lanes: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Result of a closed loop.

    Attributes:
        lanes: Measured batches of each lane. All lanes were busy throughout, and shortly before and after.
        seconds: Duration of the measurement.
        half_widths: Half widths of the confidence intervals; None if there are too few batches for them.
        confident: True if the measurement ended because the intervals were narrow enough.
        used_s: Processor time that the servers used meanwhile, in seconds.
    """

    lanes: list[list[Span]]
    seconds: float
    half_widths: HalfWidths | None
    confident: bool
    used_s: float


async def closed_loop(load: Load, pace: Pace, processor_s: Callable[[], float] = lambda: 0.0) -> Loop:
    """Sends batches one after the other in each of several concurrent lanes, and measures each batch.

    The measurement ends when its confidence intervals are narrow enough, or when its time is over.

    Args:
        load: Load to generate.
        pace: Duration of the loop.
        processor_s: Function that returns the processor time that the servers have used so far, in seconds.

    Raises:
        ServerError: A batch was not answered.
    """
    stop = threading.Event()
    spans: list[list[Span]] = [[] for _ in range(load.lanes)]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(load.lanes, thread_name_prefix="lane") as pool:
        tasks = [loop.run_in_executor(pool, _lane, load, lane, spans[lane], stop) for lane in range(load.lanes)]

        async def until(time_s: float, more_than: Sequence[int]) -> float:
            """Waits until a time, and until each lane has more than this many batches. Returns the time."""
            while time.perf_counter() < time_s or not _longer(spans, more_than):
                done, _ = await asyncio.wait(tasks, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    await task  # A lane that ends before `stop` is set has failed.
            return time.perf_counter()

        try:
            warm_up = time.perf_counter() + pace.warm_up_s
            start = await until(warm_up, [pace.warm_up_batches - 1] * load.lanes)
            began_s = processor_s()
            # One batch more than the minimum, because the batch in flight at the start does not count.
            enough = [len(lane) + pace.least_batches for lane in spans]
            seconds = min(pace.least_s, pace.most_s)
            while True:
                end = await until(start + seconds, enough)
                used_s = processor_s() - began_s
                measured = [within(lane, start, end) for lane in spans]
                found = half_widths(measured)
                confident = found is not None and found.widest <= pace.half_width
                if confident or end >= start + pace.most_s:
                    break
                seconds = min(max(seconds, end - start) * _GROWTH, pace.most_s)
        finally:
            stop.set()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException):
            raise error
    return Loop(measured, end - start, found, confident, used_s)


def _longer(lanes: Sequence[Sequence[Span]], counts: Sequence[int]) -> bool:
    return all(len(lane) > count for lane, count in zip(lanes, counts, strict=True))


def _lane(load: Load, lane: int, spans: list[Span], stop: threading.Event) -> None:
    target, batches = load.target, load.batches
    connections: list[LaneConnection] = []
    try:
        connections += [target.connect(lane) for _ in batches[0]]
        number = lane * len(batches) // load.lanes
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
