"""A closed loop on one model of a slice: as many batches under way, at any time, as it has instances.

It speaks Triton's HTTP protocol to the Unix socket that the gateway would use, so it measures what a plan needs to
know: the time of a batch as the gateway sees it. perf_analyzer does not serve for that: it cannot connect to a Unix
socket, it cannot keep a batch together that travels as several requests side by side, and it repeats windows until they
agree, where here every point takes about the same time.
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

_LOOK_S = 0.01


class Wire(Protocol):
    """What is used of `connection.Connection`."""

    def send(self, model: str, inputs: Arrays, outputs: tuple[str, ...]) -> None:
        """Sends a request."""
        ...

    def receive(self) -> dict[str, Array]:
        """Waits for its answer."""
        ...

    def close(self) -> None:
        """Hangs up."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a loop goes on.

    Attributes:
        seconds: Measured, at least.
        warm_up_s: Before that, at least.
        warm_up_batches: Of each lane before that, at least.
        least_batches: Measured of each lane, at least, however long they take.
    """

    seconds: float = 3.0
    warm_up_s: float = 0.5
    warm_up_batches: int = 2
    least_batches: int = 5


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured.

    Attributes:
        model: Name on the server.
        outputs: That are asked for.
        connect: Opens a connection for a lane, whose number it gets, to the server, or to one of several.
    """

    model: str
    outputs: tuple[str, ...]
    connect: Callable[[int], Wire]


async def closed_loop(target: Target, batches: Sequence[Batch], lanes: int, pace: Pace) -> list[list[Span]]:
    """Sends batches, in each lane one after the other, and measures each.

    Args:
        target: Where they go.
        batches: Sent in turn, each lane from another one on.
        lanes: Batches under way at any time.
        pace: For how long.

    Returns:
        Of each lane the batches that were measured: all lanes were busy then, before and after.

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
                done, _ = await asyncio.wait(tasks, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    await task  # It ends before it is told to only by failing.
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
                # One batch more than wanted: the one that was under way at the start does not count.
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
    wires: list[Wire] = []
    try:
        wires += [target.connect(lane) for _ in batches[0]]
        number = first
        while not stop.is_set():
            begun = time.perf_counter()
            for wire, request in zip(wires, batches[number % len(batches)], strict=True):
                wire.send(target.model, request, target.outputs)
            for wire in wires:
                wire.receive()
            spans.append((begun, time.perf_counter()))
            number += 1
    except CallError as error:
        raise ServerError(f"a batch was not answered: {error.reason}", where=target.model) from error
    finally:
        for wire in wires:
            wire.close()
