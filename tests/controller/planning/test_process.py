"""Plans of the planning process, and what happens when it dies, hangs, or is needed for something else."""

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.controller.persistence.checkpoint import VERSION
from jigsaw_triton.controller.planning import process as process_module
from jigsaw_triton.controller.planning import worker as worker_module
from jigsaw_triton.controller.planning.job import Job, Planned
from jigsaw_triton.controller.planning.pickles import Pickles
from jigsaw_triton.controller.planning.planner import carried_out
from jigsaw_triton.controller.planning.process import PlanningProcess
from jigsaw_triton.errors import InfeasibleError, JigsawError, StateError
from jigsaw_triton.planner.solver.solver import lasting_solvers
from jigsaw_triton.resources import templates_dir
from tests.fakes.problems import cluster, docread, docread_profiles

WANTED = Wanted({"docread": docread()}, {"docread": 10.0}, {"docread": docread_profiles()}, cluster(4))
TEMPLATES = load_templates(templates_dir())


@pytest.fixture
def planning() -> Iterator[PlanningProcess]:
    with PlanningProcess() as process:
        yield process


@pytest.fixture(scope="module")
def lasting() -> Iterator[PlanningProcess]:
    """A process for the tests that do not end it."""
    with PlanningProcess() as process:
        yield process


def job(demand_rps: float = 5.0, running: Generation | None = None, wanted: Wanted = WANTED, **more: Any) -> Job:
    number = 1 if running is None else running.bundle.generation + 1
    action = a.Solve(wanted, {"docread": demand_rps}, number, "test", running, wanted.graphs, **more)
    return Job(action, wanted.cluster, Actual(), frozenset(), TEMPLATES, frozenset({"python"}))


async def generation(planning: PlanningProcess, made: Job) -> Generation:
    change = await planning.plan(made)
    assert change is not None
    return Generation(made.action.wanted, change.plan, change.bundle)


def without_time(change: Planned | None) -> Planned:
    assert change is not None
    return replace(change, plan=replace(change.plan, solver=replace(change.plan.solver, seconds=0.0)))


@pytest.mark.slow
def test_the_process_makes_the_plan_that_this_one_would_make(lasting: PlanningProcess) -> None:
    with lasting_solvers() as solvers:
        pickles = Pickles()
        here = without_time(pickles.unpacked(pickles.packed(carried_out(job(), str, solvers))))
    assert without_time(asyncio.run(lasting.plan(job()))) == here
    assert here.stages


def test_a_review_that_saves_nothing_changes_nothing(lasting: PlanningProcess) -> None:
    async def reviewed() -> Planned | None:
        running = await generation(lasting, job())
        return await lasting.plan(job(running=running, review=True, may_fall_short=True))

    assert asyncio.run(reviewed()) is None


def test_a_change_is_ordered_once_more_from_what_exists_then(lasting: PlanningProcess) -> None:
    made = asyncio.run(lasting.plan(job()))
    assert made is not None
    exists = Actual(gateway=True, workers=dict(made.bundle.workers))
    again = asyncio.run(lasting.plan(replace(job(), actual=exists, made=(made.plan, made.bundle), templates={})))
    assert again is not None
    assert (again.plan, again.bundle) == (made.plan, made.bundle)
    expected = stages_to(exists, None, Generation(WANTED, made.plan, made.bundle))
    assert again.stages == expected != made.stages


def test_the_reasons_why_there_is_no_plan_arrive(lasting: PlanningProcess) -> None:
    with pytest.raises(InfeasibleError, match="exceeds the cluster") as caught:
        asyncio.run(lasting.plan(job(1e5)))
    assert caught.value.reasons


