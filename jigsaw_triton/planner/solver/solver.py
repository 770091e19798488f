"""One interface to all solvers: a separate process that takes programs and returns outcomes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from jigsaw_triton.child_process import ChildEndedError, ChildHungError, ChildProcess
from jigsaw_triton.planner.solver.program import Program, SolverName

MIN_OBJECTIVE_S = 0.05
"""Seconds below which a later objective is not started. A convention."""

GRACE_S = 5.0
"""Seconds that a solver may exceed its time limit by before it is killed. A convention: reading a program and presolve
do not always check the clock."""

SOLVER_TITLES: dict[SolverName, str] = {"highs": "HiGHS", "cbc": "CBC"}
"""Solver -> the name that users see."""


class SolverFailure(Exception):
    """A solver crashed, hung, or returned an impossible answer. Never leaves the planner."""


class SolverHung(SolverFailure):
    """A solver did not answer in time and was killed. The next request starts it again."""


@dataclass(frozen=True, slots=True)
class Request:
    """A program to solve within a time limit."""

    program: Program
    time_limit_s: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Result of one objective.

    Attributes:
        value: Value of the incumbent.
        bound: Lower bound on the optimum.
        proven: True if the incumbent is proven optimal.
    """

    value: float
    bound: float
    proven: bool

    @property
    def gap(self) -> float:
        """Relative gap between value and bound."""
        return 0.0 if self.proven else max(0.0, self.value - self.bound) / max(abs(self.value), 1e-9)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of solving a program.

    Attributes:
        status: `optimal` if every objective is proven; `feasible` if there is a solution without that proof;
            `infeasible` if it is proven that there is none; `unknown` if none was found within the time limit.
        values: Value of each column; empty without a solution.
        stages: Result of each objective that was reached.
    """

    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    values: tuple[float, ...]
    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, program: Program, values: Sequence[float], stages: Sequence[Stage]) -> "Outcome":
        """Returns the outcome of a program with a solution."""
        proven = len(stages) == len(program.objectives) and all(stage.proven for stage in stages)
        return cls("optimal" if proven else "feasible", tuple(values), tuple(stages))


def is_enough(program: Program, stages: Sequence[Stage], left_s: float) -> bool:
    """Returns True if no further objective is worth solving: there is no time, or the last value is not useful.

    Args:
        program: Program that is being solved.
        stages: Results of the objectives so far.
        left_s: Seconds until the time limit.
    """
    if not stages:
        return False
    return left_s < MIN_OBJECTIVE_S or not program.objectives[len(stages) - 1].within_cutoff(stages[-1].value)


class Solver(Protocol):
    """Solves one program at a time."""

    name: SolverName

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        """Minimises the program's objectives in lexicographic order.

        Raises:
            SolverFailure: The solver returned no usable answer.
        """


def solved(solver: Solver, program: Program, time_limit_s: float) -> Outcome:
    """Solves the program and checks that the values returned, if any, are feasible.

    Raises:
        SolverFailure: The solver returned no usable answer.
    """
    outcome = solver.solve(program, time_limit_s)
    if outcome.stages and (reason := program.violation(outcome.values)):
        raise SolverFailure(f"{SOLVER_TITLES[solver.name]} returned an infeasible solution: {reason}")
    return outcome


class SolverProcess:
    """A solver in a separate process, which starts up while the caller still builds the program.

    Args:
        name: Name of the solver.
    """

    def __init__(self, name: SolverName) -> None:
        self.name: SolverName = name

    def __enter__(self) -> Self:
        self._start()
        return self

    def _start(self) -> None:
        self._usable = True
        self._process = ChildProcess("jigsaw_triton.planner.solver.worker", self.name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.alive

    def solve(self, program: Program, time_limit_s: float) -> Outcome:
        """Sends the program to the process and waits for the outcome.

        Raises:
            SolverHung: The process did not answer in time.
            SolverFailure: The process died or answered with an error.
        """
        title = SOLVER_TITLES[self.name]
        if not self._usable:
            self._start()
        try:
            answer = self._process.call(Request(program, time_limit_s), time_limit_s + GRACE_S)
        except ChildEndedError as error:
            raise SolverFailure(f"{title} ended with status {error.status}") from error
        except ChildHungError as error:
            self._usable = False
            raise SolverHung(f"{title} did not answer within {time_limit_s + GRACE_S:.0f} s") from error
        except BaseException:
            self._usable = False
            raise
        if not isinstance(answer, Outcome):
            raise SolverFailure(f"{title} failed: {answer}")
        return answer


@contextmanager
def lasting_solvers() -> Iterator[Callable[[SolverName], AbstractContextManager[SolverProcess]]]:
    """Provides solvers that outlive a plan, because starting one takes longer than solving most programs."""
    with ExitStack() as stack:
        known: dict[SolverName, SolverProcess] = {}

        def named(name: SolverName) -> AbstractContextManager[SolverProcess]:
            if name not in known or not known[name].alive:
                known[name] = stack.enter_context(SolverProcess(name))
            return nullcontext(known[name])

        yield named
