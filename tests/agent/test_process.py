"""The process of an agent."""

import asyncio
import os
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.agent import process
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import take_lock
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.servers.logfile import MAX_BYTES


def test_the_log_of_an_agent_is_kept_short(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_UPKEEP_S", 0.01)
    where = Paths(run_dir / "state", run_dir / "run" / "x")
    where.create()
    with where.log("agent").open("wb") as log:
        log.truncate(MAX_BYTES + 1)

    async def main(journal: Journal, lock: int) -> None:
        upkeep = asyncio.create_task(process._upkeep(where, journal, lock))
        async with asyncio.timeout(60):
            while where.log("agent").stat().st_size:  # noqa: ASYNC110 - a rotation has no event
                await asyncio.sleep(0.01)
        upkeep.cancel()

    lock = take_lock(where.lock)
    try:
        with closing(Journal(where.journal)) as journal:
            asyncio.run(main(journal, lock))
    finally:
        os.close(lock)
    older = where.log("agent").with_name("agent.log.1")
    assert older.stat().st_size == MAX_BYTES + 1
