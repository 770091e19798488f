import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native import specs
from tests.native.core import Array, Engine, Front, Request
from tests.native.worker import Call, Handler, Worker


def double(call: Call) -> dict[str, Array]:
    """Handler of a model that doubles its input."""
    return {"Y": 2 * call.inputs["X"]}


def column(*values: int) -> Array:
    """Batch of one-element items."""
    return np.array(values, np.int64).reshape(-1, 1)


class Bench:
    """An engine, its run directory and its workers."""

    def __init__(self, engine: Engine, stack: ExitStack) -> None:
        self.engine = engine
        self.run_dir = engine.run_dir
        self.workers: list[Worker] = []
        self._stack = stack

    def worker(self, name: str = "w", handler: Handler = double) -> Worker:
        """Starts a worker that serves until the test ends."""
        made = self._stack.enter_context(Worker(self.run_dir, name, handler))
        self.workers.append(made)
        return made

    def route(
        self,
        *workers: str,
        name: str = "t",
        batch: int = 4,
        slots: int = 1,
        epoch: int | None = None,
        **more: object,
    ) -> None:
        """Writes a route with the same entry for each worker."""
        entries = [specs.entry(worker, batch=batch, slots=slots, **more) for worker in workers]
        specs.write_route(self.run_dir, *entries, name=name, epoch=epoch)

    def front(self, **more: object) -> Front:
        """Makes a front of one task that doubles its input."""
        return self.engine.front(specs.spec(**more))  # type: ignore[arg-type]

    def condemned(self) -> dict[str, dict[str, Any]]:
        """Reads the reports about workers that the engine has taken out of service, by worker."""
        folder = self.run_dir / "condemned"
        return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def occupy(front: Front, *workers: Worker) -> list[Request]:
    """Sends requests that occupy workers of one slot until `worker.answering` is set."""
    for worker in workers:
        worker.answering.clear()
    requests = [front.send({"X": column(-1)}) for _ in workers]
    for worker in workers:
        worker.wait(1)
    return requests


@pytest.fixture
def bench(run_dir: Path) -> Iterator[Bench]:
    with Engine(run_dir) as engine, ExitStack() as stack:
        bench = Bench(engine, stack)
        yield bench
        # Requests in flight must be answered before the workers end.
        for worker in bench.workers:
            worker.answering.set()
        engine.close_fronts()
