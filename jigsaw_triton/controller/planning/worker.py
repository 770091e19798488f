"""The planning process: reads jobs from connection FD and writes their outcomes to it.

It is started as `python -m jigsaw_triton.controller.planning.worker FD`. What it has computed from the profiles stays
in memory for the next job. SIGINT ends a review early, but not the process.
"""

import gc

if __name__ == "__main__":
    # Objects that imports create are never garbage. Searching them would take a tenth of the start.
    gc.disable()

import signal
import sys
import traceback

from jigsaw_triton.child_process import connected
from jigsaw_triton.compiler.store import Identities
from jigsaw_triton.controller.persistence.checkpoint import VERSION
from jigsaw_triton.controller.planning.job import Fault, gave_way
from jigsaw_triton.controller.planning.pickles import Pickles
from jigsaw_triton.controller.planning.planner import carried_out
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.planner.solver.solver import lasting_solvers


class _Worker:
    """Carries out jobs.

    SIGINT means that the controller has another job that it needs first. A review that is in progress ends at once. If
    none is, the signal has overtaken a review on its way, which then ends before it begins, or it came too late.

    Args:
        descriptor: Descriptor of the connection to the controller.
    """

    def __init__(self, descriptor: int) -> None:
        self._identities = Identities()
        self._pickles = Pickles()
        self._interruptible = self._interrupted = False
        signal.signal(signal.SIGINT, self._interrupt)
        self._connection = connected(descriptor)

    def serve(self) -> None:
        """Serves jobs until the other end closes the connection."""
        while True:
            try:
                version, data = self._connection.recv()
            except EOFError:
                return
            # Another release may pickle other classes under the same names, so its bytes are not read.
            self._connection.send((VERSION, self._answer(data) if version == VERSION else b""))

    def _answer(self, data: bytes) -> bytes:
        """Returns the outcome of a job, or the error that it ended with."""
        try:
            answer = self._outcome(data)
            self._interruptible = False
        except KeyboardInterrupt:
            answer = self._pickles.packed(gave_way())
        # The review that was interrupted, this job or the one before it, has ended.
        self._interrupted = False
        return answer

    def _outcome(self, data: bytes) -> bytes:
        try:
            job = self._pickles.unpacked(data)
            if job.action.review:
                self._interruptible = True
                if self._interrupted:
                    raise KeyboardInterrupt
            with lasting_solvers() as solvers:
                return self._pickles.packed(carried_out(job, self._identities, solvers))
        except JigsawError as error:
            return self._pickles.packed(error)
        except Exception as error:
            return self._pickles.packed(
                Fault(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))
            )

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True
        if self._interruptible:
            self._interruptible = False
            raise KeyboardInterrupt


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    _Worker(int(sys.argv[1])).serve()
