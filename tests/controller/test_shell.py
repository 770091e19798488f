"""The shell with an executor whose actions do nothing."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller import shell
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.step import step
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.checkpoint import Checkpoints, Renewed, load
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.plan import Plan
from tests.controller.disks import fill_disk, free_disk
from tests.controller.worlds import bundle, generation, plan, wanted, worker

ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
MORE = worker("0/2g@2", ("t0", "a"), ("t1", "a"), generation=2)


class Idle:
    """Executor that returns a plan once `planned` is set, and whose actions never end, except teardown."""

    def __init__(self) -> None:
        self.planned = asyncio.Event()

    async def solve(
        self, action: a.Solve, actual: Actual, standby: frozenset[str]
    ) -> tuple[Plan, Bundle, tuple[Stage, ...]]:
        await self.planned.wait()
        return plan(10.0), ONE, stages_to(actual, action.running, generation(ONE))

    async def run(self, action: a.Action) -> None:
        if not isinstance(action, a.Retire | a.StopGateway):
            await asyncio.Event().wait()


class NoStandby:
    """No standby gateway."""

    def follow(self, actual: Actual, graphs: Iterable[str], generation: int = 0) -> None:
        pass


class NoServers:
    """A fleet without servers."""

    replication = NoStandby()

    def server(self, _: str) -> None:
        return None

    async def energy(self) -> dict[GpuId, float]:
        return {}


async def _down_as_a_plan_is_found(journal: Journal) -> State:
    executor = Idle()
    controller = Controller(cast(Executor, executor), cast(Fleet, NoServers()), journal, Settings())
    await controller.ask(ChangeRequest(wanted()))
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


def test_the_actions_of_a_replaced_controller_say_why_they_have_ended(tmp_path: Path) -> None:
    async def main(journal: Journal) -> None:
        controller = Controller(cast(Executor, Idle()), cast(Fleet, NoServers()), journal, Settings())
        await controller.ask(ChangeRequest(wanted()))
        await asyncio.sleep(0)
        await controller.cancel()

    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        asyncio.run(main(journal))
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as file:
        ((error,),) = file.execute("SELECT error FROM actions")
    assert error.endswith("was cancelled, because a controller on another machine has replaced this one")


class Recording:
    """Executor that plans a generation and records the other actions, which all succeed."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def solve(
        self, action: a.Solve, actual: Actual, standby: frozenset[str]
    ) -> tuple[Plan, Bundle, tuple[Stage, ...]]:
        made = bundle(action.generation, ONE.workers.values() if action.generation == 1 else [MORE])
        return plan(10.0), made, stages_to(actual, action.running, generation(made))

    async def run(self, action: a.Action) -> None:
        self.ran.append(type(action).__name__)


async def _on_a_full_disk(journal: Journal, executor: Recording) -> Controller:
    controller = Controller(cast(Executor, executor), cast(Fleet, NoServers()), journal, Settings())
    running = asyncio.create_task(controller.run())

    async def settled() -> None:
        async with asyncio.timeout(10):
            while controller.state.phase is not Phase.READY or controller.state.inflight:
                await controller.wait_changed(1.0)

    await controller.ask(ChangeRequest(wanted()))
    await settled()
    fill_disk(journal)
    executor.ran.clear()
    controller.notify(e.WorkerExited("n-0-1g-0", "signal 9"))
    controller.notify(e.GatewayExited("signal 9"))
    async with asyncio.timeout(10):
        while len(executor.ran) < 2:
            await controller.wait_changed(0.1)
    assert executor.ran == ["RestartWorker", "RestartGateway"]
    await settled()
    await controller.ask(ChangeRequest(wanted(11.0)))
    await settled()
    assert executor.ran == ["RestartWorker", "RestartGateway"]
    assert "cannot be written: No space left on device" in controller.state.error
    free_disk(journal)
    async with asyncio.timeout(10):
        while journal.failure:  # noqa: ASYNC110 the controller tries again every second
            await asyncio.sleep(0.05)
    await controller.ask(ChangeRequest(wanted(12.0)))
    await settled()
    assert "BringUp" in executor.ran
    controller.leave()
    await running
    return controller


@pytest.mark.slow
def test_a_full_disk_delays_changes_but_no_restart(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        controller = asyncio.run(_on_a_full_disk(journal, Recording()))
    assert controller.state.error == ""
    with closing(JournalReader(tmp_path / "journal.sqlite")) as reader:
        texts = [event.text for event in reader.events()]
    assert "worker n-0-1g-0 ended unexpectedly (signal 9); restarting it now" in texts
    assert "n-0-1g-0 serves again" in texts
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as file:
        nodes = dict(file.execute("SELECT kind, node FROM actions"))
    assert nodes["BringUp"] == "n" and nodes["StartGateway"] == "local"


class FailingOnce(NoServers):
    """A fleet whose first survey of the GPUs fails by a programming error."""

    def __init__(self) -> None:
        self.surveys = 0

    async def wait_changed(self, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)

    async def lost_gpus(self) -> frozenset[GpuId]:
        self.surveys += 1
        if self.surveys == 1:
            raise KeyError("unforeseen")
        return frozenset({wanted().cluster.gpus[0].id})


def test_an_unforeseen_error_does_not_end_the_survey_of_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "SURVEY_S", 0.0)
    monkeypatch.setattr(shell, "TICK_S", 0.01)

    async def main(journal: Journal) -> None:
        controller = Controller(cast(Executor, Recording()), cast(Fleet, FailingOnce()), journal, Settings())
        await controller.ask(ChangeRequest(wanted()))
        running = asyncio.create_task(controller.run())
        async with asyncio.timeout(10):
            while not controller.state.lost:
                await controller.wait_changed(1.0)
        controller.leave()
        await running

    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        asyncio.run(main(journal))


