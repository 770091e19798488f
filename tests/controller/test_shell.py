"""The shell with an executor whose actions do nothing."""

import asyncio
from pathlib import Path
from typing import cast

from jigsaw_triton.controller import actions as a
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet import Fleet
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.settings import Settings
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.controller.state import Phase, State
from jigsaw_triton.planner.domain.plan import Plan
from tests.controller.worlds import bundle, plan, wanted, worker

ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])


class Idle:
    """Executor that returns a plan once `planned` is set, and whose actions never end, except teardown."""

    def __init__(self) -> None:
        self.planned = asyncio.Event()

    async def solve(self, _: a.Solve) -> tuple[Plan, object]:
        await self.planned.wait()
        return plan(10.0), ONE

    async def run(self, action: a.Action) -> None:
        if not isinstance(action, a.Retire | a.StopGateway):
            await asyncio.Event().wait()


class NoServers:
    """A fleet without servers."""

    def server(self, _: str) -> None:
        return None


async def _down_as_a_plan_is_found(journal: Journal) -> State:
    executor = Idle()
    controller = Controller(cast(Executor, executor), cast(Fleet, NoServers()), journal, Settings())
    await controller.deploy(wanted())
    running = asyncio.create_task(controller.run())
    await asyncio.sleep(0)
    executor.planned.set()
    # Request `down` right after the plan has been queued.
    while not controller._queue.qsize():  # noqa: ASYNC110 nothing else signals that the plan is queued
        await asyncio.sleep(0)
    controller.down()
    async with asyncio.timeout(10):
        return await running


def test_down_ends_actions_that_have_not_started(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    state = asyncio.run(_down_as_a_plan_is_found(journal))
    assert state.phase is Phase.STOPPED
    assert not state.actual.workers and not state.inflight
    journal.close()
