"""The solver process: reads requests from connection FD and writes outcomes to it.

It is started as `python -m jigsaw_triton.planner.solver.worker SOLVER FD`.

Solvers run in a separate process because HiGHS prints a banner to stdout that cannot be disabled, blocks its process
until it finishes, and would take a controller down with it if it crashed.
"""

import importlib
import os
import sys

from jigsaw_triton.child_process import connected
from jigsaw_triton.planner.solver.solver import Request


def main(solver: str, descriptor: int) -> None:
    """Serves requests until the other end closes the connection."""
    connection = connected(descriptor)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    # Importing the solver takes a tenth of a second; do it now, while the planner still builds the program.
    module = importlib.import_module(f"jigsaw_triton.planner.solver.{solver}")
    while True:
        try:
            request: Request = connection.recv()
        except EOFError:
            return
        try:
            connection.send(module.solve(request.program, request.time_limit_s))
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
