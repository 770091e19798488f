"""Records of traced batches on other machines, fetched while traces are exported."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.runtime.trace import FOLDER, WORKERS, TraceFile, run_from_json

FETCH_S = 1.0
"""Seconds between two questions to a node."""

FILE = "remote.jsonl"
"""Name of the file of a worker of another machine, in the folder that a worker of this machine has, too."""


class RemoteTraces:
    """Fetches what workers of other machines record, and writes it where workers of this machine do.

    Whatever reads the records of this machine then has those of all: the export of traces, and `jigsaw-triton trace`.

    Args:
        run_dir: Run directory of the deployment.
        nodes: The other machines.
    """

    def __init__(self, run_dir: Path, nodes: Iterable[RemoteNode]) -> None:
        self._folder = run_dir / FOLDER / WORKERS
        self._nodes = nodes
        self._fetching: asyncio.Task[None] | None = None

    async def configure(self, *, wanted: bool) -> None:
        """Fetches records from now on, or no longer."""
        if not wanted:
            await self.stop()
        elif self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(), name="records of other machines")

    async def stop(self) -> None:
        """Ends the fetching. The call may be repeated."""
        fetching, self._fetching = self._fetching, None
        await end_tasks(fetching)

    async def _fetch(self) -> None:
        while True:
            answers = await asyncio.gather(*(self._lines_of(node) for node in self._nodes))
            if any(answers):
                await asyncio.to_thread(self._write, [line for lines in answers for line in lines])
            await asyncio.sleep(FETCH_S)

    async def _lines_of(self, node: RemoteNode) -> list[str]:
        """Returns the new records of the workers that a node has."""
        return [line for line in await node.run_records() if _worker_of(line) in node.workers]

    def _write(self, lines: list[str]) -> None:
        by_worker: dict[str, list[str]] = {}
        for line in lines:
            by_worker.setdefault(_worker_of(line), []).append(line)
        for worker, own in by_worker.items():
            TraceFile(self._folder / worker / FILE).append(own)


def _worker_of(line: str) -> str:
    """Returns the worker of a record; empty if it is none, since a model's code could spoil the file."""
    with suppress(ValueError):
        # A spoilt line may have a value of any type there.
        worker: object = run_from_json(line).worker
        return worker if isinstance(worker, str) else ""
    return ""
