"""The controller's side of the planning process, which keeps planning away from the controller's event loop."""

import asyncio
import logging
import signal
from types import TracebackType
from typing import Self

from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess
from jigsaw_triton.controller.persistence.checkpoint import VERSION
from jigsaw_triton.controller.planning.job import Fault, Job, Planned, gave_way
from jigsaw_triton.controller.planning.pickles import Pickles
from jigsaw_triton.errors import JigsawError, StateError

log = logging.getLogger(__name__)

DEADLINE_S = 900.0
"""Seconds after which a job is given up and its process killed. A convention, far beyond any plan on a busy machine:
the planner has a time limit for the programs that it solves, but none for what it computes around them."""

INTERRUPT_S = 3.0
"""Seconds that a review may take to end after it was interrupted, before its process is killed. A convention: a
process that has just been started takes a second before it can end one."""


_AGAIN = "the next plan starts it again"
_SEE_LOG = "see the controller's log: `jigsaw-triton logs controller`"


class PlanningProcess:
    """A process that makes plans, one at a time, and that is started again with the next job if it ends.

    A review gives way to any other job: the core would drop its plan, since that job changes what runs.
    """

    def __init__(self) -> None:
        self._process: ChildProcess | None = None
        self._pickles = Pickles()
        self._free = asyncio.Lock()
        self._reviewing = False
        self._urgent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.close()

    @property
    def pid(self) -> int | None:
        """Id of the latest process, which may have ended; None before the first start."""
        return None if self._process is None else self._process.pid

    def start(self) -> ChildProcess:
        """Starts the process unless it runs, and returns it without waiting for its imports, which take a second.

        A job does this as well.

        Raises:
            JigsawError: The process cannot be started.
        """
        if self._process is None or not self._process.alive:
            try:
                self._process = ChildProcess("jigsaw_triton.controller.planning.worker", stderr=None)
                # A job that was cancelled may still use the tables of the process before.
                self._pickles = Pickles()
            except OSError as error:
                hint = "end other processes or free memory; the next plan tries again"
                raise JigsawError(f"the planning process cannot be started: {error}", hint=hint) from error
        return self._process

    async def plan(self, job: Job) -> Planned | None:
        """Carries out a job. If the caller is cancelled, the process is killed.

        Returns:
            The plan and the change to it; None if a review keeps what runs.

        Raises:
            JigsawError: No plan is feasible, none was found, the process ended, or the job gave way to another one.
        """
        if job.action.review:
            return await self._carried_out(job)
        self._urgent += 1
        try:
            await self._end_review()
            return await self._carried_out(job)
        finally:
            self._urgent -= 1

    async def _carried_out(self, job: Job) -> Planned | None:
        review = job.action.review
        async with self._free:
            if review and self._urgent:
                raise gave_way()
            process, self._reviewing = self.start(), review
            try:
                answer = await asyncio.to_thread(_answer, process, self._pickles, job)
            except (ChildEndedError, ChildHungError) as error:
                if review and self._urgent:
                    raise gave_way() from error
                raise _failed(error) from error
            except asyncio.CancelledError:
                process.kill()
                raise
            finally:
                self._reviewing = False
        if isinstance(answer, Fault):
            log.error("a plan failed in the planning process\n%s", answer.traceback)
            raise JigsawError(f"the planner failed: {answer.text}", hint=_SEE_LOG)
        if isinstance(answer, JigsawError):
            raise answer
        return answer

    async def _end_review(self) -> None:
        """Ends a review that is in progress."""
        process = self._process
        if not self._reviewing or process is None:
            return
        process.interrupt()
        try:
            async with asyncio.timeout(INTERRUPT_S), self._free:
                pass
        except TimeoutError:
            process.kill()


def _failed(error: ChildEndedError | ChildHungError) -> JigsawError:
    """Returns the error of a job whose process has ended."""
    if isinstance(error, ChildHungError):
        return JigsawError(f"the planning process did not answer within {DEADLINE_S:g} s", hint=_AGAIN)
    hint = f"{_SEE_LOG}; {_AGAIN}"
    if error.status == -signal.SIGKILL:
        hint = f"the kernel's log says whether the machine was short of memory; {_AGAIN}"
    return JigsawError(f"the planning process ended with {error}", hint=hint)


def _answer(process: ChildProcess, pickles: Pickles, job: Job) -> Planned | Fault | JigsawError | None:
    """Returns what the process answers to a job. Blocks.

    Raises:
        StateError: The process runs another release, because a new one was installed after the controller had started.
    """
    version, data = process.call((VERSION, pickles.packed(job)), DEADLINE_S)
    if version != VERSION:
        text = f"the controller is of release {VERSION}, and the installed package of release {version}"
        hint = "restart the controller: send SIGTERM to the supervisor and run `jigsaw-triton deploy` again"
        raise StateError(text, hint=hint)
    answer: Planned | Fault | JigsawError | None = pickles.unpacked(data)
    return answer