async def _paused_during_a_renewal(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed, begun, go_on = Checkpoints.renewed, threading.Event(), threading.Event()

    def slow(checkpoints: Checkpoints) -> Renewed:
        begun.set()
        assert go_on.wait(10)
        return renewed(checkpoints)

    async def pause_until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await controller.pause(not controller.state.paused)
                await asyncio.sleep(0.001)

    def is_paused_in_the_journal() -> bool:
        found = load(journal)
        assert found is not None
        return found.paused

    monkeypatch.setattr(shell, "TICK_S", 0.01)
    monkeypatch.setattr(Checkpoints, "renewed", slow)
    controller = Controller(cast(Executor, Idle()), cast(Fleet, NoServers()), journal, Settings())
    running = asyncio.create_task(controller.run())
    await controller.ask(ChangeRequest(wanted()))
    await pause_until(begun.is_set)
    for paused in (True, False):
        await controller.pause(paused)
        assert is_paused_in_the_journal() is paused
    long = len(journal.checkpoint()[1])
    go_on.set()
    await pause_until(lambda: len(journal.checkpoint()[1]) < long)
    assert is_paused_in_the_journal() is controller.state.paused
    controller.leave()
    await running


def test_events_are_handled_while_a_long_checkpoint_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        asyncio.run(_paused_during_a_renewal(journal, monkeypatch))


class Interrupted(Recording):
    """Executor that plans while other servers and models come into existence."""

    def __init__(self, exists: list[Actual]) -> None:
        super().__init__()
        self.controller: Controller
        self.exists = exists
        self.staged_from: list[Actual] = []

    async def solve(
        self, action: a.Solve, actual: Actual, standby: frozenset[str]
    ) -> tuple[Plan, Bundle, tuple[Stage, ...]]:
        self._change()
        return await super().solve(action, actual, standby)

    async def stages(
        self, action: a.Solve, plan: Plan, bundle: Bundle, actual: Actual, standby: frozenset[str]
    ) -> tuple[Stage, ...]:
        self.staged_from.append(actual)
        self._change()
        return stages_to(actual, action.running, generation(bundle))

    def _change(self) -> None:
        if self.exists:
            self.controller.state = replace(self.controller.state, actual=self.exists.pop(0))


async def _planned_while_things_change(journal: Journal, executor: Interrupted) -> e.Event:
    controller = Controller(cast(Executor, executor), cast(Fleet, NoServers()), journal, Settings())
    executor.controller = controller
    await controller.ask(ChangeRequest(wanted()))
    async with asyncio.timeout(10):
        return await controller._queue.get()


@pytest.mark.parametrize("changes", range(5))
def test_the_stages_of_a_change_begin_with_what_exists_at_the_end(tmp_path: Path, changes: int) -> None:
    exists = [Actual(gateway=number % 2 == 0) for number in range(changes)]
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        executor = Interrupted(list(exists))
        event = asyncio.run(_planned_while_things_change(journal, executor))
    assert executor.staged_from == exists[:3]
    assert isinstance(event, e.Solved)
    if exists:
        assert event.start is exists[min(changes, 3) - 1]
        assert event.stages == stages_to(event.start, None, generation(event.bundle))


class Dying(Interrupted):
    """Executor whose planning process dies whenever it computes the stages of a change again."""

    async def stages(
        self, action: a.Solve, plan: Plan, bundle: Bundle, actual: Actual, standby: frozenset[str]
    ) -> tuple[Stage, ...]:
        raise JigsawError("the planning process ended with signal 9")


def test_a_plan_is_adopted_even_if_the_planning_process_dies_after_it(tmp_path: Path) -> None:
    now = Actual(gateway=True)
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        executor = Dying([now])
        event = asyncio.run(_planned_while_things_change(journal, executor))
    assert isinstance(event, e.Solved) and event.start is not now
    state, _ = step(executor.controller.state, event)
    assert state.phase is Phase.CHANGING and state.pending is not None
    expected = stages_to(now, None, generation(event.bundle))
    assert (state.stage, *state.stages) == expected


class Switched(Interrupted):
    """Executor that plans while a switch of variants begins, which the test ends.

    Attributes:
        SWITCH: Id of the switch.
    """

    SWITCH = 99

    def __init__(self) -> None:
        super().__init__([])
        self.planned = asyncio.Event()

    async def solve(
        self, action: a.Solve, actual: Actual, standby: frozenset[str]
    ) -> tuple[Plan, Bundle, tuple[Stage, ...]]:
        state = self.controller.state
        self.controller.state = replace(state, inflight={**state.inflight, self.SWITCH: a.SetRoutes({"app.t0": ()})})
        self.planned.set()
        return await super().solve(action, actual, standby)


async def _planned_during_a_switch(journal: Journal, executor: Switched) -> e.Event:
    controller = Controller(cast(Executor, executor), cast(Fleet, NoServers()), journal, Settings())
    executor.controller = controller
    await controller.ask(ChangeRequest(wanted()))
    async with asyncio.timeout(10):
        await executor.planned.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        await controller._handle(e.Done(Switched.SWITCH))
        return await controller._queue.get()


def test_stages_are_computed_after_a_switch_that_is_in_progress_when_the_plan_is_found(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        executor = Switched()
        event = asyncio.run(_planned_during_a_switch(journal, executor))
    after = executor.controller.state.actual
    assert after.routes and executor.staged_from == [after]
    assert isinstance(event, e.Solved) and event.start is after
