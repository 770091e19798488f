import asyncio

import pytest

from jigsaw_triton.background import end_tasks


async def _sleep(ended: list[str], name: str, release: asyncio.Event) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await release.wait()
        ended.append(name)


def test_tasks_are_cancelled_and_waited_for() -> None:
    async def main() -> None:
        ended: list[str] = []
        release = asyncio.Event()
        tasks = [asyncio.create_task(_sleep(ended, name, release)) for name in "ab"]
        await asyncio.sleep(0)
        ending = asyncio.create_task(end_tasks(*tasks, None))
        await asyncio.sleep(0)
        assert not ending.done() and ended == []
        release.set()
        await ending
        assert sorted(ended) == ["a", "b"] and all(task.cancelled() for task in tasks)
        # A second call, and one without a task, do nothing.
        await end_tasks(*tasks)
        await end_tasks(None)

    asyncio.run(main())


def test_a_cancelled_caller_ends_at_once_and_the_tasks_end_after_it() -> None:
    async def main() -> None:
        ended: list[str] = []
        release = asyncio.Event()
        task = asyncio.create_task(_sleep(ended, "a", release))
        await asyncio.sleep(0)
        ending = asyncio.create_task(end_tasks(task))
        await asyncio.sleep(0)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        release.set()
        await asyncio.wait((task,))
        assert ended == ["a"]

    asyncio.run(main())
