"""Load on a neighbouring slice, from a process of its own: in the same process it would slow the measuring lanes."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess, connected
from jigsaw_triton.errors import JigsawError, ServerError
from jigsaw_triton.evaluation.profiling.connection import Connection
from jigsaw_triton.evaluation.profiling.load import Load, Pace, Target, closed_loop
from jigsaw_triton.evaluation.profiling.tensors import Batch
from jigsaw_triton.evaluation.profiling.workers import TIMEOUT_S

_FIRST = Pace(most_s=0.0, warm_up_s=0.0, warm_up_batches=1, least_batches=1)
_LATER = Pace(most_s=60.0, half_width=0.0)
"""Pace of each later loop. A loop keeps the times of all its batches, so it is begun anew from time to time."""

_BEGIN_S = 3 * TIMEOUT_S
"""Seconds to wait for the first batches."""

_MOST_BATCHES = 8
"""Largest number of different batches, which must all be sent to the process."""


@dataclass(frozen=True, slots=True)
class NeighbourLoad:
    """Load of a closed loop that can be sent to another process.

    Attributes:
        model: Name of the model.
        outputs: Names of the requested outputs.
        addresses: Addresses of the servers, which the lanes use in turn.
        batches: Batches to send in turn.
        lanes: Number of concurrent batches.
    """

    model: str
    outputs: tuple[str, ...]
    addresses: tuple[str, ...]
    batches: tuple[Batch, ...]
    lanes: int

    @classmethod
    def of(cls, load: Load, addresses: Sequence[str]) -> Self:
        """Returns a load on other servers."""
        return cls(
            load.target.model, load.target.outputs, tuple(addresses), tuple(load.batches[:_MOST_BATCHES]), load.lanes
        )

    def load(self) -> Load:
        """Returns the load with connections to the servers."""
        return Load(Target(self.model, self.outputs, partial(_connect, self.addresses)), self.batches, self.lanes)


class BusyNeighbour:
    """A process that keeps a neighbouring slice busy until it is closed. Blocks until the slice is busy.

    Args:
        load: Load on the slice.

    Raises:
        ServerError: The slice does not answer.
    """

    def __init__(self, load: NeighbourLoad) -> None:
        self._process = ChildProcess(__name__)
        try:
            problem: str = self._process.call(load, _BEGIN_S)
        except (ChildEndedError, ChildHungError) as error:
            problem = f"its load ended ({error})"
        if problem:
            self._process.close()
            raise ServerError(f"the neighbouring slice is not busy: {problem}", where=load.model)

    @property
    def busy(self) -> bool:
        """True if the load has not ended by itself."""
        return self._process.alive

    def close(self) -> None:
        """Ends the load."""
        self._process.close()


def _connect(addresses: Sequence[str], lane: int) -> Connection:
    return Connection(addresses[lane % len(addresses)], TIMEOUT_S)


def main(descriptor: int) -> None:
    """Generates the load that the other process sends, until that ends or the slice fails."""
    connection = connected(descriptor)
    load: NeighbourLoad = connection.recv()
    try:
        asyncio.run(closed_loop(load.load(), _FIRST))
    except JigsawError as error:
        connection.send(error.message)
        return
    connection.send("")
    while True:
        asyncio.run(closed_loop(load.load(), _LATER))


if __name__ == "__main__":
    main(int(sys.argv[1]))