def test_an_error_of_the_program_is_a_line_and_its_traceback_is_in_the_log(
    lasting: PlanningProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(JigsawError) as caught:
        asyncio.run(lasting.plan(replace(job(), action=replace(job().action, demand_rps={}))))
    assert caught.value.message == "the planner failed: KeyError: 'docread'"
    assert "logs controller" in caught.value.hint
    assert "solving.py" in caplog.text and "KeyError: 'docread'" in caplog.text


def test_a_process_that_cannot_be_started_fails_its_job(
    planning: PlanningProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(JigsawError, match=r"cannot be started: .*Cannot allocate memory; end other processes"):
        asyncio.run(planning.plan(job()))


def test_a_process_of_another_release_makes_no_plan(lasting: PlanningProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(process_module, "VERSION", "0.0.1/1")
        with pytest.raises(StateError) as caught:
            asyncio.run(lasting.plan(job()))
    expected = f"the controller is of release 0.0.1/1, and the installed package of release {VERSION}"
    assert caught.value.message == expected
    assert caught.value.hint.startswith("restart the controller")
    assert asyncio.run(lasting.plan(job())) is not None


def test_the_controller_s_log_says_why_the_process_does_not_start(
    planning: PlanningProcess, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['jigsaw_triton.errors'] = None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(JigsawError, match="the planning process ended with status 1; see the controller's log"):
        asyncio.run(planning.plan(job()))
    assert "ModuleNotFoundError: import of jigsaw_triton.errors halted" in capfd.readouterr().err


def end(
    planning: PlanningProcess, disturb: Callable[[int, "asyncio.Task[Any]"], None], deadline_s: float = 60.0
) -> str:
    """Disturbs a job that the stopped process cannot carry out; returns its error once another job has worked."""

    async def ended() -> str:
        before = planning.start().pid
        os.kill(before, signal.SIGSTOP)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process_module, "DEADLINE_S", deadline_s)
            task = asyncio.create_task(planning.plan(job(6.0)))
            await asyncio.sleep(0.1)
            disturb(before, task)
            with pytest.raises((JigsawError, asyncio.CancelledError)) as caught:
                await task
        assert (await generation(planning, job(7.0))).plan.graphs["docread"].demand_rps == 7.0
        assert planning.pid != before
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)
        return str(caught.value)

    return asyncio.run(ended())


@pytest.mark.slow
def test_a_process_that_is_killed_fails_its_job_and_is_started_again(planning: PlanningProcess) -> None:
    error = end(planning, lambda pid, _: os.kill(pid, signal.SIGKILL))
    assert error.startswith("the planning process ended with status -9; the kernel's log says whether")


@pytest.mark.slow
def test_a_process_that_hangs_is_killed_and_started_again(planning: PlanningProcess) -> None:
    assert end(planning, lambda *_: None, 0.3).startswith("the planning process did not answer within 0.3 s")


@pytest.mark.slow
def test_a_job_that_is_cancelled_ends_its_process(planning: PlanningProcess) -> None:
    end(planning, lambda _, task: None if task.cancel() else pytest.fail("the job had ended"))


def test_no_process_is_left_after_the_end() -> None:
    with PlanningProcess() as planning:
        asyncio.run(planning.plan(job()))
        assert planning.pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(planning.pid, 0)


def interrupted(planning: PlanningProcess, weights: Path, disturb: Callable[[int], None]) -> tuple[int, int]:
    """Plans while a review waits for a file; returns the ids of the process before and after it."""
    tasks = {
        name: replace(task, variants=tuple(replace(v, artifacts={"weights.bin": weights}) for v in task.variants))
        for name, task in docread().tasks.items()
    }
    wanted = replace(WANTED, graphs={"docread": replace(docread(), tasks=tasks)})
    weights.write_text("weights")

    async def both() -> tuple[int, int]:
        low = await generation(planning, job(5.0, wanted=wanted))
        first = await generation(planning, job(55.0, low, wanted, first=True))
        weights.unlink()  # noqa: ASYNC240
        os.mkfifo(weights)
        review = asyncio.create_task(planning.plan(job(55.0, first, wanted, review=True)))
        pipe = await _opened(weights)
        before = planning.pid
        assert before is not None
        disturb(before)
        urgent = await generation(planning, job(60.0))
        os.close(pipe)
        assert urgent.plan.graphs["docread"].demand_rps == 60.0
        with pytest.raises(JigsawError):
            await review
        assert planning.pid is not None
        return before, planning.pid

    return asyncio.run(both())


@pytest.fixture
def no_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills no review that takes long to end on a busy machine."""
    monkeypatch.setattr(process_module, "INTERRUPT_S", 60.0)


@pytest.mark.slow
@pytest.mark.usefixtures("no_kills")
def test_a_review_gives_way_to_another_job(planning: PlanningProcess, tmp_path: Path) -> None:
    before, after = interrupted(planning, tmp_path / "weights.bin", lambda _: None)
    assert after == before


@pytest.mark.slow
def test_a_review_that_does_not_give_way_is_killed(planning: PlanningProcess, tmp_path: Path) -> None:
    before, after = interrupted(planning, tmp_path / "weights.bin", lambda pid: os.kill(pid, signal.SIGSTOP))
    assert after != before


async def _opened(fifo: Path) -> int:
    """Opens a FIFO for writing as soon as the review reads it."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("no_kills")
@pytest.mark.parametrize("starting", [False, True])
def test_a_review_that_the_process_has_not_read_gives_way(planning: PlanningProcess, starting: bool) -> None:
    async def both() -> None:
        low = None if starting else await generation(planning, job(5.0))
        before = planning.start().pid
        # A stopped process has read no job, however fast the machine is.
        os.kill(before, signal.SIGSTOP)
        review = asyncio.create_task(planning.plan(job(55.0, low, review=True)))
        await asyncio.sleep(0.1)
        urgent = asyncio.create_task(planning.plan(job(60.0)))
        await asyncio.sleep(0.1)
        os.kill(before, signal.SIGCONT)
        with pytest.raises(StateError, match="another plan is needed first"):
            await review
        assert await urgent is not None
        assert planning.pid == before
        assert await planning.plan(job(55.0, review=True)) is not None, "a later review takes place"

    asyncio.run(both())


def test_a_review_in_the_queue_gives_way(lasting: PlanningProcess) -> None:
    async def all_three() -> None:
        first = asyncio.create_task(lasting.plan(job(5.0)))
        await asyncio.sleep(0)
        review = asyncio.create_task(lasting.plan(job(55.0, review=True)))
        await asyncio.sleep(0)
        last = asyncio.create_task(lasting.plan(job(60.0)))
        with pytest.raises(StateError, match="another plan is needed first"):
            await review
        assert await first is not None and await last is not None

    asyncio.run(all_three())


class Jobs:
    """A connection with all jobs of a test, and then their answers."""

    def __init__(self, jobs: list[tuple[str, bytes]]) -> None:
        self.jobs = jobs
        self.answers: list[tuple[str, bytes]] = []

    def recv(self) -> tuple[str, bytes]:
        """Returns the next job."""
        if not self.jobs:
            raise EOFError
        return self.jobs.pop(0)

    def send(self, answer: tuple[str, bytes]) -> None:
        """Keeps an answer."""
        self.answers.append(answer)


def test_a_review_that_is_interrupted_while_it_fails_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Pickles):
        """Bytes that are interrupted while they are made of an error."""

        def packed(self, value: object) -> bytes:
            if isinstance(value, InfeasibleError):
                os.kill(os.getpid(), signal.SIGINT)
            return super().packed(value)

    pickles = Pickles()
    jobs = Jobs([(VERSION, pickles.packed(one)) for one in (job(1e5, review=True), job(5.0))])
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(worker_module, "connected", lambda _: jobs)
    monkeypatch.setattr(worker_module, "Pickles", Interrupted)
    try:
        worker_module._Worker(0).serve()
    finally:
        signal.signal(signal.SIGINT, handler)
    review, plan = (pickles.unpacked(data) for _, data in jobs.answers)
    assert isinstance(review, StateError)
    assert isinstance(plan, Planned)
