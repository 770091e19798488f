import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.dataplane.scale import Run, run_under
from benchmarks.dataplane.standin import Count, Counter, Slot, Worker, answer
from jigsaw_triton.errors import ServerError


def run(load: Coroutine[Any, Any, float], *counts: Count) -> Run:
    left = iter(counts)

    async def count() -> Count:
        return next(left)

    return asyncio.run(run_under(load, count, os.getpid(), workers=2, warm_up_s=0.0, seconds=0.0))


async def succeed() -> float:
    return 1.0


def test_the_busy_share_is_that_between_the_counts() -> None:
    assert run(succeed(), Count(10.0, 100.0, 7), Count(14.0, 106.0, 9)).busy == 6 / (4 * 2)


def test_the_error_of_a_failed_request_is_reported_as_it_is() -> None:
    async def fail() -> float:
        raise ServerError("a request failed")

    with pytest.raises(ServerError, match="a request failed"):
        run(fail(), Count(0.0, 0.0, 0), Count(1.0, 1.0, 1))


def test_clients_end_if_the_workers_cannot_be_asked() -> None:
    ended = False

    async def go_on() -> float:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended = True
        return 0.0

    with pytest.raises(RuntimeError):
        run(go_on())
    assert ended


@asynccontextmanager
async def worker(path: Path, hold_s: float, counter: Counter) -> AsyncIterator[asyncio.StreamReader]:
    """A stand-in that holds one call. Yields the stream of its answer."""
    server = await asyncio.get_running_loop().create_unix_server(lambda: Worker(Slot(hold_s), answer(1), counter), path)
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        for piece in (b"POST / HTTP/1.1\r\nContent-Le", b"ngth: 3\r\n\r\nab", b"c"):
            writer.write(piece)
            await writer.drain()
        yield reader
    finally:
        writer.close()
        server.close()


def test_a_stand_in_holds_one_call_after_the_other() -> None:
    slot = Slot(0.5)
    assert [slot.take(now_s) for now_s in (10.0, 10.4, 20.0)] == [(10.0, 10.5), (10.5, 11.0), (20.0, 20.5)]


def test_a_stand_in_counts_its_calls_and_for_how_long_it_holds_them(tmp_path: Path) -> None:
    async def main() -> tuple[Count, Count]:
        counter = Counter()
        before = counter.count()
        async with worker(tmp_path / "w.sock", 0.02, counter) as answered:
            assert await answered.readexactly(len(answer(1))) == answer(1)
        return before, counter.count()

    before, after = asyncio.run(main())
    assert (before.calls, after.calls) == (0, 1)
    assert 0.015 < after.held_s <= after.at_s - before.at_s
