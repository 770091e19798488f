"""Solvers behind one interface: a process that takes programs and gives outcomes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from jigsaw_triton.planner.solver.program import Program, SolverName

LEAST_S = 0.05
"""A later objective is not tried with less time than this."""

_LONGEST_S = 2e6
"""That the kernel can be asked to wait for."""

GRACE_S = 5.0
"""How long past its time limit a solver may take to answer before it is given up: reading in and presolve do not always
look at the clock."""

SOLVER_TITLES: dict[SolverName, str] = {"highs": "HiGHS", "cbc": "CBC"}


class SolverFailure(Exception):
    """A solver crashed, hung, or answered what cannot be. Never leaves the planner."""


class SolverHung(SolverFailure):
    """A solver did not answer in time and was ended. What is asked next starts it anew."""


@dataclass(frozen=True, slots=True)
class Request:
    """A program to solve, and in what time."""

    program: Program
    time_limit_s: float


@dataclass(frozen=True, slots=True)
class Stage:
    """How far an objective got: its value, the bound below which it cannot be, and whether it is proven optimal."""

    value: float
    bound: float
    proven: bool

    @property
    def gap(self) -> float:
        """Relative distance between value and bound."""
        return 0.0 if self.proven else max(0.0, self.value - self.bound) / max(abs(self.value), 1e-9)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a program.

    Attributes:
        status: `optimal`: every objective proven; `feasible`: a solution, less than that; `infeasible`: proven;
            `unknown`: no solution within the time limit.
        values: By column; empty where there is no solution.
        stages: By objective, as many as were reached.
    """

    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    values: tuple[float, ...]
    stages: tuple[Stage, ...]


class Solver(Protocol):
    """Solves programs, one after the other."""

    name: SolverName

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        """Optimises the program's objectives in turn.

        Raises:
            SolverFailure: No usable answer came.
        """


def solved(solver: Solver, program: Program, time_limit_s: float) -> Outcome:
    """The solver's outcome, whose values are sure to be a solution if there are any.

    Raises:
        SolverFailure: No usable answer came.
    """
    outcome = solver.solve(program, time_limit_s)
    if outcome.stages and (reason := program.why_not(outcome.values)):
        raise SolverFailure(f"{SOLVER_TITLES[solver.name]} gave what is no solution: {reason}")
    return outcome


class SolverProcess:
    """A solver in a process of its own, which starts while the caller still builds the program.

    Args:
        name: Of the solver.
    """

    def __init__(self, name: SolverName) -> None:
        self.name: SolverName = name
        self._hung = False

    def __enter__(self) -> Self:
        self._start()
        return self

    def _start(self) -> None:
        self._hung = False
        self._connection, theirs = Pipe()
        package_root = Path(__file__).parents[2]
        path = os.pathsep.join(filter(None, [str(package_root), os.environ.get("PYTHONPATH", "")]))
        with theirs:
            # -P: a module in the user's current folder must not stand in for a library's.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "jigsaw_triton.planner.solver.worker", self.name, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._kill()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def _kill(self) -> None:
        # The whole session: CBC is a child of the worker.
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)
        self._process.wait()

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        """Sends the program and waits for the outcome.

        Raises:
            SolverHung: The process did not answer in time.
            SolverFailure: It died, or answered with an error.
        """
        title = SOLVER_TITLES[self.name]
        if self._hung:
            self._start()
        try:
            self._connection.send(Request(program, time_limit_s))
            if not self._connection.poll(min(time_limit_s + GRACE_S, _LONGEST_S)):
                self._connection.close()
                self._kill()
                self._hung = True
                raise SolverHung(f"{title} did not answer within {time_limit_s + GRACE_S:.0f} s")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._kill()
            raise SolverFailure(f"{title} ended with status {self._process.returncode}") from error
        if not isinstance(answer, Outcome):
            raise SolverFailure(f"{title} failed: {answer}")
        return answer


@contextmanager
def lasting_solvers() -> Iterator[Callable[[SolverName], AbstractContextManager[SolverProcess]]]:
    """Makes solvers that go on from one plan to the next: to start one takes longer than most programs do."""
    with ExitStack() as stack:
        known: dict[SolverName, SolverProcess] = {}

        def named(name: SolverName) -> AbstractContextManager[SolverProcess]:
            if name not in known or not known[name].alive:
                known[name] = stack.enter_context(SolverProcess(name))
            return nullcontext(known[name])

        yield named
