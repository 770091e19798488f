"""Records of other machines are written where those of this one are."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest

from jigsaw_triton.controller.fleet import remote_traces
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.remote_traces import FILE, RemoteTraces
from jigsaw_triton.runtime.trace import FOLDER, WORKERS
from tests.console.otlp.records import run
from tests.waiting import WAIT_LIMIT_S


class FakeNode:
    """A node with a worker, which has answers to the first questions."""

    workers: Mapping[str, Any] = {"w": None}

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def run_records(self) -> list[str]:
        return self.answers.pop(0) if self.answers else []


def line(worker: str, token: int) -> str:
    return json.dumps(asdict(run(token, worker=worker)))


def test_records_of_known_workers_are_written(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_traces, "FETCH_S", 0.01)
    # A model's code may write anything into its file.
    spoiled = ["spoiled", "[" * 200_000, json.dumps({**asdict(run(5)), "worker": []})]
    node = FakeNode([line("w", 1), *spoiled, line("../w", 2), line("x", 3)], [line("w", 4)])
    traces = RemoteTraces(run_dir, [cast(RemoteNode, node)])
    path = run_dir / FOLDER / WORKERS / "w" / FILE

    async def check() -> None:
        await traces.configure(wanted=False)
        await traces.configure(wanted=True)
        await traces.configure(wanted=True)
        async with asyncio.timeout(WAIT_LIMIT_S):
            while not (path.exists() and len(path.read_text().splitlines()) == 2):  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
        await traces.configure(wanted=False)

    asyncio.run(check())
    assert path.read_text().splitlines() == [line("w", 1), line("w", 4)]
    assert [found.name for found in (run_dir / FOLDER / WORKERS).iterdir()] == ["w"]
