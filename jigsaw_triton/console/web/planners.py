"""Plans that the console makes, in processes of their own: what-if plans, and explanations of what serves."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Protocol

from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess
from jigsaw_triton.errors import JigsawError, StateError

log = logging.getLogger(__name__)

Json = dict[str, Any]

_WORKER = "jigsaw_triton.console.web.planning_worker"

_WHAT_IF_S, _EXPLAIN_S = 60.0, 600.0
"""Seconds after which a what-if plan and an explanation are given up. Conventions, far beyond their own time limits."""


class Generations(Protocol):
    """Reader of the generations of a deployment."""

    def generation_state(self, number: int) -> tuple[str, bytes]:
        """Returns the version and the state of a generation; see `JournalReader.generation_state`. Blocks."""


class PlannerProcess:
    """A process that answers questions about generations, of which callers may ask one at a time.

    Args:
        generations: Reader of the generations.
        timeout_s: Seconds after which a question is given up.
    """

    def __init__(self, generations: Generations, timeout_s: float) -> None:
        self._generations = generations
        self._timeout_s = timeout_s
        self._process: ChildProcess | None = None
        self._known: tuple[int, int] | None = None

    async def ask(self, kind: str, number: int, asked: Json) -> Json:
        """Returns the answer to a question. If the caller is cancelled, the process is killed.

        Args:
            kind: `what_if` or `explain`.
            number: Number of the generation.
            asked: Details of the question.

        Raises:
            JigsawError: The question is wrong, or the process failed.
        """
        try:
            return await asyncio.to_thread(self._ask, kind, number, asked)
        except asyncio.CancelledError:
            self.close()
            raise

    def _ask(self, kind: str, number: int, asked: Json) -> Json:
        process = self._started()
        # The state is large: a process that has it is not sent it again.
        state = None if self._known == (process.pid, number) else self._generations.generation_state(number)
        if state is not None and not state[1]:
            hint = "deploy its files again"
            raise StateError(f"generation {number} is no longer kept", where="the journal", hint=hint)
        try:
            answer = process.call((kind, number, state, asked), self._timeout_s)
        except ChildHungError as error:
            raise JigsawError(f"the planner did not answer within {self._timeout_s:g} s") from error
        except ChildEndedError as error:
            hint = "try again; the kernel's log says whether the machine was short of memory"
            raise JigsawError(f"the planner's process ended with {error}", hint=hint) from error
        if isinstance(answer, JigsawError):
            raise answer
        self._known = (process.pid, number)
        found: Json = answer
        return found

    def _started(self) -> ChildProcess:
        if self._process is None or not self._process.alive:
            try:
                self._process = ChildProcess(_WORKER, stderr=None)
            except OSError as error:
                hint = "end other processes or free memory, and try again"
                raise JigsawError(f"the planner's process cannot be started: {error}", hint=hint) from error
        return self._process

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()


class Planners:
    """The console's planners.

    Args:
        generations: Reader of the generations.
    """

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._what_if = PlannerProcess(generations, _WHAT_IF_S)
        self._free = asyncio.Lock()
        self._asked = 0
        self._explaining: asyncio.Task[None] | None = None
        self._explained = Explained(0)

    async def what_if(self, number: int, asked: Json) -> Json:
        """Plans for other requirements than those of a generation, and touches nothing that runs.

        Args:
            number: Number of the generation.
            asked: Body of the request.

        Raises:
            InputError: The body is wrong.
            StateError: A later question came before this one was begun. Only the last position of a slider matters.
        """
        self._asked += 1
        turn = self._asked
        async with self._free:
            if turn != self._asked:
                raise StateError("a later question has replaced this one", where="what-if", hint="ask again")
            return await self._what_if.ask("what_if", number, asked)

    def explain(self, number: int, *, again: bool = False) -> None:
        """Begins to explain the plan of a generation, unless it is being explained or was explained last.

        Args:
            number: Number of the generation.
            again: True to begin again if the last explanation failed.
        """
        if self._explained.number == number and not (again and self._explained.error):
            return
        if self._explaining is not None:
            self._explaining.cancel()
        self._explained = Explained(number)
        self._explaining = asyncio.create_task(self._explain(number), name="explanation")

    async def _explain(self, number: int) -> None:
        process = PlannerProcess(self._generations, _EXPLAIN_S)
        try:
            found = Explained(number, await process.ask("explain", number, {}))
        except JigsawError as error:
            found = Explained(number, error=str(error))
        except Exception as error:
            log.exception("generation %d cannot be explained", number)
            found = Explained(number, error=f"{type(error).__name__}: {error}; see the console's log")
        finally:
            await asyncio.to_thread(process.close)
        self._explained = found

    def explanation(self, number: int) -> "Explained | None":
        """Returns the explanation of a generation, which may not be there yet; None if it was not asked for."""
        return self._explained if self._explained.number == number else None

    async def close(self) -> None:
        """Ends the processes."""
        if self._explaining is not None:
            self._explaining.cancel()
            await asyncio.gather(self._explaining, return_exceptions=True)
        await asyncio.to_thread(self._what_if.close)


@dataclass(frozen=True, slots=True)
class Explained:
    """Explanation of a generation.

    Attributes:
        number: Number of the generation; 0 for none.
        explanation: Explanation; None while it is being made, or if that failed.
        error: Error that it ended with; empty for none.
    """

    number: int
    explanation: Json | None = None
    error: str = ""

    @property
    def in_progress(self) -> bool:
        """True while the explanation is being made."""
        return self.explanation is None and not self.error
