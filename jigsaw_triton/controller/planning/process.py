"""The controller's side of the planning process, which keeps planning away from the controller's event loop."""

import asyncio
from types import TracebackType
from typing import Self

from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess
from jigsaw_triton.controller.planning.job import Change, Job, gave_way, packed, unpacked
from jigsaw_triton.errors import JigsawError

DEADLINE_S = 900.0
"""Seconds after which a job is given up and its process killed. A convention, far beyond any plan on a busy machine:
the planner has a time limit for the programs that it solves, but none for what it computes around them."""

INTERRUPT_S = 3.0
"""Seconds that a review may take to end after it was interrupted, before its process is killed. A convention: a
process that has just been started takes a second before it can end one."""


class PlanningProcess:
    """A process that makes plans, one at a time, and that is started again with the next job if it ends.

    A review gives way to any other job: the core would drop its plan, since that job changes what runs.
    """

    def __init__(self) -> None:
        self._process: ChildProcess | None = None
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
        """Process id; None before the first job."""
        return None if self._process is None else self._process.pid

    def start(self) -> ChildProcess:
        """Starts the process, which takes a second, unless it runs. A job does this as well."""
        if self._process is None or not self._process.alive:
            self._process = ChildProcess("jigsaw_triton.controller.planning.worker")
        return self._process

    async def change(self, job: Job) -> Change | None:
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

    async def _carried_out(self, job: Job) -> Change | None:
        review = job.action.review
        async with self._free:
            if review and self._urgent:
                raise gave_way()
            process, self._reviewing = self.start(), review
            try:
                answer = await asyncio.to_thread(_answer, process, job)
            except (ChildEndedError, ChildHungError) as error:
                if review and self._urgent:
                    raise gave_way() from error
                raise _failed(error) from error
            except asyncio.CancelledError:
                process.kill()
                raise
            finally:
                self._reviewing = False
        if isinstance(answer, Exception):
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
        return JigsawError(f"the process that plans did not answer within {DEADLINE_S:g} s")
    return JigsawError(f"the process that plans ended with {error}")


def _answer(process: ChildProcess, job: Job) -> Change | Exception | None:
    answer: Change | Exception | None = unpacked(process.call(packed(job), DEADLINE_S))
    return answer
