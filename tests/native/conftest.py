from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.native import specs
from tests.native.core import Array, Engine, Front
from tests.native.worker import Call, Handler, Worker


def double(call: Call) -> dict[str, Array]:
    """What most workers do."""
    return {"Y": 2 * call.inputs["X"]}


class Bench:
    """An engine with its run directory, and workers for it."""

    def __init__(self, engine: Engine, stack: ExitStack) -> None:
        self.engine = engine
        self.run_dir = engine.run_dir
        self.workers: list[Worker] = []
        self._stack = stack

    def worker(self, name: str = "w", handler: Handler = double) -> Worker:
        """A worker that serves until the test ends."""
        made = self._stack.enter_context(Worker(self.run_dir, name, handler))
        self.workers.append(made)
        return made

    def route(self, *workers: str, name: str = "t", batch: int = 4, slots: int = 1, **more: object) -> None:
        """A route with the same entry for each worker."""
        specs.write_route(
            self.run_dir, *(specs.entry(worker, batch=batch, slots=slots, **more) for worker in workers), name=name
        )

    def front(self, **more: object) -> Front:
        """A front of one task that doubles its input."""
        return self.engine.front(specs.spec(**more))  # type: ignore[arg-type]


@pytest.fixture
def bench(run_dir: Path) -> Iterator[Bench]:
    with Engine(run_dir) as engine, ExitStack() as stack:
        bench = Bench(engine, stack)
        yield bench
        # What is still under way is answered, and only then workers end.
        for worker in bench.workers:
            worker.going.set()
        engine.close_fronts()


@pytest.fixture
def one() -> dict[str, Array]:
    """A request of one item."""
    return {"X": np.array([[21]], np.int64)}
