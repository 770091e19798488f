"""The planning process: reads jobs from connection FD and writes their outcomes to it.

It is started as `python -m jigsaw_triton.controller.planning.worker FD`. What it has computed from the profiles stays
in memory for the next job. SIGINT ends a job early, but not the process.
"""

import signal
import sys
import traceback
from multiprocessing.connection import Connection

from jigsaw_triton.child_process import connected
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.controller.planning.job import carried_out, packed, unpacked
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.planner.solver.solver import lasting_solvers


class _Worker:
    """Carries out jobs.

    Args:
        connection: Connection to the controller.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._identities = Identities()
        self._busy = False
        signal.signal(signal.SIGINT, self._interrupt)

    def serve(self) -> None:
        """Serves jobs until the other end closes the connection."""
        while True:
            try:
                data = self._connection.recv()
            except EOFError:
                return
            self._connection.send(self._answer(data))

    def _answer(self, data: bytes) -> bytes:
        """Returns the outcome of a job, or the error that it ended with."""
        try:
            self._busy = True
            with lasting_solvers() as solvers:
                answer = packed(carried_out(unpacked(data), self._identities, solvers))
            self._busy = False
        except KeyboardInterrupt:
            answer = packed(StateError("planning was interrupted, because another plan is needed first"))
        except JigsawError as error:
            answer = packed(error)
        except Exception as error:
            answer = packed(RuntimeError("".join(traceback.format_exception(error))))
        finally:
            self._busy = False
        return answer

    def _interrupt(self, *_: object) -> None:
        if self._busy:
            self._busy = False
            raise KeyboardInterrupt


if __name__ == "__main__":
    _Worker(connected(int(sys.argv[1]))).serve()
