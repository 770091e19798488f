"""The console's planner process: reads questions from connection FD and writes their answers to it.

It is started as `python -m jigsaw_triton.console.web.planning_worker FD`. The generation that it was asked about last,
and what it has computed from the profiles, stay in memory.
"""

import logging
import sys

from jigsaw_triton.child_process import connected
from jigsaw_triton.console.web.what_if import Json, explain, what_if
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.persistence.checkpoint import is_readable, unpickled
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.planner.search.solve import SolverFactory
from jigsaw_triton.planner.solver.solver import lasting_solvers

log = logging.getLogger(__name__)


class _Worker:
    """Answers questions about one generation at a time."""

    def __init__(self) -> None:
        self._number = 0
        self._generation: Generation | None = None

    def answer(
        self, kind: str, number: int, state: tuple[str, bytes] | None, asked: Json, solvers: SolverFactory
    ) -> Json | JigsawError:
        """Returns the answer to a question, or the error that it ended with.

        Args:
            kind: `what_if` or `explain`.
            number: Number of the generation.
            state: Version and state of the generation in the journal; None for the generation of the last question.
            asked: Details of the question.
            solvers: Factory of solvers by name.
        """
        try:
            generation = self._read(number, state)
            return what_if(generation, asked, solvers) if kind == "what_if" else explain(generation, solvers)
        except JigsawError as error:
            return error
        except Exception as error:
            log.exception("a plan failed")
            return JigsawError(f"the planner failed: {type(error).__name__}: {error}", hint="see the console's log")

    def _read(self, number: int, state: tuple[str, bytes] | None) -> Generation:
        if state is not None:
            version, data = state
            if not is_readable(version):
                hint = "use the console of that release, or deploy the files again"
                raise StateError(f"another release recorded generation {number}", where="the journal", hint=hint)
            found = unpickled(data)
            assert isinstance(found, Generation)
            self._number, self._generation = number, found
        if self._generation is None or self._number != number:
            raise StateError(f"generation {number} is not known here")
        return self._generation


def main(descriptor: int) -> None:
    """Answers questions until the other end closes the connection."""
    connection, worker = connected(descriptor), _Worker()
    with lasting_solvers() as solvers:
        while True:
            try:
                kind, number, state, asked = connection.recv()
            except EOFError:
                return
            connection.send(worker.answer(kind, number, state, asked, solvers))


if __name__ == "__main__":
    main(int(sys.argv[1]))
